-- Says of which kinds a claim may take runs, whether any of them has runs that were put off or
-- given back (unless that is known: p_returning), and of each limited kind how many runs there is
-- room for: a place in `limited` and `rooms`. Paused and full kinds are passed over; so is a
-- limited kind that another claim or a change of it has locked, which is named in `busy`.
-- Internal to ledger.claim, whose settings hold here. Locks: the rows of limited kinds in
-- kind_state, SKIP LOCKED, until the claim has committed, so that the next claim counts what this
-- one took.
CREATE OR REPLACE FUNCTION ledger.kind_rooms(p_project text, p_kinds text[], p_returning boolean,
  OUT kinds text[], OUT has_returning boolean, OUT limited text[], OUT rooms int[], OUT busy text[])
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  bound text[];
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
  -- Two questions in one statement: each statement costs as much as an event's fold.
  SELECT p_returning OR EXISTS (
      SELECT FROM unnest(kinds) AS named (kind)
      CROSS JOIN LATERAL (
        SELECT run.priority FROM ledger.run_state AS run
        WHERE run.project_id = p_project AND run.kind = named.kind
          AND run.available_at > run.created_at
        ORDER BY run.priority, run.available_at LIMIT 1
      ) AS found
    ), (
      SELECT array_agg(state.kind ORDER BY state.kind) FROM ledger.kind_state AS state
      WHERE state.project_id = p_project AND state.kind = ANY (kinds)
        AND (state.paused OR state.max_running IS NOT NULL)
    )
  INTO has_returning, bound;
  IF bound IS NULL THEN
    RETURN;
  END IF;

  FOREACH kind_now IN ARRAY bound LOOP
    IF EXISTS (SELECT FROM ledger.kind_state AS d
      WHERE d.project_id = p_project AND d.kind = kind_now AND d.paused) THEN
      kinds := array_remove(kinds, kind_now);
      CONTINUE;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'a limited kind is claimed in a read committed transaction only: '
        'another snapshot miscounts'
        USING ERRCODE = '25001';
    END IF;
    -- The row as it is once it is locked; the count after it has a snapshot of its own.
    SELECT d.max_running INTO room FROM ledger.kind_state AS d
    WHERE d.project_id = p_project AND d.kind = kind_now AND NOT d.paused FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN -- locked by another, or paused by now
      busy := busy || kind_now;
      kinds := array_remove(kinds, kind_now);
      CONTINUE;
    END IF;
    CONTINUE WHEN room IS NULL;
    SELECT room - count(*) INTO room FROM (
      SELECT FROM ledger.run_state AS s
      WHERE s.project_id = p_project AND s.kind = kind_now AND s.token IS NOT NULL LIMIT room
    ) AS held;
    IF room > 0 THEN
      limited := limited || kind_now;
      rooms := rooms || room;
    ELSE
      kinds := array_remove(kinds, kind_now);
    END IF;
  END LOOP;
END $$;
