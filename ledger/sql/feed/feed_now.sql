-- Gives the moment now: what is visible, as pg_snapshot@position. Every event that it shows, or that an event of an earlier
-- moment preceded, has a position up to that; later events have later ones, in whatever cluster they are appended.
CREATE OR REPLACE FUNCTION ledger.feed_now() RETURNS TABLE (generation int, moment text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM ledger.feed_guard();
  -- The snapshot is older than the reading of the sequence: STABLE takes the caller's.
  RETURN QUERY SELECT g.generation, pg_current_snapshot()::text || '@' || s.last_value
  FROM ledger.feed_generation AS g, ledger.event_position AS s WHERE g.end_position IS NULL;
END $$;
