-- The ledger's clock: the server's. A function of its own, so that a database made for tests can
-- have another (workers/testing.py); PostgreSQL puts its body in place of the call, so here it
-- costs nothing.
CREATE OR REPLACE FUNCTION ledger.now() RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT clock_timestamp() $$;
