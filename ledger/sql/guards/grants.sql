-- Least privilege: a worker may call the operations, keep schedules and read; a reader may read;
-- a projector may read, and write the tables of projections and their checkpoints. Nobody may
-- write any other table.
REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger, projection TO runfold_worker, runfold_reader, runfold_projector;
GRANT SELECT ON ledger.event, ledger.payload, ledger.run_state, ledger.run, ledger.entry,
  ledger.project, ledger.kind, ledger.command,
  ledger.kind_event, ledger.kind_state, ledger.schedule, ledger.alembic_version, ledger.rebuild,
  ledger.rebuild_range,
  ledger.projection, ledger.projection_skip, ledger.projection_aside, ledger.feed_generation,
  ledger.event_position,
  ledger.archive_event, ledger.archive, ledger.role_event, ledger.role_member
  TO runfold_worker, runfold_reader, runfold_projector;
GRANT EXECUTE ON FUNCTION ledger.content_part, ledger.closings, ledger.state_at, ledger.history,
  ledger.rebuild_run_state, ledger.fold_events,
  ledger.event_hash, ledger.payload_hash, ledger.read_run, ledger.now, ledger.refuse_version,
  ledger.feed_guard, ledger.feed_now,
  ledger.feed_cut, ledger.feed_moment, ledger.feed_known, ledger.feed_next, ledger.feed_page,
  ledger.feed_passed, ledger.feed_whole, ledger.may_not_decide
  TO runfold_worker, runfold_reader, runfold_projector;
GRANT EXECUTE ON FUNCTION ledger.submit, ledger.claim, ledger.heartbeat, ledger.transition,
  ledger.requeue, ledger.cancel,
  ledger.append, ledger.signal, ledger.commands, ledger.refuse, ledger.reap,
  ledger.next_due, ledger.change_kind,
    ledger.make_partitions TO runfold_worker;
-- Tables and views of projections are the owner's: the functions make, exchange and drop them
-- for whoever runs projections.
REVOKE CREATE ON SCHEMA projection FROM runfold_projector;
GRANT EXECUTE ON FUNCTION ledger.make_projection_table, ledger.publish_projection,
  ledger.exchange_projection_table,
  ledger.drop_projection_tables TO runfold_projector;
GRANT INSERT, UPDATE ON ledger.projection, ledger.rebuild,
  ledger.rebuild_range TO runfold_projector;
GRANT INSERT ON ledger.projection_skip TO runfold_projector;
GRANT INSERT, UPDATE, DELETE ON ledger.projection_aside TO runfold_projector;
GRANT INSERT, UPDATE, DELETE ON ledger.schedule TO runfold_worker;
