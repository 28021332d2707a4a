-- Refuses an order about a kind that no run has had and that no order or schedule has named
-- (RF407): the name may be misspelled. p_ahead says that the kind is new on purpose. Returns true,
-- so that a caller can assign it. Internal to the operations.
CREATE OR REPLACE FUNCTION ledger.check_kind(p_project text, p_kind text, p_ahead boolean)
  RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
  IF p_ahead IS NOT TRUE
    AND NOT EXISTS (SELECT FROM ledger.kind AS known
      WHERE known.project_id = p_project AND known.kind = p_kind)
    AND NOT EXISTS (SELECT FROM ledger.kind_state AS known
      WHERE known.project_id = p_project AND known.kind = p_kind)
    AND NOT EXISTS (SELECT FROM ledger.schedule AS known
      WHERE known.project_id = p_project AND known.kind = p_kind) THEN
    RAISE EXCEPTION 'no run of kind % was ever submitted', p_kind
      USING ERRCODE = 'RF407', DETAIL = p_kind, HINT = 'p_ahead allows a kind that has no run yet';
  END IF;
  RETURN true;
END $$;
