-- The policies of row level security: what a login that is not the owner sees of each table, by its
-- grants, and the few tables that a role may write itself. The functions that write belong to the
-- owner, whom no policy binds, and check the right themselves. A rule on project_id is one
-- comparison, so that an index is searched by it: see ledger.projects_seen. A partition is reached
-- through `event` only: its own row level security has no policy, and lets nobody in.
-- Of `rights` one is enough. A row that is global belongs to no project, so the right must hold in
-- all of them; IS NULL stands inside, or the planner takes the rule to pass one row in two hundred.
-- What is kept is written in READ COMMITTED alone: an older snapshot would show a right that was
-- revoked since.
CREATE OR REPLACE FUNCTION ledger.policy_rules()
  RETURNS TABLE (relation text, policy text, command text, role text, rule text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT rules.relation, rules.policy, rules.command, rules.role, format(CASE
    WHEN rules.policy = 'own' THEN 'credential = (SELECT ledger.credential())'
    WHEN rules.is_global THEN '(SELECT ledger.projects_with(VARIADIC %1$L::text[]) IS NULL)'
    ELSE 'project_id = ANY ((SELECT ledger.projects_seen(VARIADIC %1$L::text[]))::text[])'
  END || CASE rules.policy WHEN 'kept'
    THEN ' AND current_setting(''transaction_isolation'') = ''read committed''' ELSE '' END,
    string_to_array(rules.rights, ' ')) AS rule
  FROM (VALUES
    ('project', 'seen', 'SELECT', 'PUBLIC', '', false),
    ('event', 'seen', 'SELECT', 'PUBLIC', 'read work audit', false),
    ('run_state', 'seen', 'SELECT', 'PUBLIC', 'read work audit', false),
    ('run_tag', 'seen', 'SELECT', 'PUBLIC', 'read work audit', false),
    ('payload', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('kind', 'seen', 'SELECT', 'PUBLIC', 'read work submit audit', false),
    ('low_water', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('kind_state', 'seen', 'SELECT', 'PUBLIC', 'read work submit audit', false),
    ('kind_event', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('command', 'seen', 'SELECT', 'PUBLIC', 'read work submit decide audit', false),
    ('schedule', 'seen', 'SELECT', 'PUBLIC', 'read schedule audit', false),
    ('saved_view', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('view_event', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('snooze', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('role_event', 'seen', 'SELECT', 'PUBLIC', 'read work decide audit admin', false),
    ('access_grant', 'seen', 'SELECT', 'PUBLIC', 'audit admin', false),
    ('access_grant', 'own', 'SELECT', 'PUBLIC', '', false),
    ('api_token', 'seen', 'SELECT', 'PUBLIC', 'audit admin', true),
    ('credential_use', 'seen', 'SELECT', 'PUBLIC', 'audit admin', true),
    ('user_account', 'seen', 'SELECT', 'PUBLIC', 'audit admin', true),
    ('payload_read', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('web_session', 'seen', 'SELECT', 'PUBLIC', 'audit admin', true),
    ('webhook', 'seen', 'SELECT', 'PUBLIC', 'audit admin', false),
    ('delivery', 'seen', 'SELECT', 'PUBLIC', 'audit admin', false),
    ('delivery_attempt', 'seen', 'SELECT', 'PUBLIC', 'audit admin', false),
    ('control_event', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('control_head', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('archive_event', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('projection', 'seen', 'SELECT', 'PUBLIC', 'read audit', true),
    ('projection', 'kept', 'ALL', 'runfold_projector', 'read', true),
    ('projection_skip', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('projection_skip', 'kept', 'ALL', 'runfold_projector', 'read', true),
    ('projection_aside', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('projection_aside', 'kept', 'ALL', 'runfold_projector', 'read', true),
    ('rebuild', 'seen', 'SELECT', 'PUBLIC', 'read audit', true),
    ('rebuild', 'kept', 'ALL', 'runfold_projector', 'read', true),
    ('rebuild_range', 'seen', 'SELECT', 'PUBLIC', 'read audit', true),
    ('rebuild_range', 'kept', 'ALL', 'runfold_projector', 'read', true)
  ) AS rules (relation, policy, command, role, rights, is_global)
$$;
