-- Who has which role: whom the newest record about it grants it to.
CREATE OR REPLACE VIEW ledger.role_member WITH (security_invoker = true) AS
SELECT n.project_id, n.role, n.member, n.recorded_at, n.actor, n.reason
FROM (
  SELECT DISTINCT ON (r.project_id, r.role, r.member) r.* FROM ledger.role_event AS r
  ORDER BY r.project_id, r.role, r.member, r.number DESC
) AS n WHERE n.type = 'role.granted';
