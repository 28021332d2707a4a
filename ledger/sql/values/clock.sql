-- The server's clock, which can be set back. A function of its own, so that a database made for
-- tests can have another (workers/testing.py).
CREATE OR REPLACE FUNCTION ledger.clock() RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT clock_timestamp() $$;
