-- Creates the policies that ledger.policy_rules lists, where one is missing or was changed since,
-- as its comment shows. A policy that is as it should be is not locked. Locks otherwise: ACCESS
-- EXCLUSIVE on its table.
DO $$
DECLARE
  wanted record;
  found record;
BEGIN
  FOR wanted IN SELECT * FROM ledger.policy_rules() LOOP
    SELECT relation.relrowsecurity AND pg_get_expr(policy.polqual, policy.polrelid)
      || ' from ' || md5(wanted.rule) = obj_description(policy.oid, 'pg_policy') AS is_intact
    INTO found
    FROM pg_class AS relation
    LEFT JOIN pg_policy AS policy ON policy.polrelid = relation.oid
      AND policy.polname = wanted.policy
    WHERE relation.oid = to_regclass('ledger.' || wanted.relation);
    CONTINUE WHEN found.is_intact;
    EXECUTE format('ALTER TABLE ledger.%I ENABLE ROW LEVEL SECURITY', wanted.relation);
    EXECUTE format('DROP POLICY IF EXISTS %I ON ledger.%I', wanted.policy, wanted.relation);
    EXECUTE format('CREATE POLICY %I ON ledger.%I FOR %s TO %s USING (%s)', wanted.policy,
      wanted.relation, wanted.command, wanted.role, wanted.rule);
    EXECUTE (SELECT format('COMMENT ON POLICY %I ON ledger.%I IS %L', wanted.policy,
        wanted.relation,
        pg_get_expr(policy.polqual, policy.polrelid) || ' from ' || md5(wanted.rule))
      FROM pg_policy AS policy WHERE policy.polname = wanted.policy
        AND policy.polrelid = to_regclass('ledger.' || wanted.relation));
  END LOOP;
END $$;
