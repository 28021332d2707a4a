-- Finds what a reader of the feed that has seen everything up to a moment reads next: all that
-- is visible at `target` and was not at `moment` (see ledger.feed_moment). No row: nothing is
-- new. When a transaction that was open at the moment has ended without events, the target has none
-- either: it is returned because only a checkpoint without open transactions can be compared with
-- an archive.
--
-- Locks: `event` in ACCESS SHARE first, so that a month that is being detached is either still
-- there for the statements below or in ledger.archive for ledger.check_months_read. Therefore
-- VOLATILE and READ COMMITTED: each statement has a snapshot of its own.
--
-- Under a backlog the target is cut, so that there are about p_limit events up to it: it leaves
-- out the transactions from some id on. A cut must not part a run's event from the one before
-- it: ids do not tell the order of commits, and a transaction that appends to many runs may have
-- got its id early. Such a cut is moved on until it holds. Only for a transaction that is itself
-- larger, or was open for long, are there more events up to the target, and ledger.feed_page
-- gives them in pages.
--
-- In a generation that has ended (see ledger.feed_rebase) everything is committed: the target is
-- its end, which shows every id.
CREATE OR REPLACE FUNCTION ledger.feed_next(p_generation int, p_moment text, p_limit int)
RETURNS TABLE (generation int, moment text, target text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  this ledger.feed_generation;
  seen pg_snapshot := split_part(p_moment, '@', 1);
  visible pg_snapshot;
  candidate pg_snapshot;
  target text;
  high bigint;
  base bigint;
  cut xid8;
  size bigint := p_limit;
BEGIN
  PERFORM ledger.credential(); -- else a reader that waits would not learn that its token ended
  LOCK TABLE ledger.event IN ACCESS SHARE MODE;
  PERFORM ledger.check_moment(p_generation, p_moment);
  PERFORM ledger.check_months_read(p_generation, p_moment);
  SELECT * INTO this FROM ledger.feed_generation AS known WHERE known.generation = p_generation;
  WHILE this.end_position IS NOT NULL LOOP
    IF p_moment NOT LIKE '9223372036854775807:%' THEN
      RETURN QUERY SELECT this.generation, p_moment,
        '9223372036854775807:9223372036854775807:@' || this.end_position;
      RETURN;
    END IF;
    SELECT * INTO this FROM ledger.feed_generation AS known
    WHERE known.generation = this.generation + 1;
    p_moment := this.start;
    seen := split_part(p_moment, '@', 1);
  END LOOP;
  PERFORM ledger.check_cluster();
  visible := pg_current_snapshot();
  candidate := visible;
  -- After the snapshot was taken.
  SELECT sequence.last_value INTO high FROM ledger.event_position AS sequence;
  base := split_part(this.start, '@', 2);
  LOOP
    SELECT event.txid INTO cut FROM ledger.event AS event
    WHERE event.txid >= pg_snapshot_xmax(seen) AND event.txid < pg_snapshot_xmax(visible)
      AND event.position > base
    ORDER BY event.txid OFFSET size LIMIT 1;
    EXIT WHEN cut IS NULL;
    IF NOT EXISTS (SELECT FROM ledger.event AS event WHERE event.txid >= pg_snapshot_xmax(seen)
      AND event.txid < cut AND event.position > base) THEN
      cut := (cut::text::bigint + 1)::text; -- a single transaction has more than p_limit
    END IF;
    candidate := ledger.feed_cut(visible, cut);
    EXIT WHEN NOT EXISTS (
      SELECT FROM (
        SELECT delivered.project_id, delivered.run_id, delivered.version,
          lag(delivered.version) OVER (
            PARTITION BY delivered.project_id, delivered.run_id ORDER BY delivered.version
          ) AS before
        FROM (
          SELECT event.project_id, event.run_id, event.version FROM ledger.event AS event
          WHERE event.txid >= pg_snapshot_xmax(seen) AND event.txid < cut AND event.position > base
            AND pg_visible_in_snapshot(event.txid, candidate)
          UNION ALL
          SELECT event.project_id, event.run_id, event.version FROM ledger.event AS event
          WHERE event.txid = ANY (ARRAY(SELECT pg_snapshot_xip(seen))) AND event.position > base
            AND pg_visible_in_snapshot(event.txid, candidate)
        ) AS delivered
      ) AS step
      CROSS JOIN LATERAL (
        SELECT FROM ledger.event AS previous
        WHERE previous.project_id = step.project_id AND previous.run_id = step.run_id
          AND previous.version = step.version - 1 AND previous.position > base
          AND NOT pg_visible_in_snapshot(previous.txid, seen) OFFSET 0
      ) AS unseen
      WHERE step.version > 1 AND step.before IS DISTINCT FROM step.version - 1);
    size := size * 2 + 1;
    candidate := visible;
  END LOOP;
  target := ledger.feed_moment(this.start, candidate, high);
  IF (split_part(target, '@', 1), split_part(target, '@', 3)) IS DISTINCT
    FROM (split_part(p_moment, '@', 1), split_part(p_moment, '@', 3)) THEN
    RETURN QUERY SELECT this.generation, p_moment, target;
  END IF;
END $$;
