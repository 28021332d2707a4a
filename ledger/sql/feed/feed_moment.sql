-- Returns the moment of a snapshot, as pg_snapshot@position@hash: which transactions it shows, a
-- position at or after those of all events that it shows, and the hash of the newest of these
-- events. The snapshot is cut behind that event. Its id is in the write-ahead log, so a server that
-- crashes or fails over hands out no lower id again; ids beyond it may come back, with other
-- events. ledger.check_moment recognises a history by the hash. Where the newest event was archived
-- with its month, the moment still lies behind that event and has no hash: a reader that has passed
-- the month must not be put back before it.
CREATE OR REPLACE FUNCTION ledger.feed_moment(p_start text, p_snapshot pg_snapshot,
  p_position bigint) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
  base bigint := split_part(p_start, '@', 2);
  -- Events of earlier generations may have any id: none below this generation's first is read.
  least xid8 := pg_snapshot_xmin(split_part(p_start, '@', 1)::pg_snapshot);
  newest record;
  archived xid8;
BEGIN
  SELECT event.txid, left(encode(event.hash, 'hex'), 16) AS hash INTO newest
  FROM ledger.event AS event
  WHERE event.txid >= least AND event.txid < pg_snapshot_xmax(p_snapshot) AND event.position > base
    AND pg_visible_in_snapshot(event.txid, p_snapshot)
  ORDER BY event.txid DESC, event.position DESC LIMIT 1;
  SELECT max(month.last_txid) INTO archived FROM ledger.archive AS month
  WHERE month.detached AND month.last_position > base;
  IF archived IS NOT NULL AND (newest.txid IS NULL OR newest.txid < archived) THEN
    SELECT archived AS txid, NULL AS hash INTO newest;
  END IF;
  IF newest.txid IS NULL THEN
    RETURN p_start;
  END IF;
  RETURN ledger.feed_cut(p_snapshot,
    (newest.txid::text::bigint + 1)::text::xid8)::text || '@' || p_position
    || coalesce('@' || newest.hash, '');
END $$;
