-- Grants a member a role, or revokes it, on record; returns whether anything changed. Needs the
-- right admin in the project. Numbered from 1 in each project, so that a gap tells nothing of other
-- projects. Locks: the project's list of the control history.
CREATE OR REPLACE FUNCTION ledger.change_role(
  p_project text, p_actor text, p_type text, p_role text, p_member text, p_reason text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_role', p_role IS NOT NULL);
  checked := ledger.check_given('p_member', p_member IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_role, p_member], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  IF (p_type IN ('role.granted', 'role.revoked')) IS NOT TRUE THEN
    RAISE EXCEPTION 'a role is granted or revoked' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.lock_control(p_project);
  INSERT INTO ledger.role_event (project_id, number, recorded_at, type, role, member, actor, reason)
  SELECT p_project, (SELECT coalesce(max(recorded.number), 0) + 1 FROM ledger.role_event AS recorded
      WHERE recorded.project_id = p_project),
    ledger.now(), p_type, p_role, p_member, p_actor, p_reason
  WHERE p_type = 'role.granted' OR EXISTS (SELECT FROM ledger.role_member AS membership
    WHERE membership.project_id = p_project AND membership.role = p_role
      AND membership.member = p_member)
  ON CONFLICT DO NOTHING; -- a snapshot older than the newest event: a serialization failure
  RETURN FOUND;
END $$;
