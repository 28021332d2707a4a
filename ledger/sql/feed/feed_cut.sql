-- Cuts a snapshot: what it shows of the transactions before an id.
CREATE OR REPLACE FUNCTION ledger.feed_cut(p_snapshot pg_snapshot, p_before xid8)
  RETURNS pg_snapshot
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT concat_ws(':', least(pg_snapshot_xmin(p_snapshot), p_before), p_before,
    (SELECT coalesce(string_agg(x.id::text, ',' ORDER BY x.id), '')
      FROM pg_snapshot_xip(p_snapshot) AS x (id) WHERE x.id < p_before)
  )::pg_snapshot
$$;
