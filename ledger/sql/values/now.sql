-- The ledger's time: the server's clock, unless that was set back behind what is recorded. Then
-- keep_time puts another body here, which goes on from there. PostgreSQL puts the body in place of
-- the call, so here it costs nothing.
CREATE OR REPLACE FUNCTION ledger.now() RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT ledger.clock() $$;
