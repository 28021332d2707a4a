-- Whether a reader of the feed that has seen everything up to a moment has seen all events up to
-- a position, of which `p_last_txid` has the highest id of a generation: no transaction up to
-- that id was open at the moment, or it lies in a later generation. That the newest one is
-- visible would not do: an older one may have been open, and have committed since.
CREATE OR REPLACE FUNCTION ledger.feed_passed(
  p_generation int, p_moment text, p_of_generation int, p_last_position bigint, p_last_txid xid8
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT split_part(p_moment, '@', 2)::bigint >= p_last_position AND CASE
    WHEN p_generation < p_of_generation THEN p_moment LIKE '9223372036854775807:%'
    WHEN p_generation = p_of_generation AND p_last_txid IS NOT NULL
      THEN pg_snapshot_xmin(split_part(p_moment, '@', 1)::pg_snapshot) > p_last_txid
    ELSE true
  END
$$;
