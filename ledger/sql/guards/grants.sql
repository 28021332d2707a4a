-- The roles only open the door: what a login may do behind it, in which project, is a row of
-- access_grant, which the functions and the policies ask for. A worker may call the operations; a
-- reader may read; a projector may read, and write the tables of projections and their
-- checkpoints; an auditor may read all, salts and the control history included.
REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger, projection
  TO runfold_worker, runfold_reader, runfold_projector, runfold_auditor;
GRANT SELECT ON ledger.event, ledger.run_state, ledger.run, ledger.entry,
  ledger.kind, ledger.run_tag,
  ledger.kind_event, ledger.kind_state, ledger.schedule, ledger.saved_view, ledger.view_event,
  ledger.snooze,
  ledger.alembic_version,
  ledger.rebuild,
  ledger.rebuild_range,
  ledger.projection, ledger.projection_skip, ledger.projection_aside, ledger.feed_generation,
  ledger.event_position,
  ledger.archive_event, ledger.archive, ledger.role_event, ledger.role_member,
  ledger.access_grant, ledger.webhook, ledger.delivery, ledger.delivery_attempt
  TO runfold_worker, runfold_reader, runfold_projector, runfold_auditor;
GRANT SELECT (project_id, created_at) ON ledger.project
  TO runfold_worker, runfold_reader, runfold_projector;
GRANT SELECT (project_id, key, content_hash, run_id, version, hash) ON ledger.command
  TO runfold_worker, runfold_reader, runfold_projector;
-- Salts are what keeps erased content from being guessed at by its hash.
GRANT SELECT (project_id, run_id, version, body) ON ledger.payload
  TO runfold_worker, runfold_reader, runfold_projector;
GRANT SELECT ON ledger.payload, ledger.command, ledger.project, ledger.api_token,
  ledger.control_event, ledger.control_head, ledger.low_water TO runfold_auditor;
GRANT SELECT (token_id, name, created_at, expires_at, revoked_at, actor, reason)
  ON ledger.api_token TO runfold_worker;
GRANT SELECT ON ledger.payload_read
  TO runfold_worker, runfold_reader, runfold_projector, runfold_auditor;
GRANT SELECT ON ledger.user_account, ledger.credential_use TO runfold_worker, runfold_auditor;
GRANT SELECT (session_id, credential, created_at, expires_at, last_used_at, ended_at,
  user_changed_at)
  ON ledger.web_session TO runfold_worker, runfold_auditor;
GRANT EXECUTE ON FUNCTION ledger.content_part, ledger.state_at, ledger.history,
  ledger.rebuild_run_state, ledger.fold_events,
  ledger.event_hash, ledger.payload_hash, ledger.read_run, ledger.read_runs,
  ledger.clock, ledger.now,
  ledger.refuse_version, ledger.check_cluster, ledger.feed_now,
  ledger.feed_cut, ledger.feed_moment, ledger.check_moment, ledger.feed_next, ledger.feed_page,
  ledger.feed_passed, ledger.check_months_read, ledger.newest_events, ledger.credential,
  ledger.token_credential, ledger.projects_with, ledger.projects_seen, ledger.channel,
  ledger.speaker, ledger.check_my_access, ledger.note_reads, ledger.login_limits
  TO runfold_worker, runfold_reader, runfold_projector, runfold_auditor;
GRANT EXECUTE ON FUNCTION ledger.control_hash TO runfold_auditor;
GRANT EXECUTE ON FUNCTION ledger.note_verify TO runfold_worker, runfold_auditor;
GRANT EXECUTE ON FUNCTION ledger.submit, ledger.claim, ledger.heartbeat, ledger.transition,
  ledger.decide, ledger.requeue, ledger.cancel,
  ledger.append, ledger.signal, ledger.commands, ledger.closings, ledger.refuse, ledger.reap,
  ledger.keep_time, ledger.next_due, ledger.parked_runs, ledger.change_kind,
  ledger.change_access, ledger.change_role, ledger.change_token, ledger.use_token,
  ledger.put_schedule, ledger.change_schedule, ledger.drop_schedule, ledger.advance_schedule,
  ledger.change_view, ledger.snooze,
  ledger.change_user, ledger.password_method, ledger.sign_in_by_token,
  ledger.sign_in_by_password, ledger.sign_in_by_provider, ledger.end_session,
  ledger.change_webhook, ledger.resend_delivery,
  ledger.make_partitions
  TO runfold_worker;
-- The sender of webhooks, which signs with their secrets.
GRANT EXECUTE ON FUNCTION ledger.webhook_duties, ledger.queue_deliveries, ledger.due_deliveries,
  ledger.record_attempt, ledger.forget_deliveries TO runfold_projector;
-- Tables and views of projections are the owner's: the functions make, exchange and drop them
-- for projectors.
REVOKE CREATE ON SCHEMA projection FROM runfold_projector;
GRANT EXECUTE ON FUNCTION ledger.make_projection_table, ledger.publish_projection,
  ledger.exchange_projection_table, ledger.note_rebuild,
  ledger.drop_projection_tables, ledger.forget_aside, ledger.begin_work, ledger.end_work
  TO runfold_projector;
-- UPDATE of columns, and no DELETE: who has either of a whole table may lock it against readers.
GRANT INSERT ON ledger.projection, ledger.projection_skip, ledger.projection_aside, ledger.rebuild,
  ledger.rebuild_range TO runfold_projector;
GRANT UPDATE (version, digest, generation, snapshot, target, position, events, moved_at, paused_at,
  failed_at, error, error_project_id, error_run_id, error_version, error_position)
  ON ledger.projection TO runfold_projector;
GRANT UPDATE (last_position, events, error, retry_at)
  ON ledger.projection_aside TO runfold_projector;
GRANT UPDATE (moment, finished_at) ON ledger.rebuild TO runfold_projector;
GRANT UPDATE (last, row_count, event_count, error, done_at)
  ON ledger.rebuild_range TO runfold_projector;
