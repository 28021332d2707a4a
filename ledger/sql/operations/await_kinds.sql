-- Waits for the claims that count in limited kinds, a second at most, and locks the kinds as they
-- do. Called by a claim that has nothing else and holds no limited kind, so none waits for another
-- in a circle. Internal to ledger.claim. Locks: the first events of kinds, in the order of kinds.
CREATE OR REPLACE FUNCTION ledger.await_kinds(p_project text, p_kinds text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
  PERFORM FROM ledger.kind_event AS held
  WHERE held.project_id = p_project AND held.kind = ANY (p_kinds) AND held.number = 1
  ORDER BY held.kind FOR UPDATE;
EXCEPTION WHEN lock_not_available THEN
  NULL;
END $$;
