-- Reads events of the feed: of those that are visible at `target` and were not at `moment` (see
-- ledger.feed_next) the next p_limit after a position, in the order of positions, which is the
-- order of versions within a run. Fewer than p_limit: that was the last page. VOLATILE and the
-- lock: see ledger.feed_next. The filters are bounds of their own: project, event types, the
-- kind of the run, and the state an event leads to; and the projects that the credential may read.
-- One that is named must be among them: whoever lost the right would go on past what it cannot see.
CREATE OR REPLACE FUNCTION ledger.feed_page(
  p_generation int, p_moment text, p_target text, p_position bigint, p_limit int,
  p_project text DEFAULT NULL, p_types text[] DEFAULT NULL, p_without text[] DEFAULT NULL,
  p_kinds text[] DEFAULT NULL, p_states text[] DEFAULT NULL
) RETURNS SETOF ledger.event
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
  target pg_snapshot := split_part(p_target, '@', 1);
  after bigint;
  seen_up_to bigint := split_part(p_moment, '@', 2);
  up_to bigint := split_part(p_target, '@', 2);
  allowed CONSTANT text[] := ledger.projects_with('read', 'audit');
BEGIN
  IF p_project <> ALL (allowed) THEN
    PERFORM ledger.check_access(coalesce(p_project, '*'), '{read,audit}');
  END IF;
  LOCK TABLE ledger.event IN ACCESS SHARE MODE;
  PERFORM ledger.check_moment(p_generation, p_moment), ledger.check_moment(p_generation, p_target);
  PERFORM ledger.check_months_read(p_generation, p_moment);
  SELECT * INTO this FROM ledger.feed_generation AS known WHERE known.generation = p_generation;
  after := greatest(p_position, split_part(this.start, '@', 2)::bigint);
  IF p_target LIKE '9223372036854775807:%' THEN
    -- The generation has ended. Ids at later positions than the moment's may be another
    -- cluster's, and say nothing of the moment.
    RETURN QUERY SELECT event.* FROM ledger.event AS event
    WHERE event.position > after AND event.position <= up_to
      AND (event.position > seen_up_to OR NOT pg_visible_in_snapshot(event.txid, seen))
      AND (p_project IS NULL OR event.project_id = p_project)
      AND (allowed IS NULL OR event.project_id = ANY (allowed))
      AND (p_types IS NULL OR event.type = ANY (p_types))
      AND (p_without IS NULL OR event.type <> ALL (p_without))
      AND (p_states IS NULL OR event.state = ANY (p_states))
      AND (p_kinds IS NULL OR EXISTS (
        SELECT FROM ledger.event AS submitted
        WHERE submitted.project_id = event.project_id AND submitted.run_id = event.run_id
          AND submitted.version = 1 AND submitted.kind = ANY (p_kinds) OFFSET 0))
    ORDER BY event.position LIMIT p_limit;
    RETURN;
  END IF;
  -- Two arms, because the index (txid, position) would not be used for a single condition.
  RETURN QUERY SELECT event.* FROM (
    SELECT later.* FROM ledger.event AS later
    WHERE later.txid >= pg_snapshot_xmax(seen) AND later.txid < pg_snapshot_xmax(target)
      AND later.position > after
    UNION ALL
    SELECT opened.* FROM ledger.event AS opened
    WHERE opened.txid = ANY (ARRAY(SELECT pg_snapshot_xip(seen))) AND opened.position > after
  ) AS event
  WHERE event.position <= up_to AND pg_visible_in_snapshot(event.txid, target)
    AND (p_project IS NULL OR event.project_id = p_project)
    AND (allowed IS NULL OR event.project_id = ANY (allowed))
    AND (p_types IS NULL OR event.type = ANY (p_types))
    AND (p_without IS NULL OR event.type <> ALL (p_without))
    AND (p_states IS NULL OR event.state = ANY (p_states))
    AND (p_kinds IS NULL OR EXISTS (
      SELECT FROM ledger.event AS submitted
      WHERE submitted.project_id = event.project_id AND submitted.run_id = event.run_id
        AND submitted.version = 1 AND submitted.kind = ANY (p_kinds) OFFSET 0))
  ORDER BY event.position LIMIT p_limit;
END $$;
