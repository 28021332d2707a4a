-- Waits, a second at most, for other claims that are counting in limited kinds, and locks those
-- kinds as they did. Only a claim that found nothing else and holds no limited kind calls it, so no
-- two claims wait for each other, unless their transactions have claimed before: then one of them
-- goes on without. Internal to ledger.claim. Locks: the first events of kinds, in the order of
-- kinds.
CREATE OR REPLACE FUNCTION ledger.await_kinds(p_project text, p_kinds text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
  PERFORM FROM ledger.kind_event AS held
  WHERE held.project_id = p_project AND held.kind = ANY (p_kinds) AND held.number = 1
  ORDER BY held.kind FOR UPDATE;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  NULL;
END $$;
