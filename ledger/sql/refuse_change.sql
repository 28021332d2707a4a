-- Events and payloads are never changed or deleted, by anyone: the second line of defence, after privileges.
CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION '% on % is not allowed: the ledger is append-only', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'RF403', HINT = 'Append a compensating event instead.';
END $$;
