-- Begins a new generation of the feed, after the events were restored or replicated into another
-- cluster: from here on transaction ids are this cluster's. Readers first finish the old
-- generation, by the checkpoints they were restored with. Returns the generation. The sequence
-- of positions is set to the last position, that of the newest time to the newest event's, and
-- those of identity columns to their last numbers: logical replication brings rows and leaves
-- sequences. Locks: `event` against writers, and so waits for those at work; no event of the old
-- generation is in progress afterwards.
CREATE OR REPLACE FUNCTION ledger.feed_rebase() RETURNS int
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  this ledger.feed_generation;
  high bigint;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the feed cannot be rebased on a standby' USING ERRCODE = 'RF411';
  END IF;
  DELETE FROM ledger.low_water; -- of another cluster; before the lock, as a sweep has it
  LOCK TABLE ledger.event IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO this FROM ledger.feed_generation AS known
  WHERE known.end_position IS NULL FOR UPDATE;
  SELECT greatest(CASE WHEN sequence.is_called THEN sequence.last_value ELSE 0 END,
    (SELECT max(event.position) FROM ledger.event AS event),
    (SELECT max(archived.last_position) FROM ledger.archive AS archived)) INTO high
  FROM ledger.event_position AS sequence;
  IF high > 0 THEN
    PERFORM setval('ledger.event_position', high);
  END IF;
  PERFORM setval('ledger.rebuild_rebuild_id_seq', last.number)
  FROM (SELECT max(entry.rebuild_id) AS number FROM ledger.rebuild AS entry) AS last,
    ledger.rebuild_rebuild_id_seq AS sequence WHERE last.number >= sequence.last_value;
  PERFORM setval('ledger.newest_time', last.newest)
  FROM (SELECT (extract(epoch FROM max(event.recorded_at)) * 1000000)::bigint AS newest
    FROM ledger.event AS event) AS last,
    ledger.newest_time AS sequence WHERE last.newest > sequence.last_value;
  UPDATE ledger.feed_generation AS known SET end_position = high
  WHERE known.generation = this.generation;
  -- Cut at this transaction, which is in the write-ahead log when it has committed: no id up to
  -- it comes back after a crash.
  INSERT INTO ledger.feed_generation (generation, start, system_identifier)
  SELECT this.generation + 1,
    ledger.feed_cut(pg_current_snapshot(), pg_current_xact_id())::text || '@' || high,
    cluster.system_identifier
  FROM pg_control_system() AS cluster;
  RETURN this.generation + 1;
END $$;
