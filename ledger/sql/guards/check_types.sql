-- Refuses event types and schema versions that Python refuses (ledger/events.py): a user's type is
-- lower-case words joined by dots; the ledger's own have the version that this code writes. Types
-- that have a function of their own are not refused here: they are not kept, and ledger.refuse says
-- why.
-- Internal to ledger.append.
CREATE OR REPLACE FUNCTION ledger.check_types(p_types text[], p_versions int[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- Of another list an index below would find nothing.
  IF array_ndims(p_types) > 1 OR array_lower(p_types, 1) <> 1
    OR array_ndims(p_versions) > 1 OR array_lower(p_versions, 1) <> 1 THEN
    RAISE EXCEPTION 'event types and versions: each is a plain list that begins at 1'
      USING ERRCODE = '22023';
  END IF;
  FOR number IN 1 .. coalesce(cardinality(p_types), 0) LOOP
    IF length(p_types[number]) > 80 OR p_types[number] !~ E'^[a-z][a-z0-9_]*(\\.[a-z][a-z0-9_]*)+$'
    THEN
      RAISE EXCEPTION 'event type %: use lower-case words joined by dots',
        quote_literal(left(p_types[number], 80)) USING ERRCODE = '22023';
    END IF;
    IF p_types[number] IN ('note.added', 'step.completed', 'step.failed', 'signal.received')
      AND p_versions[number] IS DISTINCT FROM 1
    THEN
      RAISE EXCEPTION 'event type % has no schema version %', p_types[number], p_versions[number]
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $$;
