-- Returns whether somebody submitted a run, or one of the runs that led to it, however far back:
-- 'submitter' if they did, by name or by credential; 'unread' if that is unknown, because a run in
-- between is archived or its content was erased; null if they did not. Internal to
-- ledger.decider_problem.
CREATE OR REPLACE FUNCTION ledger.submitter_problem(p_project text, p_run uuid, p_person text,
  p_writer text) RETURNS text
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
  id uuid := p_run;
  submitted record;
  parent text;
BEGIN
  FOR step IN 1..1000 LOOP
    SELECT event.actor, event.credential, event.payload_hash INTO submitted
    FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = id AND event.version = 1;
    IF NOT FOUND THEN -- a parent that this project never had asked for nothing
      RETURN (SELECT 'unread' FROM ledger.archive AS archive
        WHERE archive.detached AND id >= archive.first AND id < archive.beyond LIMIT 1);
    END IF;
    IF ledger.person(submitted.actor) = p_person OR submitted.credential = p_writer THEN
      RETURN 'submitter';
    END IF;
    SELECT payload.body ->> 'parent' INTO parent FROM ledger.payload AS payload
    WHERE payload.project_id = p_project AND payload.run_id = id AND payload.version = 1;
    IF NOT FOUND THEN
      RETURN CASE WHEN submitted.payload_hash IS NOT NULL THEN 'unread' END;
    END IF;
    IF parent IS NULL OR parent !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
      RETURN NULL;
    END IF;
    id := parent::uuid;
  END LOOP;
  RETURN 'unread';
END $$;
