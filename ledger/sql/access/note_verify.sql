-- Records in the control history that a whole project was verified, what that covered, and how many
-- findings there were. Needs the right audit.
CREATE OR REPLACE FUNCTION ledger.note_verify(
  p_project text, p_actor text, p_began_at timestamptz, p_runs bigint, p_events bigint,
  p_erased bigint, p_findings bigint, p_unchecked text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{audit}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_began_at', p_began_at IS NOT NULL);
  checked := ledger.check_given('each count',
    num_nulls(p_runs, p_events, p_erased, p_findings) = 0);
  checked := ledger.check_given('p_unchecked',
    p_unchecked IS NOT NULL AND array_position(p_unchecked, NULL) IS NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(p_unchecked, 2000);
  checked := ledger.check_times(ARRAY[p_began_at]);
  PERFORM ledger.append_control(p_project, 'project.verified', 'verify:' || p_project,
    jsonb_build_object('began_at', p_began_at, 'runs', p_runs,
      'events', p_events, 'erased', p_erased, 'findings', p_findings,
      'unchecked', p_unchecked)::text, p_actor, NULL);
END $$;
