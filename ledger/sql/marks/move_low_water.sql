-- Moves the low-water marks of kinds: the places in the indexes at which claims and reapers start
-- to search. The entries before a mark are dead: runs that were taken, leases that have ended.
-- While somebody holds an old snapshot, vacuum cannot remove them, and a search from the beginning
-- would read ever more of them. A mark promises:
--   leases_after, older_leases  no lease acquired at or before this position is held, except those
--                               listed
--   priorities, runs            no run of the priority before this id waits since its submission
--   back_priorities, dues       no run of the priority that came due before this waits again
--   ends_from                   no deadline or wait of an open run ends before this
--   cancels_after               no run moved at or before this position, and held by none, waits to
--                               be cancelled
--   parked_after, older_parked  no run parked at or before this position still waits for its tool,
--                               except those listed
--   open                        transactions that may still commit something before the mark
--   seen_...                    what the move saw, which is as far as the next move may go
--
-- A transaction that commits late may bring an entry that lies before a mark, so a mark moves only
-- as far as the last move saw. Whoever had chosen a position or a run's id by then had a
-- transaction id below seen_txid. (The clock may be set back a little unnoticed, so ids get an
-- allowance of p_lag, and instants ten times that.) By the next move most of those transactions
-- have ended, and what they brought is visible; the others are kept in `open`. When one of these
-- has ended, marks_hold refuses the marks, and the next move looks up what it brought by its
-- transaction id and moves the marks back. After a clock or a sequence was set back the marks start
-- again at the beginning. What has no mark is searched from the beginning.
--
-- Marks that hold are left alone for p_every, and longer where many old leases or parked runs are
-- listed. A transaction that has written something moves none. Internal to the operations, whose
-- settings hold here. Locks: a row of `kind`, SKIP LOCKED; no other operation locks it.
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
  moving int[]; -- the priorities of held runs, and of those that were committed late
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
    CONTINUE WHEN NOT FOUND; -- another call moves them now

    SELECT mark.* INTO old FROM ledger.newest_mark(p_project, kind_now) AS mark;
    is_set_back := old.seen_at > ledger.now() OR old.seen_clock > clock_timestamp()
      OR old.seen_position > (SELECT last_value FROM ledger.event_position);
    CONTINUE WHEN NOT is_set_back AND (old.seen_position > position_now OR old.seen_at > moment
      OR old.seen_clock > clock_now); -- another call, which began later, has moved them
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
      FROM ledger.next_claim_marks(old, moving, late,
        ledger.uuid7_floor((old.seen_clock - p_lag) AT TIME ZONE 'UTC'), old.seen_at - 10 * p_lag)
        AS place;
      new.parked_after := old.seen_position;
      SELECT ends.* INTO new.ends_from, new.cancels_after, new.older_parked
      FROM ledger.next_sweep_marks(old, late, old.seen_at - 10 * p_lag) AS ends;
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
