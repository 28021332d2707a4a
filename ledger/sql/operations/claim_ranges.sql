-- Says where a claim looks, and how many runs it takes there at most. A range is a part of one of
-- two indexes, in one kind:
--   run_claimable  runs that wait since they were submitted, from (priority, run) on, below a
--                  priority; `due` is null
--   run_returning  runs that were put off or given back, of one priority, that have come due from
--                  (`due`, run) on; what sleeps on is never walked
-- A low-water mark cuts a kind into more ranges, so that none walks the dead entries before the
-- mark. Where there is more than one range, the oldest p_limit runs are looked up without a lock,
-- and the quota of each range is how many of them lie in it: a claim locks no run that it will not
-- take. `counted` is the sum of the quotas; of a single range, whose runs are not looked up, it is
-- the most that the claim may take.
-- Internal to ledger.claim, whose settings hold here. Locks: none.
CREATE OR REPLACE FUNCTION ledger.claim_ranges(
  p_project text, p_kinds text[], p_returning boolean, p_limit int, p_moment timestamptz,
  p_limited text[], p_rooms int[],
  p_mark_kinds text[], p_mark_priorities int[], p_mark_runs uuid[], p_mark_dues timestamptz[],
  OUT kinds text[], OUT priorities int[], OUT belows int[], OUT runs uuid[],
  OUT dues timestamptz[], OUT quotas int[], OUT counted int
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  beginning constant uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
  counted := p_limit;
  IF cardinality(p_kinds) = 1 AND NOT p_returning AND cardinality(p_limited) = 0
    AND (cardinality(p_mark_kinds) = 0 OR cardinality(p_mark_kinds) = 1
      AND p_mark_kinds[1] = p_kinds[1] AND p_mark_priorities[1] = 0 AND p_mark_runs[1] IS NOT NULL)
  THEN -- the common case, without a query
    kinds := p_kinds;
    priorities := '{0}';
    belows := '{2147483647}';
    runs := ARRAY[coalesce(p_mark_runs[1], beginning)];
    dues := '{NULL}';
    quotas := ARRAY[p_limit];
    RETURN;
  END IF;

  WITH RECURSIVE kind AS MATERIALIZED (
    SELECT named.kind, p_rooms[array_position(p_limited, named.kind)] AS room
    FROM unnest(p_kinds) AS named (kind)
  ), start AS ( -- of each index the beginning, and the marks
    SELECT kind.kind, kind.room, 0 AS priority,
      beginning AS run, first.due
    FROM kind CROSS JOIN (VALUES (NULL), ('-infinity'::timestamptz)) AS first (due)
    UNION ALL
    SELECT kind.kind, kind.room, mark.priority, mark.run, mark.due
    FROM unnest(p_mark_kinds, p_mark_priorities, p_mark_runs, p_mark_dues)
      AS mark (kind, priority, run, due)
    JOIN kind ON kind.kind = mark.kind
    WHERE num_nonnulls(mark.run, mark.due) = 1
  ), part AS MATERIALIZED ( -- from each start to the next
    SELECT part.* FROM (
      SELECT start.*, lead(start.priority, 1, 2147483647) OVER (PARTITION BY start.kind,
        start.due IS NULL ORDER BY start.priority, start.due, start.run) AS below
      FROM start
    ) AS part
    WHERE part.priority < part.below
  ), level AS ( -- the priorities with runs that were put off or given back: one probe for each
    SELECT part.kind, part.room, part.below, found.priority,
      CASE WHEN found.priority = part.priority THEN part.due ELSE '-infinity' END AS due
    FROM part
    CROSS JOIN LATERAL (
      SELECT run.priority FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.kind = part.kind
        AND run.available_at > run.created_at
        AND (run.priority, run.available_at) >= (part.priority, part.due)
        AND run.priority < part.below
      ORDER BY run.priority, run.available_at LIMIT 1
    ) AS found
    WHERE part.due IS NOT NULL AND p_returning
    UNION ALL
    SELECT level.kind, level.room, level.below, next.priority, '-infinity'
    FROM level
    CROSS JOIN LATERAL (
      SELECT run.priority FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.kind = level.kind
        AND run.available_at > run.created_at
        AND run.priority > level.priority AND run.priority < level.below
      ORDER BY run.priority, run.available_at LIMIT 1
    ) AS next
  ), range AS (
    SELECT part.kind, part.room, part.priority, part.below, part.run, part.due
    FROM part WHERE part.due IS NULL
    UNION ALL
    SELECT level.kind, level.room, level.priority, level.priority + 1,
      beginning, level.due
    FROM level
  )
  SELECT array_agg(range.kind), array_agg(range.priority), array_agg(range.below),
    array_agg(range.run), array_agg(range.due), array_agg(least(range.room, p_limit))
  INTO kinds, priorities, belows, runs, dues, quotas
  FROM range;
  IF kinds IS NULL THEN
    counted := 0;
  END IF;

  IF cardinality(kinds) > 1 THEN
    WITH candidate AS MATERIALIZED (
      SELECT range.place, range.kind, run.priority, run.run_id
      FROM unnest(kinds, priorities, belows, runs, dues, quotas) WITH ORDINALITY
        AS range (kind, priority, below, run, due, quota, place)
      CROSS JOIN LATERAL ledger.claimable(p_project, range.kind, range.priority, range.below,
        range.run, range.due, p_moment, range.quota) AS run
    ), allowed AS ( -- a limited kind may have more than one range
      SELECT candidate.place, candidate.priority, candidate.run_id
      FROM candidate WHERE candidate.kind <> ALL (p_limited)
      UNION ALL
      SELECT ranked.place, ranked.priority, ranked.run_id FROM (
        SELECT candidate.*, row_number() OVER (PARTITION BY candidate.kind
          ORDER BY candidate.priority, candidate.run_id) AS rank
        FROM candidate WHERE candidate.kind = ANY (p_limited)
      ) AS ranked
      WHERE ranked.rank <= p_rooms[array_position(p_limited, ranked.kind)]
    ), taken AS (
      SELECT oldest.place, count(*)::int AS quota FROM (
        SELECT allowed.place FROM allowed ORDER BY allowed.priority, allowed.run_id LIMIT p_limit
      ) AS oldest
      GROUP BY oldest.place
    )
    SELECT array_agg(coalesce(taken.quota, 0) ORDER BY range.place), coalesce(sum(taken.quota), 0)
    INTO quotas, counted
    FROM unnest(kinds) WITH ORDINALITY AS range (kind, place)
    LEFT JOIN taken ON range.place = taken.place;
  END IF;
END $$;
