-- Computes the marks from which claims will search for waiting runs: in each priority the first run
-- that waits at or after the old mark, or an earlier one of p_late, which lists runs that open
-- transactions brought after the old mark was set. A mark is never later than p_run, or p_due for
-- runs that were put off or given back: what is newer may not be committed yet.
--
-- The ranges between the marks must cover the whole kind. So priority 0 always has a mark, and so
-- has each priority with a waiting run or in p_moving, which includes those of p_late. A priority
-- of p_moving without an old mark is searched from its beginning, because runs may wait there that
-- no search has met. Internal to ledger.move_low_water. Locks: none.
CREATE OR REPLACE FUNCTION ledger.next_claim_marks(
  p_old ledger.low_water, p_moving int[], p_late uuid[], p_run uuid, p_due timestamptz,
  OUT priorities int[], OUT runs uuid[], OUT back_priorities int[], OUT dues timestamptz[]
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  beginning CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
  most_places CONSTANT int := 64;
BEGIN
  WITH start AS (
    SELECT place.priority, max(place.run::text)::uuid AS run
    FROM (
      SELECT * FROM unnest(p_old.priorities, p_old.runs)
      UNION ALL SELECT 0, beginning
      UNION ALL SELECT unnest(p_moving), beginning
    ) AS place (priority, run)
    GROUP BY place.priority
  ), part AS (
    SELECT start.*, lead(start.priority, 1, 2147483647) OVER (ORDER BY start.priority) AS below
    FROM start
  ), first AS MATERIALIZED (
    SELECT part.priority, run.priority AS of_priority, run.run_id FROM part
    LEFT JOIN LATERAL (
      SELECT run.priority, run.run_id FROM ledger.run_state AS run
      WHERE run.project_id = p_old.project_id AND run.kind = p_old.kind
        AND run.available_at <= run.created_at
        AND (run.priority, run.run_id) >= (part.priority, part.run) AND run.priority < part.below
      ORDER BY run.priority, run.run_id LIMIT 1
    ) AS run ON true
  )
  SELECT array_agg(mark.priority ORDER BY mark.priority),
    array_agg(mark.run ORDER BY mark.priority)
  INTO priorities, runs
  FROM (
    SELECT place.priority, least(min(place.run::text)::uuid, p_run) AS run
    FROM (
      SELECT first.priority, p_run FROM first
      UNION ALL SELECT first.of_priority, first.run_id FROM first
      UNION ALL
      SELECT run.priority, run.run_id FROM unnest(p_late) AS brought (run_id)
      CROSS JOIN LATERAL (
        SELECT run.* FROM ledger.run_state AS run
        WHERE run.project_id = p_old.project_id AND run.run_id = brought.run_id OFFSET 0
      ) AS run
      WHERE run.kind = p_old.kind AND run.available_at <= run.created_at
    ) AS place (priority, run)
    WHERE place.priority IS NOT NULL
    GROUP BY place.priority ORDER BY place.priority LIMIT most_places
  ) AS mark;

  WITH start AS (
    SELECT place.priority, max(place.due) AS due
    FROM (
      SELECT * FROM unnest(p_old.back_priorities, p_old.dues)
      UNION ALL SELECT 0, '-infinity'
      UNION ALL SELECT unnest(p_moving), '-infinity'
    ) AS place (priority, due)
    GROUP BY place.priority
  ), part AS (
    SELECT start.*, lead(start.priority, 1, 2147483647) OVER (ORDER BY start.priority) AS below
    FROM start
  ), first AS MATERIALIZED (
    SELECT part.priority, run.priority AS of_priority, run.due FROM part
    LEFT JOIN LATERAL (
      SELECT run.priority, run.available_at AS due FROM ledger.run_state AS run
      WHERE run.project_id = p_old.project_id AND run.kind = p_old.kind
        AND run.available_at > run.created_at
        AND (run.priority, run.available_at) >= (part.priority, part.due)
        AND run.priority < part.below
      ORDER BY run.priority, run.available_at LIMIT 1
    ) AS run ON true
  )
  SELECT array_agg(mark.priority ORDER BY mark.priority),
    array_agg(mark.due ORDER BY mark.priority)
  INTO back_priorities, dues
  FROM (
    SELECT place.priority, least(min(place.due), p_due) AS due
    FROM (
      SELECT first.priority, p_due FROM first
      UNION ALL SELECT first.of_priority, first.due FROM first
      UNION ALL
      SELECT run.priority, run.available_at FROM unnest(p_late) AS brought (run_id)
      CROSS JOIN LATERAL (
        SELECT run.* FROM ledger.run_state AS run
        WHERE run.project_id = p_old.project_id AND run.run_id = brought.run_id OFFSET 0
      ) AS run
      WHERE run.kind = p_old.kind AND run.available_at > run.created_at
    ) AS place (priority, due)
    WHERE place.priority IS NOT NULL
    GROUP BY place.priority ORDER BY place.priority LIMIT most_places
  ) AS mark;
END $$;
