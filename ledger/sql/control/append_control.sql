-- Appends an event to a list of the control history: a project's, or that of the database (*). It
-- continues from the list's head and not from its newest event, so that a list whose end was cut
-- off keeps a visible gap. Internal to the owner's functions and triggers. Locks: the list against
-- other writers until the transaction ends, so that its numbers have no gap and each event is
-- hashed with the one before.
CREATE OR REPLACE FUNCTION ledger.append_control(
  p_list text, p_type text, p_subject text, p_facts text, p_actor text, p_reason text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  writer CONSTANT text := ledger.credential();
  head ledger.control_head;
  new_number bigint;
  new_hash bytea;
  moment timestamptz;
BEGIN
  PERFORM ledger.lock_control(p_list);
  SELECT * INTO head FROM ledger.control_head AS list_head WHERE list_head.project_id = p_list;
  new_number := coalesce(head.number, 0) + 1;
  moment := greatest(ledger.now(), (SELECT newest.recorded_at FROM ledger.control_event AS newest
    WHERE newest.project_id = p_list AND newest.number = head.number));
  new_hash := ledger.control_hash(coalesce(head.hash, ''::bytea), new_number, moment, p_list,
    writer, p_type, p_subject, p_facts, p_actor, p_reason);
  INSERT INTO ledger.control_event (project_id, number, recorded_at, credential, type, subject,
    facts, actor, reason, hash)
  VALUES (p_list, new_number, moment, writer, p_type, p_subject, p_facts, p_actor, p_reason,
    new_hash)
  ON CONFLICT DO NOTHING; -- a snapshot older than the newest event: a serialization failure
  IF NOT FOUND THEN
    RAISE EXCEPTION 'event % of the control history of % is there already', new_number, p_list
      USING ERRCODE = '40001';
  END IF;
  UPDATE ledger.control_head AS list_head SET number = new_number, hash = new_hash
  WHERE list_head.project_id = p_list;
  IF NOT FOUND THEN
    INSERT INTO ledger.control_head (project_id, number, hash)
    VALUES (p_list, new_number, new_hash);
  END IF;
END $$;
