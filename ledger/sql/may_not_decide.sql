-- Says why somebody may not decide the approval that a run waits for: 'submitter' where another person's decision is asked for,
-- 'role' where the decision of somebody with a role. Null: they may. Volatile, so that it sees what the row's lock waited for.
CREATE OR REPLACE FUNCTION ledger.may_not_decide(p_project text, p_run uuid, p_actor text) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  asked json;
BEGIN
  SELECT p.body INTO asked FROM (
    SELECT e.version FROM ledger.event AS e
    WHERE e.project_id = p_project AND e.run_id = p_run AND e.type = 'approval.requested' ORDER BY e.version DESC LIMIT 1
  ) AS q
  JOIN ledger.payload AS p ON p.project_id = p_project AND p.run_id = p_run AND p.version = q.version;
  IF asked ->> 'other_person' = 'true' AND EXISTS (
    SELECT FROM ledger.event AS e
    WHERE e.project_id = p_project AND e.run_id = p_run AND e.version = 1 AND e.actor = p_actor
  ) THEN
    RETURN 'submitter';
  END IF;
  IF asked ->> 'role' IS NOT NULL AND NOT EXISTS (
    SELECT FROM ledger.role_member AS m WHERE m.project_id = p_project AND m.role = asked ->> 'role' AND m.member = p_actor
  ) THEN
    RETURN 'role';
  END IF;
  RETURN NULL;
END $$;
