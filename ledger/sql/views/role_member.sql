-- Who has which role: whom the newest record about it grants it to.
CREATE OR REPLACE VIEW ledger.role_member WITH (security_invoker = true) AS
SELECT newest.project_id, newest.role, newest.member, newest.recorded_at, newest.actor,
  newest.reason
FROM (
  SELECT DISTINCT ON (change.project_id, change.role, change.member) change.*
  FROM ledger.role_event AS change
  ORDER BY change.project_id, change.role, change.member, change.number DESC
) AS newest WHERE newest.type = 'role.granted';
