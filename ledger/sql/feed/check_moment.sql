-- Refuses a moment of the feed that is not of this database's history: of another database, or one
-- that a crash, a restore or a fail-over has undone. The history has the start of each generation,
-- its end, and every moment whose newest event is still here or archived. A moment without a hash
-- is of a time when that event was archived.
CREATE OR REPLACE FUNCTION ledger.check_moment(p_generation int, p_moment text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
  this ledger.feed_generation;
  newest xid8;
  hash text;
BEGIN
  SELECT * INTO this FROM ledger.feed_generation AS known WHERE known.generation = p_generation;
  IF p_moment IN (this.start, '9223372036854775807:9223372036854775807:@' || this.end_position) THEN
    RETURN;
  END IF;
  newest := (pg_snapshot_xmax(split_part(p_moment, '@', 1)::pg_snapshot)::text::bigint - 1)::text;
  -- The newest event is the last of its transaction: one probe of the index, however many it has.
  SELECT left(encode(event.hash, 'hex'), 16) INTO hash FROM ledger.event AS event
  WHERE event.txid = newest AND event.position > split_part(this.start, '@', 2)::bigint
    AND event.position <= coalesce(this.end_position, 9223372036854775807)
  ORDER BY event.position DESC LIMIT 1;
  IF hash IS NOT NULL AND split_part(p_moment, '@', 3) IN (hash, '')
    OR EXISTS (SELECT FROM ledger.archive AS archived WHERE archived.detached
      AND archived.generation >= p_generation AND archived.last_txid >= newest) THEN
    RETURN;
  END IF;
  RAISE EXCEPTION 'the checkpoint %/% belongs to a history that this database does not have',
    p_generation, p_moment
    USING ERRCODE = 'RF413', DETAIL = p_generation || '/' || p_moment;
END $$;
