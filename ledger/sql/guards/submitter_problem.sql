-- Says whether somebody asked for a run, or for one that asked for it by however many steps:
-- 'submitter' where they did, by name or by credential, 'unread' where it cannot be told, because a
-- run in between is archived or its content erased. Null: they did not. Internal to
-- ledger.may_not_decide.
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
    SELECT e.actor, e.credential, e.payload_hash INTO submitted FROM ledger.event AS e
    WHERE e.project_id = p_project AND e.run_id = id AND e.version = 1;
    IF NOT FOUND THEN -- a parent that this project never had asked for nothing
      RETURN (SELECT 'unread' FROM ledger.archive AS a
        WHERE a.detached AND id >= a.first AND id < a.beyond LIMIT 1);
    END IF;
    IF ledger.person(submitted.actor) = p_person OR submitted.credential = p_writer THEN
      RETURN 'submitter';
    END IF;
    SELECT p.body ->> 'parent' INTO parent FROM ledger.payload AS p
    WHERE p.project_id = p_project AND p.run_id = id AND p.version = 1;
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
