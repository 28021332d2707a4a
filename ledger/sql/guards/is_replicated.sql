-- Whether this session writes what a subscription of logical replication brings. States come with
-- the events that were folded into them, and records with what they are about, so triggers that
-- fold or record do not fire in it. The setting alone would not do: a superuser can have it in any
-- session.
CREATE OR REPLACE FUNCTION ledger.is_replicated() RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT current_setting('session_replication_role') = 'replica'
    AND EXISTS (SELECT FROM pg_stat_get_subscription(NULL) AS subscription
      WHERE subscription.pid = pg_backend_pid())
$$;
