-- Appends an event to a list of the control history: a project's, or that of the database (*).
-- Internal to the owner's functions and triggers. Locks: the list against other writers until the
-- transaction ends, so that its numbers have no gap and each event is hashed with the one before.
CREATE OR REPLACE FUNCTION ledger.append_control(
  p_list text, p_type text, p_subject text, p_facts text, p_actor text, p_reason text
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
  PERFORM ledger.lock_control(p_list);
  SELECT * INTO last FROM ledger.control_event AS e WHERE e.project_id = p_list
  ORDER BY e.number DESC LIMIT 1;
  new_number := coalesce(last.number, 0) + 1;
  moment := greatest(ledger.now(), last.recorded_at);
  INSERT INTO ledger.control_event (project_id, number, recorded_at, credential, type, subject,
    facts, actor, reason, hash)
  VALUES (p_list, new_number, moment, writer, p_type, p_subject, p_facts, p_actor, p_reason,
    ledger.control_hash(coalesce(last.hash, ''::bytea), new_number, moment, p_list, writer,
      p_type, p_subject, p_facts, p_actor, p_reason))
  ON CONFLICT DO NOTHING; -- a snapshot from before the newest event is a serialization failure
  IF NOT FOUND THEN
    RAISE EXCEPTION 'event % of the control history of % is there already', new_number, p_list
      USING ERRCODE = '40001';
  END IF;
END $$;
