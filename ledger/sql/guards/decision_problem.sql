-- Returns why a decision cannot be taken, as a code and as a sentence about the run or the actor;
-- nulls if it can. Internal to ledger.decide, which holds the lock of the run.
CREATE OR REPLACE FUNCTION ledger.decision_problem(
  p_project text, p_run uuid, p_actor text, p_request int, p_shown text, p_grants boolean,
  p_moment timestamptz, OUT why text, OUT detail text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  newest CONSTANT int := ledger.newest_request(p_project, p_run);
  run ledger.run_state;
  asked record;
BEGIN
  SELECT state.* INTO run FROM ledger.run_state AS state
  WHERE state.project_id = p_project AND state.run_id = p_run;
  SELECT event.shown_sha256, event.role INTO asked FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id = p_run AND event.version = newest;
  why := CASE
    WHEN run.state <> 'waiting_approval' THEN 'state'
    WHEN p_request <> newest THEN 'request'
    WHEN run.available_at IS NOT NULL THEN 'answered'
    WHEN p_shown <> coalesce(asked.shown_sha256, '') THEN 'shown'
    WHEN run.wait_until <= p_moment THEN 'late'
    ELSE ledger.decider_problem(p_project, p_run, newest, p_actor, p_grants)
  END;
  detail := CASE why
    WHEN 'state' THEN 'it waits for no approval'
    WHEN 'request'
      THEN format('the decision is for another request; it waits for request %s', newest)
    WHEN 'answered'
      THEN format('it was answered before and waits for a worker (version %s)', run.version)
    WHEN 'shown' THEN format('request %s showed something else than what was decided', newest)
    WHEN 'late' THEN 'the time for an answer is over; the reaper''s next sweep ends the wait'
    WHEN 'asker' THEN format('%s or its credential asked: another person must decide', p_actor)
    WHEN 'submitter' THEN format('%s submitted it, and another person must decide', p_actor)
    WHEN 'unread' THEN format('%s may have submitted it: that is archived or erased, and another '
      'person must decide', p_actor)
    WHEN 'twice' THEN format('%s approved request %s before, and another person must', p_actor,
      newest)
    WHEN 'role' THEN format('%s does not have the role %s', p_actor, quote_literal(asked.role))
  END;
END $$;
