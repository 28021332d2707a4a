"""Holes in access: what the catalogs say that would let a login past roles, grants and policies.

Each is one line with the statement that closes it. What this code installs itself is compared by
`object_differences`; here is what others may have added beside it, and the months' tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from runfold.ledger import log, names
from runfold.ledger.errors import LedgerError
from runfold.ledger.postgres.compatibility import FIXED_MINORS
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.login_limits import LACKS
from runfold.ledger.postgres.server_roles import HAS_POWERS, NO_POWERS, ROLES

IDLE_SECONDS: Final = 60.0
"""How long a transaction that has changed something may do nothing before it is named."""


@dataclass(frozen=True, slots=True)
class Hole:
    """One hole, and the statement or the action that closes it."""

    hole: str
    remedy: str
    is_open: bool
    """Whether it breaks a promise by itself; otherwise it may be intended, and is a warning."""


_GIVEN: Final = """
given AS (
  SELECT schema.nspowner AS owner, pg_get_userbyid(schema.nspowner)::text AS owner_name,
    $1::text[] AS roles
  FROM pg_namespace AS schema WHERE schema.nspname = 'ledger'
), month AS (
  SELECT relation.oid, relation.relrowsecurity,
    format('%I.%I', schema.nspname, relation.relname) AS name
  FROM pg_inherits AS child JOIN pg_class AS relation ON relation.oid = child.inhrelid
  JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
  WHERE child.inhparent = to_regclass('ledger.event')
), guard (name, kind, made) AS (
  -- pg_trigger.tgtype: 1 each row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate
  VALUES ('refuse_truncate', 34, 'BEFORE TRUNCATE'), ('refuse_insert', 6, 'BEFORE INSERT'),
    ('refuse_change', 27, NULL)  -- which the parent's trigger makes
)
"""
_MONTHS: Final = """
SELECT format('row security of %s is off', month.name) AS hole,
  format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', month.name) AS remedy, true AS is_open
FROM month WHERE NOT month.relrowsecurity
UNION ALL
SELECT format('policy %s lets logins into %s by itself', policy.polname, month.name),
  format('DROP POLICY %I ON %s', policy.polname, month.name), true
FROM pg_policy AS policy JOIN month ON month.oid = policy.polrelid
UNION ALL
SELECT format('trigger %s of %s is missing, changed or does not always fire', guard.name,
    month.name),
  CASE WHEN guard.made IS NOT NULL THEN format('CREATE OR REPLACE TRIGGER %I %s ON %s '
    'EXECUTE FUNCTION ledger.refuse_change(); ', guard.name, guard.made, month.name) ELSE '' END
  || format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', month.name, guard.name), true
FROM month CROSS JOIN guard
WHERE NOT EXISTS (
  SELECT FROM pg_trigger AS trigger JOIN pg_proc AS function ON function.oid = trigger.tgfoid
  WHERE trigger.tgrelid = month.oid AND trigger.tgname = guard.name AND trigger.tgenabled = 'A'
    AND trigger.tgtype = guard.kind AND trigger.tgqual IS NULL AND trigger.tgattr::text = ''
    AND function.proname = 'refuse_change' AND function.pronamespace = 'ledger'::regnamespace)
"""
_CODE: Final = r"""
SELECT format('function %s runs with the rights of %s and %s', named.name,
  pg_get_userbyid(function.proowner),
    CASE WHEN named.touches THEN 'names the ledger''s tables' ELSE 'is the owner''s' END),
  format('ALTER ROUTINE %s SECURITY INVOKER', named.name), named.touches
FROM given, pg_proc AS function JOIN pg_namespace AS schema ON schema.oid = function.pronamespace
CROSS JOIN LATERAL (
  SELECT format('%I.%I(%s)', schema.nspname, function.proname,
    pg_get_function_identity_arguments(function.oid))
    AS name, function.prosrc ~* '\mledger\M' OR EXISTS (
    SELECT FROM pg_depend AS dependency JOIN pg_class AS relation
      ON relation.oid = dependency.refobjid
    WHERE dependency.classid = 'pg_proc'::regclass AND dependency.objid = function.oid
      AND dependency.refclassid = 'pg_class'::regclass
      AND relation.relnamespace = 'ledger'::regnamespace) AS touches
) AS named
WHERE function.prosecdef AND function.oid >= 16384
  AND function.pronamespace <> 'ledger'::regnamespace
  AND (named.touches OR function.proowner = given.owner)
  AND NOT EXISTS (SELECT FROM pg_depend AS dependency
    WHERE dependency.classid = 'pg_proc'::regclass AND dependency.objid = function.oid
      AND dependency.deptype = 'e')
UNION ALL
SELECT DISTINCT format('view %s reads the ledger''s tables with the rights of %s', view.name,
    pg_get_userbyid(relation.relowner)),
  CASE relation.relkind
    WHEN 'v' THEN format('ALTER VIEW %s SET (security_invoker = true)', view.name)
    ELSE format('DROP MATERIALIZED VIEW %s', view.name) END, true
FROM given, pg_depend AS dependency JOIN pg_rewrite AS rule ON rule.oid = dependency.objid
JOIN pg_class AS relation ON relation.oid = rule.ev_class
JOIN pg_class AS source ON source.oid = dependency.refobjid
JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
JOIN pg_roles AS owner ON owner.oid = relation.relowner
CROSS JOIN LATERAL (SELECT format('%I.%I', schema.nspname, relation.relname) AS name) AS view
WHERE dependency.classid = 'pg_rewrite'::regclass AND dependency.refclassid = 'pg_class'::regclass
  AND source.relnamespace = 'ledger'::regnamespace AND schema.nspname <> 'ledger'
  AND relation.relkind IN ('v', 'm')
  AND (owner.rolbypassrls OR pg_has_role(owner.oid, given.owner, 'USAGE'))
  AND EXISTS (SELECT FROM aclexplode(relation.relacl) AS privilege
    WHERE privilege.grantee <> relation.relowner)
  AND NOT EXISTS (SELECT FROM pg_options_to_table(relation.reloptions) AS option
    WHERE option.option_name = 'security_invoker' AND option.option_value::boolean)
UNION ALL
SELECT format('%s will get %s on %s that %s makes%s',
    CASE privilege.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(privilege.grantee) END,
    privilege.privilege_type, objects.kind, given.owner_name,
    coalesce(' in schema ' || schema.nspname, '')),
  format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE %s ON %s FROM %s', given.owner_name,
    coalesce(' IN SCHEMA ' || quote_ident(schema.nspname), ''), privilege.privilege_type,
    objects.kind, CASE privilege.grantee WHEN 0 THEN 'PUBLIC'
      ELSE quote_ident(pg_get_userbyid(privilege.grantee)) END), true
FROM given JOIN pg_default_acl AS defaults ON defaults.defaclrole = given.owner
LEFT JOIN pg_namespace AS schema ON schema.oid = defaults.defaclnamespace
CROSS JOIN LATERAL aclexplode(defaults.defaclacl) AS privilege
JOIN (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS')) AS objects (type, kind)
  ON objects.type = defaults.defaclobjtype::text
WHERE privilege.grantee <> given.owner
  AND coalesce(schema.nspname, 'ledger') IN ('ledger', 'projection')
  -- without a schema, PUBLIC's right to call functions is the server's default
  AND (privilege.grantee <> 0 OR objects.type <> 'f' OR schema.oid IS NOT NULL)
"""
_ROLES: Final = f"""
SELECT format('role %s exists to be granted, but logs in or has powers of its own', role.rolname),
  format('ALTER ROLE %I {NO_POWERS}', role.rolname), true
FROM given JOIN pg_roles AS role ON role.rolname = ANY (given.roles)
WHERE {HAS_POWERS}
UNION ALL
SELECT format('role %s has all that %s may', role.rolname, pg_get_userbyid(membership.roleid)),
  format('REVOKE %I FROM %I', pg_get_userbyid(membership.roleid), role.rolname), true
FROM given JOIN pg_roles AS role ON role.rolname = ANY (given.roles)
JOIN pg_auth_members AS membership ON membership.member = role.oid
UNION ALL
SELECT format('login %s may act as the ledger''s owner %s%s', login.rolname, given.owner_name,
    CASE WHEN via.oid <> login.oid THEN ', by way of role ' || via.rolname ELSE '' END),
  format('REVOKE %I FROM %I', given.owner_name, via.rolname), false
FROM given JOIN pg_auth_members AS membership ON membership.roleid = given.owner
JOIN pg_roles AS via ON via.oid = membership.member
JOIN pg_roles AS login ON login.rolcanlogin AND NOT login.rolsuper
  AND pg_has_role(login.oid, via.oid, 'MEMBER')
WHERE login.oid <> given.owner
UNION ALL
SELECT format('login %s has %s, which no policy binds, and rights in the ledger', login.rolname,
    CASE WHEN login.rolsuper THEN 'SUPERUSER' ELSE 'BYPASSRLS' END),
  format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS', login.rolname), true
FROM given JOIN pg_roles AS login ON login.rolcanlogin AND (login.rolsuper OR login.rolbypassrls)
WHERE login.oid <> given.owner AND (
  EXISTS (SELECT FROM ledger.access_grant AS access
    WHERE access.credential = login.rolname AND cardinality(access.rights) > 0)
  OR EXISTS (SELECT FROM pg_auth_members AS membership JOIN pg_roles AS role
    ON role.oid = membership.roleid
    WHERE membership.member = login.oid AND role.rolname = ANY (given.roles))
  OR NOT login.rolsuper AND EXISTS (SELECT FROM pg_roles AS role
    WHERE role.rolname = ANY (given.roles) AND pg_has_role(login.oid, role.oid, 'MEMBER')))
UNION ALL
SELECT format('login %s has %s, and so reads or writes tables that no policy guards', login.rolname,
    granted.rolname),
  format('REVOKE %I FROM %I', granted.rolname, via.rolname), false
FROM pg_roles AS granted JOIN pg_auth_members AS membership ON membership.roleid = granted.oid
JOIN pg_roles AS via ON via.oid = membership.member
JOIN pg_roles AS login ON login.rolcanlogin AND NOT login.rolsuper
  AND pg_has_role(login.oid, via.oid, 'MEMBER')
WHERE granted.rolname IN ('pg_read_all_data', 'pg_write_all_data')
UNION ALL
SELECT format('runs are held by login %s, which may do all that the ledger''s owner may',
    lease.credential),
  'give workers a login of their own with runfold_worker and `runfold access grant`', false
FROM given, (SELECT DISTINCT run.lease_credential AS credential FROM ledger.run_state AS run
  WHERE run.token IS NOT NULL) AS lease JOIN pg_roles AS login ON login.rolname = lease.credential
WHERE pg_has_role(login.oid, given.owner, 'MEMBER')
"""
# A grant without effect holds an entry of the catalogue, and no lock that pg_locks shows.
_HELD: Final = """
SELECT format('process %s of login %s has left a transaction open for %s s, and holds what it '
    'changed or locked', session.pid, session.usename,
    extract(epoch FROM clock_timestamp() - session.state_change)::int),
  format('SELECT pg_terminate_backend(%s)', session.pid), false
FROM pg_stat_activity AS session
WHERE session.datname = current_database() AND session.state LIKE 'idle in transaction%'
  AND session.state_change < clock_timestamp() - $2::float8 * interval '1 second'
  AND (session.backend_xid IS NOT NULL OR EXISTS (
    SELECT FROM pg_locks AS lock JOIN pg_class AS relation ON relation.oid = lock.relation
    WHERE lock.pid = session.pid AND lock.database = session.datid AND lock.granted
      AND lock.mode NOT IN ('AccessShareLock', 'RowShareLock')
      AND relation.relnamespace = 'ledger'::regnamespace))
"""
_PREPARED: Final = """
SELECT format('prepared transaction %L of login %s holds what it changed or locked, and ends with '
    'no session and no time limit', prepared.gid, prepared.owner),
  format('ROLLBACK PREPARED %L', prepared.gid), false
FROM pg_prepared_xacts AS prepared
WHERE prepared.database = current_database()
  AND prepared.prepared < clock_timestamp() - $2::float8 * interval '1 second'
UNION ALL
SELECT format('the server lets %s transactions be prepared: a login that leaves one holds its '
    'locks beyond its session and every time limit', server.most),
  'where no program needs them: ALTER SYSTEM SET max_prepared_transactions = 0, and a restart',
  false
FROM (SELECT current_setting('max_prepared_transactions')::int AS most) AS server
WHERE server.most > 0
"""
# A session that listens and leaves a transaction open keeps the queue from moving on, whatever its
# database: the server does not say which it is, but it is one of the oldest transactions.
_QUEUE: Final = """
SELECT format('the queue of NOTIFY is %s %% full, and when it is full workers poll only; a session '
    'that listens holds it, and process %s of login %s has had a transaction open for %s s',
    round(queue.usage * 100), session.pid, session.usename,
    extract(epoch FROM clock_timestamp() - session.xact_start)::int),
  format('SELECT pg_terminate_backend(%s)', session.pid), false
FROM (SELECT pg_notification_queue_usage() AS usage) AS queue CROSS JOIN LATERAL (
  SELECT session.* FROM pg_stat_activity AS session
  WHERE session.backend_type = 'client backend' AND session.pid <> pg_backend_pid()
    AND session.xact_start IS NOT NULL
  ORDER BY session.xact_start LIMIT 3
) AS session
WHERE queue.usage >= 0.5
"""
_LOGGED: Final = """
SELECT 'the server logs statements with their parameters: contents, and the secrets of API tokens',
  'ALTER SYSTEM SET log_parameter_max_length = 0; SELECT pg_reload_conf()', false
WHERE current_setting('log_parameter_max_length') <> '0'
  AND (current_setting('log_min_duration_statement') <> '-1'
    OR current_setting('log_min_duration_sample') <> '-1'
    OR current_setting('log_transaction_sample_rate') <> '0'
    OR current_setting('log_statement') IN ('mod', 'all'))
"""
_HOLES: Final = f"""
WITH {_GIVEN} {_MONTHS} UNION ALL {_CODE} UNION ALL {_ROLES} UNION ALL {_HELD}
UNION ALL {_PREPARED} UNION ALL {_QUEUE} UNION ALL {_LOGGED} ORDER BY 1
"""
# What doctor finds by comparing every object, told by the catalogs alone: a policy's comment says
# how it was made.
_WIDE: Final = f"""
  SELECT format('policy %s of ledger.%s is changed, or not the ledger''s', policy.polname,
    relation.relname), '', true
  FROM pg_policy AS policy JOIN pg_class AS relation ON relation.oid = policy.polrelid
  WHERE relation.relnamespace = 'ledger'::regnamespace AND NOT relation.relispartition
    AND starts_with(obj_description(policy.oid, 'pg_policy'),
      pg_get_expr(policy.polqual, policy.polrelid) || ' from ') IS NOT TRUE
  UNION ALL
  SELECT format('%s has %s on ledger.%s', granted.who, granted.privilege_type, granted.relname),
    '', true
  FROM (
    SELECT relation.relname, privilege.privilege_type,
      CASE privilege.grantee WHEN 0 THEN 'PUBLIC'
        ELSE pg_get_userbyid(privilege.grantee)::text END AS who
    FROM pg_class AS relation CROSS JOIN LATERAL aclexplode(relation.relacl) AS privilege
    WHERE relation.relnamespace = 'ledger'::regnamespace AND privilege.grantee <> relation.relowner
  ) AS granted
  WHERE granted.who <> ALL ($1) OR granted.privilege_type <> 'SELECT'
    AND NOT (granted.who = 'runfold_projector' AND granted.privilege_type = 'INSERT'
      AND (starts_with(granted.relname, 'projection') OR starts_with(granted.relname, 'rebuild')))
  UNION ALL
  SELECT DISTINCT format('%s may call ledger.%s',
    CASE privilege.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(privilege.grantee)::text END,
      function.proname),
    '', true
  FROM pg_proc AS function
  CROSS JOIN LATERAL
    aclexplode(coalesce(function.proacl, acldefault('f', function.proowner))) AS privilege
  WHERE function.pronamespace = 'ledger'::regnamespace AND privilege.grantee <> function.proowner
    AND (privilege.grantee = 0 OR pg_get_userbyid(privilege.grantee) <> ALL ($1))
  UNION ALL
  SELECT format('login %s has rights and no %s', session_user, string_agg(bound.name, ', ')),
    '', true
  FROM given, ledger.login_limits() AS bound, pg_roles AS login, pg_database AS database
  WHERE login.rolname = session_user AND database.datname = current_database()
    AND NOT pg_has_role(login.oid, given.owner, 'MEMBER')
    AND {LACKS}
  HAVING count(*) > 0
"""
_AT_START: Final = f"""
WITH {_GIVEN} SELECT * FROM (
  {_MONTHS} UNION ALL {_CODE} UNION ALL {_ROLES}
  UNION ALL
  SELECT DISTINCT format('row security of ledger.%s is off', relation.relname), '', true
  FROM pg_class AS relation JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
  WHERE relation.relnamespace = 'ledger'::regnamespace AND relation.relkind IN ('r', 'p')
    AND NOT relation.relispartition AND NOT relation.relrowsecurity
    AND attribute.attname = 'project_id' AND NOT attribute.attisdropped
  UNION ALL
  SELECT format('trigger %s of ledger.%s does not always fire', trigger.tgname, relation.relname),
    '', true
  FROM pg_trigger AS trigger JOIN pg_class AS relation ON relation.oid = trigger.tgrelid
  WHERE relation.relnamespace = 'ledger'::regnamespace AND NOT relation.relispartition
    AND NOT trigger.tgisinternal AND trigger.tgenabled <> 'A'
  UNION ALL
  {_WIDE}
  UNION ALL
  SELECT format('PostgreSQL %s lacks a security fix', current_setting('server_version')), '', true
  FROM unnest($2::int[]) AS fixed
  WHERE fixed / 10000 = current_setting('server_version_num')::int / 10000
    AND fixed > current_setting('server_version_num')::int
  UNION ALL
  SELECT format('this process logs in as %s, which may do all that the ledger''s owner may',
    session_user), '', true
  FROM given WHERE $3 AND pg_has_role(session_user, given.owner, 'MEMBER')
) AS found WHERE found.is_open ORDER BY 1
"""


async def access_holes(source: Any) -> list[Hole]:
    """Return the holes that this login can see; a grant of others is seen by the owner only."""
    return [Hole(**row) for row in await fetch(source, _HOLES, ROLES, IDLE_SECONDS)]


async def warn_of_holes(source: Any, *, production: bool) -> None:
    """Log one line if a hole is open, for a process that begins to run for long; refuse nothing.

    One statement of about ten milliseconds. It looks for less than doctor, which compares every
    function, view, policy and privilege. `production`: the owner's own login is a hole, too.
    """
    fixed = [major * 10_000 + minor for major, minor in FIXED_MINORS.items()]
    try:
        holes = [Hole(**row) for row in await fetch(source, _AT_START, ROLES, fixed, production)]
    except LedgerError:  # a newer schema, or a server that has just gone
        return
    if holes:
        log.logger().warning(
            names.ACCESS_HOLES,
            holes=len(holes),
            first=holes[0].hole,
            remedy="run `runfold doctor`",
        )
