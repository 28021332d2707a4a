-- Records in the control history that a rebuild of a projection was ordered (begun, with a reason),
-- or that its table is in the place of the live one (swapped, by the session's credential; ordered
-- by p_actor). It is of all projects. Needs the right read or admin in all of them.
CREATE OR REPLACE FUNCTION ledger.note_rebuild(
  p_name text, p_step text, p_version int, p_rebuild int, p_wrong bigint, p_actor text,
  p_reason text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  is_order CONSTANT boolean := p_step = 'begun';
  checked boolean;
BEGIN
  checked := ledger.check_access('*', '{read,admin}', CASE WHEN is_order THEN ARRAY[p_actor] END);
  PERFORM ledger.check_projection_name('projection', p_name);
  checked := ledger.check_given('p_step', p_step IN ('begun', 'swapped'));
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL OR NOT is_order);
  checked := ledger.check_given('p_reason', btrim(p_reason) <> '' OR NOT is_order);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  PERFORM ledger.append_control('*', 'rebuild.' || p_step, 'projection:' || p_name,
    jsonb_strip_nulls(jsonb_build_object('version', p_version, 'rebuild_id', p_rebuild,
      'wrong', p_wrong, 'ordered_by', CASE WHEN NOT is_order THEN p_actor END))::text,
    CASE WHEN is_order THEN p_actor ELSE ledger.credential() END, p_reason);
END $$;
