-- Moves the low-water marks of kinds: where claims and reapers begin to walk their indexes. Before
-- the marks lie the entries of runs that were taken and leases that have ended; behind an old
-- snapshot vacuum cannot remove them, and a walk from the beginning would read ever more of them.
--   leases_after, older_leases  no lease with a position up to the first is held, but for those of
--                               the second
--   priorities, runs            no run before these waits since it was submitted
--   back_priorities, dues       no run of the priority that came due before this waits again
--   ends_from                   the clock ends no run before this
--   cancels_after               no run that was let go up to this position waits for its cancel
--   parked_after, older_parked  no run that was parked for a tool up to the first still is, but for
--                               those of the second
--   open                        transactions that may still bring an older one
--   seen_...                    how far the next move may go: each writer that chose a position or
--                               a run's id before had a transaction id already, and a smaller one
--                               than seen_txid; an instant may be chosen a while before, ten times
--                               p_lag, which is what a clock may be set back unnoticed
-- When the next move comes, most of those transactions have ended, and what they brought is seen;
-- the others go to `open`. When one of these has ended, what it brought is looked up by its id, and
-- the marks go back (ledger/sql/operations/marks_hold.sql). A clock or a sequence that was set back
-- begins anew. What has no mark is walked from the beginning.
--
-- Does nothing to marks that hold and were moved less than p_every ago, or a multiple where many
-- leases or parked runs are old, and nothing at all in a transaction that has an id. Internal to
-- the operations, whose settings hold here. Locks: a row of `kind`, SKIP LOCKED; no other operation
-- locks it.
CREATE OR REPLACE FUNCTION ledger.move_low_water(
  p_project text, p_kinds text[], p_every interval, p_lag interval DEFAULT '1 second'
) RETURNS void
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  position_now CONSTANT bigint := (SELECT last_value FROM ledger.event_position);
  moment CONSTANT timestamptz := ledger.now();
  clock_now CONSTANT timestamptz := clock_timestamp();
  seen pg_snapshot;
  kind_now text;
  old ledger.low_water;
  new ledger.low_water;
  ended xid8[];
  late uuid[];
  moving int[]; -- the priorities of what is held, or came late
  is_set_back boolean;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed'
    OR pg_current_xact_id_if_assigned() IS NOT NULL THEN
    RETURN;
  END IF;
  FOR kind_now IN
    SELECT named.kind FROM unnest(p_kinds) AS named (kind)
    LEFT JOIN LATERAL ledger.newest_mark(p_project, named.kind) AS mark ON true
    WHERE mark.seen_at IS NULL
      OR mark.seen_at <= moment - p_every * (1 + (
        cardinality(mark.older_leases) + cardinality(mark.older_parked)) / 200)
      OR NOT ledger.marks_hold(p_project, named.kind)
  LOOP
    PERFORM FROM ledger.kind AS known
    WHERE known.project_id = p_project AND known.kind = kind_now AND known.run_id = (
      SELECT first.run_id FROM ledger.kind AS first
      WHERE first.project_id = p_project AND first.kind = kind_now ORDER BY first.run_id LIMIT 1)
    FOR NO KEY UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND; -- another moves them

    SELECT mark.* INTO old FROM ledger.newest_mark(p_project, kind_now) AS mark;
    is_set_back := old.seen_at > ledger.now() OR old.seen_clock > clock_timestamp()
      OR old.seen_position > (SELECT last_value FROM ledger.event_position);
    CONTINUE WHEN NOT is_set_back AND (old.seen_position > position_now OR old.seen_at > moment
      OR old.seen_clock > clock_now); -- another has moved them, who began later
    IF old.number IS NULL OR is_set_back THEN
      new := (p_project, kind_now, 0, 0, '{}', '{0}', '{00000000-0000-0000-0000-000000000000}',
        '{0}', '{-infinity}', '-infinity', 0, 0, '{}', '{}', 0, now(), now(), '0');
    ELSE
      new := old;
      seen := pg_current_snapshot();
      new.open := ARRAY(SELECT txid.id FROM pg_snapshot_xip(seen) AS txid (id)
        WHERE txid.id < old.seen_txid OR txid.id = ANY (old.open));
      ended := ARRAY(SELECT txid.id FROM unnest(old.open) AS txid (id)
        WHERE txid.id <> ALL (new.open));
      late := CASE WHEN ended = '{}' THEN '{}' ELSE ARRAY(
        SELECT DISTINCT brought.run_id FROM unnest(ended) AS txid (id)
        CROSS JOIN LATERAL (
          SELECT event.project_id, event.run_id FROM ledger.event AS event
          WHERE event.txid = txid.id OFFSET 0 -- so that no plan walks the project's events
        ) AS brought
        WHERE brought.project_id = p_project) END;
      SELECT coalesce(array_agg(DISTINCT run.run_id)
          FILTER (WHERE run.token IS NOT NULL AND run.moved_position <= old.seen_position), '{}'),
        coalesce(array_agg(DISTINCT run.priority), '{}')
      INTO new.older_leases, moving
      FROM (
        SELECT held.run_id, held.priority, held.token, held.moved_position
        FROM ledger.leases(p_project, kind_now, true) AS held
        UNION ALL
        SELECT run.run_id, run.priority, run.token, run.moved_position
        FROM unnest(late) AS brought (run_id)
        CROSS JOIN LATERAL (
          SELECT run.* FROM ledger.run_state AS run
          WHERE run.project_id = p_project AND run.run_id = brought.run_id OFFSET 0
        ) AS run
        WHERE run.kind = kind_now
      ) AS run;
      new.leases_after := old.seen_position;
      SELECT place.* INTO new.priorities, new.runs, new.back_priorities, new.dues
      FROM ledger.low_water_places(old, moving, late,
        ledger.uuid7_floor((old.seen_clock - p_lag) AT TIME ZONE 'UTC'), old.seen_at - 10 * p_lag)
        AS place;
      new.parked_after := old.seen_position;
      SELECT ends.* INTO new.ends_from, new.cancels_after, new.older_parked
      FROM ledger.low_water_ends(old, late, old.seen_at - 10 * p_lag) AS ends;
    END IF;
    new.number := coalesce(old.number, 0) + 1;
    new.seen_position := position_now;
    new.seen_at := moment;
    new.seen_clock := clock_now;
    new.seen_txid := pg_current_xact_id();
    INSERT INTO ledger.low_water SELECT new.*;
    DELETE FROM ledger.low_water AS mark WHERE mark.project_id = p_project AND mark.kind = kind_now
      AND mark.number = old.number;
  END LOOP;
END $$;
