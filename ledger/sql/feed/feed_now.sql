-- The moment now (see ledger.feed_moment). Every event that it shows, or that an event of an
-- earlier moment preceded, has a position up to its own; later events have later ones, in
-- whatever cluster they are appended.
CREATE OR REPLACE FUNCTION ledger.feed_now() RETURNS TABLE (generation int, moment text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM ledger.check_cluster();
  -- The snapshot is older than the reading of the sequence: STABLE takes the caller's.
  RETURN QUERY SELECT this.generation,
    ledger.feed_moment(this.start, pg_current_snapshot(), sequence.last_value)
  FROM ledger.feed_generation AS this, ledger.event_position AS sequence
  WHERE this.end_position IS NULL;
END $$;
