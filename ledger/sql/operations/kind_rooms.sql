-- Returns what a claim may take of each kind:
--   kinds           the kinds to search; paused and full ones are left out
--   has_returning   whether any of them has runs that were put off or given back; true at once with
--                   p_returning
--   limited, rooms  each limited kind, and how many more of its runs may be held
--   busy            the limited kinds in which another claim is counting; they are left out as well
--   places          how many low-water marks the kinds have
-- Internal to ledger.claim, whose settings hold here. Locks: of each limited kind its first event,
-- a row that nothing else locks, SKIP LOCKED, until the claim has committed, so that the next claim
-- counts what this one took. The row of kind_state is not locked: a claim that is left open would
-- keep anybody from pausing the kind.
CREATE OR REPLACE FUNCTION ledger.kind_rooms(p_project text, p_kinds text[], p_returning boolean,
  p_moment timestamptz,
  OUT kinds text[], OUT has_returning boolean, OUT limited text[], OUT rooms int[], OUT busy text[],
  OUT places int)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  restricted text[]; -- the paused and the limited kinds
  due timestamptz;
  in_doubt boolean;
  is_marked boolean;
  is_locked boolean;
  kind_now text;
  room int;
BEGIN
  limited := '{}';
  rooms := '{}';
  busy := '{}';
  IF p_kinds IS NULL THEN
    SELECT array_agg(DISTINCT known.kind) INTO kinds
    FROM ledger.kind AS known WHERE known.project_id = p_project;
  ELSIF cardinality(p_kinds) > 1 THEN
    SELECT array_agg(DISTINCT asked.kind) INTO kinds FROM unnest(p_kinds) AS asked (kind);
  ELSE
    kinds := p_kinds;
  END IF;
  -- A kind with marks of several priorities may have runs that came back; claim_ranges finds out.
  IF cardinality(kinds) = 1 THEN -- the common case, in a third of the time
    kind_now := kinds[1]; -- a subscript in each query would cost a microsecond
    SELECT cardinality(mark.priorities), cardinality(mark.back_priorities) > 1, mark.dues[1],
      mark.open <> '{}' OR mark.seen_at > p_moment
    INTO places, has_returning, due, in_doubt
    FROM ledger.newest_mark(p_project, kind_now) AS mark;
    due := coalesce(due, '-infinity');
    SELECT p_returning OR coalesce(has_returning, false) OR EXISTS (
        SELECT FROM ledger.run_state AS run
        WHERE run.project_id = p_project AND run.kind = kind_now
          AND run.available_at > run.created_at
          AND (run.priority, run.available_at) >= (0, due)
        ORDER BY run.priority, run.available_at LIMIT 1
      ), (
        SELECT ARRAY[state.kind] FROM ledger.kind_state AS state
        WHERE state.project_id = p_project AND state.kind = kind_now
          AND (state.paused OR state.max_running IS NOT NULL)
      )
    INTO has_returning, restricted;
  ELSE
    SELECT p_returning OR coalesce(bool_or(cardinality(mark.back_priorities) > 1 OR EXISTS (
        SELECT FROM ledger.run_state AS run
        WHERE run.project_id = p_project AND run.kind = named.kind
          AND run.available_at > run.created_at
          AND (run.priority, run.available_at) >= (0, coalesce(mark.dues[1], '-infinity'))
        ORDER BY run.priority, run.available_at LIMIT 1
      )), false), (
        SELECT array_agg(state.kind ORDER BY state.kind) FROM ledger.kind_state AS state
        WHERE state.project_id = p_project AND state.kind = ANY (kinds)
          AND (state.paused OR state.max_running IS NOT NULL)
      ), sum(cardinality(mark.priorities)), bool_or(mark.open <> '{}' OR mark.seen_at > p_moment)
    INTO has_returning, restricted, places, in_doubt
    FROM unnest(kinds) AS named (kind)
    LEFT JOIN LATERAL ledger.newest_mark(p_project, named.kind) AS mark ON true;
  END IF;
  IF in_doubt AND EXISTS (SELECT FROM unnest(kinds) AS named (kind)
    WHERE NOT ledger.marks_hold(p_project, named.kind)) THEN
    PERFORM ledger.move_low_water(p_project, kinds, '1 day');
    has_returning := true;
    places := 0;
  END IF;
  IF restricted IS NULL THEN
    RETURN;
  END IF;

  PERFORM ledger.move_low_water(p_project, restricted, '1 second');
  FOREACH kind_now IN ARRAY restricted LOOP
    IF EXISTS (SELECT FROM ledger.kind_state AS setting
      WHERE setting.project_id = p_project AND setting.kind = kind_now AND setting.paused) THEN
      kinds := array_remove(kinds, kind_now);
      CONTINUE;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'a limited kind is claimed only in a read committed transaction: '
        'an older snapshot would miscount'
        USING ERRCODE = '25001';
    END IF;
    PERFORM FROM ledger.kind_event AS turn
    WHERE turn.project_id = p_project AND turn.kind = kind_now AND turn.number = 1
    FOR UPDATE SKIP LOCKED;
    is_locked := FOUND;
    -- After the lock: this look, and the count after it, have snapshots of their own.
    SELECT setting.max_running INTO room FROM ledger.kind_state AS setting
    WHERE setting.project_id = p_project AND setting.kind = kind_now AND NOT setting.paused;
    IF NOT is_locked OR NOT FOUND THEN -- another claim's turn, or paused by now
      busy := busy || kind_now;
      kinds := array_remove(kinds, kind_now);
      CONTINUE;
    END IF;
    CONTINUE WHEN room IS NULL;
    is_marked := ledger.marks_hold(p_project, kind_now);
    SELECT room - count(*) INTO room FROM (
      SELECT FROM ledger.leases(p_project, kind_now, is_marked) LIMIT room
    ) AS held;
    IF room > 0 THEN
      limited := limited || kind_now;
      rooms := rooms || room;
    ELSE
      kinds := array_remove(kinds, kind_now);
    END IF;
  END LOOP;
END $$;
