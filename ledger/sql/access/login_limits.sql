-- Returns the time limits that a login with rights gets in this database. Runfold's own statements
-- are shorter: they end after RUNFOLD_STATEMENT_SECONDS, 300 by default. Upgrades and a rebase of
-- the feed run as the owner, whom the limits do not bind. A check may read in one transaction for
-- hours.
CREATE OR REPLACE FUNCTION ledger.login_limits() RETURNS TABLE (name text, value text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT bound.name, bound.value
  FROM (VALUES ('idle_in_transaction_session_timeout', '10min'), ('lock_timeout', '6min'),
    ('statement_timeout', '30min'), ('transaction_timeout', '1d')) AS bound (name, value)
  WHERE current_setting(bound.name, true) IS NOT NULL -- PostgreSQL 17 brought the last
$$;
