-- Returns a snapshot as it would have been before a transaction id: it shows what the given one
-- shows of the transactions before that id. A snapshot does not know which ids beyond its end are
-- in progress, so those are never shown, whatever the id.
CREATE OR REPLACE FUNCTION ledger.feed_cut(p_snapshot pg_snapshot, p_before xid8)
  RETURNS pg_snapshot
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT concat_ws(':', least(pg_snapshot_xmin(p_snapshot), cut.id), cut.id,
    (SELECT coalesce(string_agg(open.id::text, ',' ORDER BY open.id), '')
      FROM pg_snapshot_xip(p_snapshot) AS open (id) WHERE open.id < cut.id)
  )::pg_snapshot
  FROM least(p_before, pg_snapshot_xmax(p_snapshot)) AS cut (id)
$$;
