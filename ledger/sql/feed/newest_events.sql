-- The newest events of every project, at most p_limit, of those that this cluster appended. Events
-- that came from another cluster are of an earlier generation of the feed and may have higher
-- transaction ids; they are left out, so that they hide no newer ones.
CREATE OR REPLACE FUNCTION ledger.newest_events(p_limit int)
  RETURNS TABLE (project_id text, run_id uuid, "position" bigint, recorded_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
DECLARE
  start text := (
    SELECT this.start FROM ledger.feed_generation AS this WHERE this.end_position IS NULL);
BEGIN
  RETURN QUERY SELECT event.project_id, event.run_id, event.position, event.recorded_at
  FROM ledger.event AS event
  WHERE event.txid >= pg_snapshot_xmin(split_part(start, '@', 1)::pg_snapshot)
    AND event.txid < pg_snapshot_xmax(pg_current_snapshot())
    AND event.position > split_part(start, '@', 2)::bigint
  ORDER BY event.txid DESC, event.position DESC LIMIT p_limit;
END $$;
