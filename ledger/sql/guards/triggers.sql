-- The triggers of the tables, all ALWAYS: session_replication_role does not switch them off. Those
-- that fold or record leave alone what a subscription brings: see ledger.is_replicated. Each is
-- written out, however alike: `runfold doctor` compares what is installed with these definitions.
CREATE OR REPLACE TRIGGER fold_run_state AFTER INSERT ON ledger.event
  REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.fold_run_state();
CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON ledger.event
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE OR REPLACE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.event
  EXECUTE FUNCTION ledger.refuse_change();
CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON ledger.payload
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE OR REPLACE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.payload
  EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER fold_run_state;
ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER refuse_truncate;
ALTER TABLE ledger.payload ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE ledger.payload ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON ledger.archive_event
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE OR REPLACE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.archive_event
  EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.archive_event ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE ledger.archive_event ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON ledger.role_event
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE OR REPLACE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.role_event
  EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.role_event ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE ledger.role_event ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON ledger.payload_read
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE OR REPLACE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.payload_read
  EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.payload_read ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE ledger.payload_read ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON ledger.view_event
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE OR REPLACE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.view_event
  EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.view_event ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE ledger.view_event ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE OR REPLACE TRIGGER fold_kind_state AFTER INSERT ON ledger.kind_event
  REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.fold_kind_state();
CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON ledger.kind_event
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE OR REPLACE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.kind_event
  EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.kind_event ENABLE ALWAYS TRIGGER fold_kind_state;
ALTER TABLE ledger.kind_event ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE ledger.kind_event ENABLE ALWAYS TRIGGER refuse_truncate;
-- The control history: what these tables say was ordered, and by which credential.
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.project
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('project', 'project_id', 'channel');
ALTER TABLE ledger.project ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.access_grant
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('access', 'project_id credential', '');
ALTER TABLE ledger.access_grant ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.api_token
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('token', 'token_id', '');
ALTER TABLE ledger.api_token ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.user_account
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('user', 'name', '');
ALTER TABLE ledger.user_account ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.kind_event
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('kind', 'project_id kind number', '');
ALTER TABLE ledger.kind_event ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.role_event
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('role', 'project_id number', '');
ALTER TABLE ledger.role_event ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.schedule
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('schedule', 'project_id name',
    'next_at last_due updated_at');
ALTER TABLE ledger.schedule ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.webhook
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('webhook', 'webhook_id', 'checkpoint');
ALTER TABLE ledger.webhook ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.archive_event
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('archive', 'project_id number', '');
ALTER TABLE ledger.archive_event ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE ON ledger.feed_generation
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.record_control('generation', 'generation', '');
ALTER TABLE ledger.feed_generation ENABLE ALWAYS TRIGGER record_control;
CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON ledger.control_event
  FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();
CREATE OR REPLACE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.control_event
  EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.control_event ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE ledger.control_event ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE OR REPLACE TRIGGER keep_control_head BEFORE INSERT OR UPDATE OR DELETE ON ledger.control_head
  FOR EACH ROW
  WHEN (current_setting('session_replication_role') <> 'replica' OR NOT ledger.is_replicated())
  EXECUTE FUNCTION ledger.keep_control_head();
CREATE OR REPLACE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.control_head
  EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.control_head ENABLE ALWAYS TRIGGER keep_control_head;
ALTER TABLE ledger.control_head ENABLE ALWAYS TRIGGER refuse_truncate;
