-- Appends an event to the control history. Internal to the owner's functions and triggers. Locks:
-- `control_event` against other writers until the transaction ends, so that its numbers have no
-- gap and each event is hashed with the one before it.
CREATE OR REPLACE FUNCTION ledger.append_control(
  p_project text, p_type text, p_subject text, p_facts text, p_actor text, p_reason text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  writer CONSTANT text := ledger.credential();
  last ledger.control_event;
  new_number bigint;
  moment timestamptz;
BEGIN
  LOCK TABLE ledger.control_event IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO last FROM ledger.control_event AS e ORDER BY e.number DESC LIMIT 1;
  new_number := coalesce(last.number, 0) + 1;
  moment := greatest(ledger.now(), last.recorded_at);
  INSERT INTO ledger.control_event (number, recorded_at, project_id, credential, type, subject,
    facts, actor, reason, hash)
  VALUES (new_number, moment, p_project, writer, p_type, p_subject, p_facts, p_actor, p_reason,
    ledger.control_hash(coalesce(last.hash, ''::bytea), new_number, moment, p_project, writer,
      p_type, p_subject, p_facts, p_actor, p_reason));
END $$;
