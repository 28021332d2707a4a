-- Says why somebody may not decide the approval that a run waits for: 'submitter' where another
-- person's decision is asked for, 'role' where the decision of somebody with a role. Null: they
-- may. Volatile and in READ COMMITTED only, so that it sees what the row's lock waited for: an
-- older snapshot still has roles that were revoked.
CREATE OR REPLACE FUNCTION ledger.may_not_decide(p_project text, p_run uuid, p_actor text)
  RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  asked record;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'an approval is decided in a read committed transaction only: '
      'another snapshot may hold revoked roles'
      USING ERRCODE = '25001';
  END IF;
  SELECT e.role, e.other_person INTO asked FROM ledger.event AS e
  WHERE e.project_id = p_project AND e.run_id = p_run AND e.type = 'approval.requested'
  ORDER BY e.version DESC LIMIT 1;
  IF asked.other_person AND EXISTS (
    -- Whoever submitted a run that asked for this one, by however many steps, asked for this one.
    WITH RECURSIVE asking (id, depth) AS (
      SELECT p_run, 0
      UNION ALL
      SELECT (p.body ->> 'parent')::uuid, a.depth + 1 FROM asking AS a
      CROSS JOIN LATERAL (
        SELECT p.body FROM ledger.payload AS p WHERE p.project_id = p_project AND p.run_id = a.id
          AND p.version = 1 OFFSET 0
      ) AS p
      WHERE a.depth < 100 AND p.body ->> 'parent' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    )
    SELECT FROM asking AS a
    CROSS JOIN LATERAL (
      SELECT FROM ledger.event AS e WHERE e.project_id = p_project AND e.run_id = a.id
        AND e.version = 1 AND ledger.person(e.actor) = ledger.person(p_actor) OFFSET 0
    ) AS e
  ) THEN
    RETURN 'submitter';
  END IF;
  IF asked.role IS NOT NULL AND NOT EXISTS (
    SELECT FROM ledger.role_member AS m WHERE m.project_id = p_project AND m.role = asked.role
      AND m.member = p_actor
  ) THEN
    RETURN 'role';
  END IF;
  RETURN NULL;
END $$;
