-- Whether searches may start at the low-water marks of a kind. They may not when a transaction of
-- `open` has ended, because it may have committed something that lies before the marks, nor after
-- the clock or a sequence was set back (ledger/sql/marks/move_low_water.sql). Internal to the
-- operations, whose settings hold here. Locks: none.
CREATE OR REPLACE FUNCTION ledger.marks_hold(p_project text, p_kind text) RETURNS boolean
LANGUAGE plpgsql
AS $$
DECLARE
  seen pg_snapshot;
BEGIN
  seen := pg_current_snapshot();
  RETURN NOT EXISTS (
    SELECT FROM ledger.newest_mark(p_project, p_kind) AS mark
    WHERE mark.seen_at > ledger.now() OR mark.seen_clock > clock_timestamp()
      OR mark.seen_position > (SELECT last_value FROM ledger.event_position)
      OR mark.open <> '{}' AND EXISTS (
        SELECT FROM unnest(mark.open) AS txid (id) WHERE pg_visible_in_snapshot(txid.id, seen))
  );
END $$;
