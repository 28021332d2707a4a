-- Returns why somebody may not decide a request for an approval, or null if they may:
--   asker      they asked for it, or hold the lease under which it was asked
--   submitter  another person must decide, and they submitted the run (ledger.submitter_problem)
--   unread     another person must decide, and who submitted the run cannot be read any more
--   role       somebody with a role must decide, and they do not have it
--   twice      they have approved it already; they may still reject it
-- A credential counts as one person, by whatever name it speaks; only the owner's may speak for
-- anybody. Volatile, so that it sees what was committed while the run's lock was waited for.
-- Internal to ledger.decide.
CREATE OR REPLACE FUNCTION ledger.decider_problem(p_project text, p_run uuid, p_request int,
  p_actor text, p_grants boolean) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
  -- null for the owner's, and null equals no credential
  writer CONSTANT text := CASE WHEN NOT ledger.is_owner() THEN ledger.credential() END;
  person CONSTANT text := ledger.person(p_actor);
  asked record;
  lease record;
  problem text;
BEGIN
  SELECT event.role, event.other_person, event.actor, event.credential INTO asked
  FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id = p_run AND event.version = p_request;
  SELECT event.worker_id, event.credential INTO lease FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id >= p_run AND event.run_id <= p_run
    AND event.version < p_request AND event.type = 'lease.acquired'
  ORDER BY event.run_id DESC, event.version DESC LIMIT 1;
  IF person IN (ledger.person(asked.actor), ledger.person(lease.worker_id))
    OR writer IN (asked.credential, lease.credential)
  THEN
    RETURN 'asker';
  END IF;
  IF asked.other_person THEN
    problem := ledger.submitter_problem(p_project, p_run, person, writer);
    IF problem IS NOT NULL THEN
      RETURN problem;
    END IF;
  END IF;
  IF asked.role IS NOT NULL AND NOT EXISTS (
    SELECT FROM ledger.role_member AS holds
    WHERE holds.project_id = p_project AND holds.role = asked.role AND holds.member = p_actor
  ) THEN
    RETURN 'role';
  END IF;
  IF p_grants AND EXISTS (SELECT FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = p_run AND event.version > p_request
      AND event.type = 'approval.signed'
      AND (ledger.person(event.actor) = person OR event.credential = writer))
  THEN
    RETURN 'twice';
  END IF;
  RETURN NULL;
END $$;
