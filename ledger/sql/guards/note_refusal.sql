-- Notes a decision that was refused in the history of its run, at most 10 times for a credential
-- and 100 times in a run; the last says so. Internal to ledger.decide, which holds the lock of the
-- run.
CREATE OR REPLACE FUNCTION ledger.note_refusal(
  p_project text, p_actor text, p_run uuid, p_text text
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  sort CONSTANT text := 'decision refused';
  of_run int;
  of_credential int;
  rest text := '';
BEGIN
  SELECT count(*), count(*) FILTER (WHERE event.credential = ledger.credential())
  INTO of_run, of_credential FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id = p_run AND event.type = 'note.added'
    AND event.name = sort;
  IF of_run >= 100 OR of_credential >= 10 THEN
    RETURN;
  END IF;
  IF of_run = 99 THEN
    rest := '; no more are noted of this run';
  ELSIF of_credential = 9 THEN
    rest := '; no more are noted of this credential';
  END IF;
  PERFORM ledger.append(p_project, p_actor, ARRAY[p_run], NULL, '{note.added}',
    p_names => ARRAY[sort],
    p_bodies => ARRAY[json_build_object('text', p_text || rest)::text]);
END $$;
