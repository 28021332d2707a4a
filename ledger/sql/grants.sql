-- Least privilege: a worker may call the operations and read; a reader may read. Nobody may write a table.
REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger TO runfold_worker, runfold_reader;
GRANT SELECT ON ledger.event, ledger.payload, ledger.run_state, ledger.run, ledger.entry, ledger.project, ledger.kind, ledger.command,
  ledger.alembic_version, ledger.rebuild, ledger.rebuild_range TO runfold_worker, runfold_reader;
GRANT EXECUTE ON FUNCTION ledger.state_at, ledger.history, ledger.rebuild_run_state, ledger.drift_run_state,
  ledger.event_hash, ledger.payload_hash, ledger.read_run TO runfold_worker, runfold_reader;
GRANT EXECUTE ON FUNCTION ledger.submit, ledger.claim, ledger.heartbeat, ledger.transition, ledger.requeue, ledger.cancel,
  ledger.append, ledger.commands, ledger.refuse, ledger.reap, ledger.make_partitions TO runfold_worker;
