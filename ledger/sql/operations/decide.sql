-- Decides the request for an approval with which a run waits: p_type is approval.granted or
-- approval.rejected, p_request the version of the event that asked, p_shown (may be null) the
-- digest of what was shown. Where several persons must approve, all but the last append
-- approval.signed, and the run goes on waiting. No row: there is no such run. A decision that is
-- refused says why, and is noted in the history; refused as 'key': the key was used before, and
-- ledger.commands has its outcome. Needs the right decide, which is checked again once the run is
-- locked, and a transaction that is READ COMMITTED: an older snapshot would show rights and roles
-- that were revoked since. Locks: the row of run_state, FOR UPDATE.
CREATE OR REPLACE FUNCTION ledger.decide(
  p_project text, p_actor text, p_run uuid, p_type text, p_request int, p_shown text DEFAULT NULL,
  p_meaning text DEFAULT NULL, p_body text DEFAULT NULL, p_key text DEFAULT NULL
) RETURNS TABLE (
  run_id uuid, version int, hash bytea, from_state text, refused text, detail text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
  writer CONSTANT text := ledger.credential();
  seed CONSTANT bytea := ledger.salt_seed();
  grants CONSTANT boolean := p_type = 'approval.granted';
  checked boolean;
  run ledger.run_state;
  asked record;
  problem record;
  made ledger.event;
  salt bytea;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'an approval is decided only in a read committed transaction: '
      'an older snapshot may show rights and roles that were revoked' USING ERRCODE = '25001';
  END IF;
  checked := ledger.check_access(p_project, '{decide}', ARRAY[p_actor]);
  IF p_type NOT IN ('approval.granted', 'approval.rejected')
    OR num_nulls(p_actor, p_run, p_type, p_request) > 0
  THEN
    RAISE EXCEPTION 'a decision is approval.granted or approval.rejected, and names its actor, '
      'its run and the version of the event that asked' USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_key]);
  checked := ledger.check_texts(ARRAY[p_meaning], 80);
  checked := ledger.check_content(ARRAY[p_body]);
  IF EXISTS (SELECT FROM json_each(p_body::json) AS part (name, value)
    WHERE part.name NOT IN ('reason', 'output')
      OR part.name = 'reason' AND json_typeof(part.value) NOT IN ('string', 'null'))
  THEN -- no reader would take an event with other content for a decision
    RAISE EXCEPTION 'the content of a decision is a reason, which is text, and an output'
      USING ERRCODE = '22023';
  END IF;
  SELECT state.* INTO run FROM ledger.run_state AS state
  WHERE state.project_id = p_project AND state.run_id = p_run FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  -- The lock may have been waited for, and the right been revoked meanwhile.
  checked := ledger.check_access(p_project, '{decide}', ARRAY[p_actor]);
  run_id := p_run;
  from_state := run.state;
  PERFORM FROM ledger.command AS used WHERE used.project_id = p_project AND used.key = p_key;
  IF FOUND THEN
    refused := 'key';
    RETURN NEXT;
    RETURN;
  END IF;
  made.recorded_at := greatest(ledger.now(), run.updated_at);
  problem := ledger.decision_problem(p_project, p_run, p_actor, p_request, p_shown,
    grants, made.recorded_at);
  IF problem.why IS NOT NULL THEN
    refused := problem.why;
    detail := problem.detail;
    IF ledger.newest_request(p_project, p_run) IS NOT NULL THEN
      PERFORM ledger.note_refusal(p_project, p_actor, p_run, concat('decision refused, ',
        CASE WHEN grants THEN 'yes: ' ELSE 'no: ' END, detail,
        ' (the reason given: ' || left(p_body::json ->> 'reason', 2000) || ')'));
    END IF;
    RETURN NEXT;
    RETURN;
  END IF;
  made.version := run.version + 1;
  SELECT event.shown_sha256, event.approvals INTO asked FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id = p_run AND event.version = p_request;
  IF grants THEN
    made.approvals := asked.approvals;
    made.approved := CASE WHEN asked.approvals IS NOT NULL THEN 1 + (
      SELECT count(*) FROM ledger.event AS event
      WHERE event.project_id = p_project AND event.run_id = p_run AND event.version > p_request
        AND event.type = 'approval.signed') END;
  END IF;
  made.type := CASE WHEN made.approved < made.approvals THEN 'approval.signed' ELSE p_type END;
  IF grants THEN -- a lease that is held goes on
    made.worker_id := run.worker_id;
    made.token := run.token;
    made.lease_until := run.lease_until;
  END IF;
  IF made.type = 'approval.rejected' THEN
    made.state := 'cancelled';
  ELSIF made.type = 'approval.signed' THEN
    made.wait_until := run.wait_until;
    made.wait_outcome := run.wait_outcome;
  ELSIF run.token IS NULL THEN
    made.available_at := made.recorded_at;
  ELSE
    made.state := 'running';
  END IF;
  made.request := p_request;
  made.shown_sha256 := asked.shown_sha256;
  made.meaning := coalesce(p_meaning, CASE WHEN grants THEN 'approved' ELSE 'rejected' END);
  IF p_body IS NOT NULL THEN
    salt := sha256(seed || uuid_send(p_run));
    made.payload_hash := ledger.payload_hash(salt, p_body);
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    VALUES (p_project, p_run, made.version, salt, p_body::json);
  END IF;
  made.hash := ledger.event_hash(run.hash, p_project, p_run, made.version, made.recorded_at,
    made.type, p_actor, state => made.state, worker_id => made.worker_id, token => made.token,
    lease_until => made.lease_until, available_at => made.available_at,
    wait_until => made.wait_until, wait_outcome => made.wait_outcome, key => p_key,
    payload_hash => made.payload_hash, credential => writer, shown_sha256 => made.shown_sha256,
    request => made.request, meaning => made.meaning, approvals => made.approvals,
    approved => made.approved);
  INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, worker_id,
    token, lease_until, available_at, wait_until, wait_outcome, key, payload_hash, credential,
    shown_sha256, request, meaning, approvals, approved, hash)
  VALUES (p_project, p_run, made.version, made.recorded_at, made.type, p_actor, made.state,
    made.worker_id, made.token, made.lease_until, made.available_at, made.wait_until,
    made.wait_outcome, p_key, made.payload_hash,
    writer, made.shown_sha256, made.request, made.meaning, made.approvals, made.approved,
    made.hash);
  IF p_key IS NOT NULL THEN
    PERFORM ledger.record_keys(p_project, ARRAY[p_run], ARRAY[p_key],
      ARRAY[ledger.command_text(p_run, p_type, false, p_actor, p_meaning, p_body, NULL, p_request,
        NULL, NULL, NULL)], seed);
  END IF;
  version := made.version;
  hash := made.hash;
  RETURN NEXT;
END $$;
