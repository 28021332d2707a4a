-- Grants a credential rights in a project (* is all), in place of those that it had there; without
-- any rights it revokes them. Recorded in the control history, whose list it locks. Needs the right
-- admin in the project.
CREATE OR REPLACE FUNCTION ledger.change_access(
  p_project text, p_actor text, p_credential text, p_rights text[], p_actors text[],
  p_until timestamptz, p_reason text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
  had_rights boolean;
  speaks_for text[] := coalesce(p_actors, ARRAY[p_credential, p_credential || ':*']);
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_credential', p_credential IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_credential] || speaks_for, 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  checked := ledger.check_times(ARRAY[p_until]);
  IF p_rights IS NULL OR cardinality(speaks_for) NOT BETWEEN 1 AND 100 THEN
    RAISE EXCEPTION 'a grant has rights, and 1 to 100 actors' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.lock_control(p_project);
  had_rights := EXISTS (SELECT FROM ledger.access_grant AS granted
    WHERE granted.credential = p_credential AND cardinality(granted.rights) > 0);
  INSERT INTO ledger.access_grant (credential, project_id, rights, actors, until, actor, reason)
  VALUES (p_credential, p_project,
    ARRAY(SELECT DISTINCT asked FROM unnest(p_rights) AS asked ORDER BY asked), speaks_for, p_until,
    p_actor, p_reason)
  ON CONFLICT (credential, project_id) DO UPDATE SET rights = excluded.rights,
    actors = excluded.actors, until = excluded.until, actor = excluded.actor,
    reason = excluded.reason;
  IF had_rights OR cardinality(p_rights) > 0 THEN -- else its right to connect is not ours
    PERFORM ledger.change_connect(p_credential);
    PERFORM ledger.limit_login(p_project, p_actor, p_credential, p_reason);
  END IF;
EXCEPTION WHEN check_violation THEN -- the table's constraint lists the rights
  RAISE EXCEPTION 'rights % are not all known', array_to_string(p_rights, ', ')
    USING ERRCODE = '22023';
END $$;
