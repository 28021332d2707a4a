-- Sends a run a value under a name: as the answer if the run is parked for a signal of that name,
-- else as signal.received, kept until the run asks. Which of the two is decided under the run's
-- lock, so a signal needs no version and never misses a run that begins to wait. The value is given
-- in both forms: as the payload of an answer and as that of a kept signal. Either event bears the
-- name, so that a key names one signal.
-- No row: the run is unknown, has ended, or the key was used before.
-- Locks: the row of run_state, FOR UPDATE.
CREATE OR REPLACE FUNCTION ledger.signal(
  p_project text, p_actor text, p_run uuid, p_name text, p_answer text, p_kept text,
  p_key text DEFAULT NULL
) RETURNS TABLE (run_id uuid, version int, hash bytea)
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
  checked boolean;
  run record;
  awaited text;
BEGIN
  checked := ledger.check_access(p_project, '{submit}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_name], 100);
  IF strpos(p_name, '#') > 0 THEN
    RAISE EXCEPTION 'the name of a signal must not contain #' USING ERRCODE = '22023';
  END IF;
  SELECT state.state, state.token, state.available_at INTO run
  FROM ledger.run_state AS state
  WHERE state.project_id = p_project AND state.run_id = p_run
  FOR UPDATE;
  IF run.state = 'waiting_tool' AND run.token IS NULL AND run.available_at IS NULL THEN
    SELECT split_part(event.name, '#', 1) INTO awaited
    FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id >= p_run AND event.run_id <= p_run
      AND event.type = 'tool.requested' -- by a range: see ledger.newest_request
    ORDER BY event.run_id DESC, event.version DESC LIMIT 1;
  END IF;
  IF awaited = 'signal:' || p_name THEN
    RETURN QUERY
    SELECT moved.run_id, moved.version, moved.hash
    FROM ledger.transition(
      p_project, ARRAY[p_actor], ARRAY[p_run], NULL, ARRAY['running'],
      p_names => ARRAY[awaited], p_bodies => ARRAY[p_answer], p_keys => ARRAY[p_key]
    ) AS moved;
    IF FOUND THEN -- else the wait is over, and the signal is kept for the next
      RETURN;
    END IF;
  END IF;
  RETURN QUERY
  SELECT appended.run_id, appended.version, appended.hash
  FROM ledger.append(
    p_project, p_actor, ARRAY[p_run], NULL, ARRAY['signal.received'],
    p_names => ARRAY[p_name], p_bodies => ARRAY[p_kept], p_keys => ARRAY[p_key]
  ) AS appended;
END $$;
