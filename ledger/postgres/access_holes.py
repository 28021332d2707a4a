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
from runfold.ledger.postgres.server_roles import ROLES

IDLE_SECONDS: Final = 60.0
"""How long a transaction that has changed something may do nothing before it is named."""


@dataclass(frozen=True, slots=True)
class Hole:
    """One hole, and the statement or the action that closes it."""

    hole: str
    remedy: str
    is_open: bool
    """Whether it takes back a promise by itself; otherwise it may be meant, and is a warning."""


_GIVEN: Final = """
given AS (
  SELECT n.nspowner AS owner, pg_get_userbyid(n.nspowner)::text AS owner_name, $1::text[] AS roles
  FROM pg_namespace AS n WHERE n.nspname = 'ledger'
), month AS (
  SELECT c.oid, c.relrowsecurity, format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE i.inhparent = to_regclass('ledger.event')
), guard (name, kind, made) AS (
  -- pg_trigger.tgtype: 1 each row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate
  VALUES ('refuse_truncate', 34, 'BEFORE TRUNCATE'), ('refuse_insert', 6, 'BEFORE INSERT'),
    ('refuse_change', 27, NULL)  -- which the parent's trigger makes
)
"""
_MONTHS: Final = """
SELECT format('row security of %s is off', m.name) AS hole,
  format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', m.name) AS remedy, true AS is_open
FROM month AS m WHERE NOT m.relrowsecurity
UNION ALL
SELECT format('policy %s lets logins into %s by itself', p.polname, m.name),
  format('DROP POLICY %I ON %s', p.polname, m.name), true
FROM pg_policy AS p JOIN month AS m ON m.oid = p.polrelid
UNION ALL
SELECT format('trigger %s of %s is missing, changed or does not always fire', g.name, m.name),
  CASE WHEN g.made IS NOT NULL THEN format('CREATE OR REPLACE TRIGGER %I %s ON %s '
    'EXECUTE FUNCTION ledger.refuse_change(); ', g.name, g.made, m.name) ELSE '' END
  || format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', m.name, g.name), true
FROM month AS m CROSS JOIN guard AS g
WHERE NOT EXISTS (
  SELECT FROM pg_trigger AS t JOIN pg_proc AS f ON f.oid = t.tgfoid
  WHERE t.tgrelid = m.oid AND t.tgname = g.name AND t.tgenabled = 'A' AND t.tgtype = g.kind
    AND t.tgqual IS NULL AND t.tgattr::text = '' AND f.proname = 'refuse_change'
    AND f.pronamespace = 'ledger'::regnamespace)
"""
_CODE: Final = r"""
SELECT format('function %s runs with the rights of %s and %s', u.name, pg_get_userbyid(p.proowner),
    CASE WHEN u.touches THEN 'names the ledger''s tables' ELSE 'is the owner''s' END),
  format('ALTER ROUTINE %s SECURITY INVOKER', u.name), u.touches
FROM given, pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace CROSS JOIN LATERAL (
  SELECT format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
    AS name, p.prosrc ~* '\mledger\M' OR EXISTS (
    SELECT FROM pg_depend AS d JOIN pg_class AS c ON c.oid = d.refobjid
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
      AND d.refclassid = 'pg_class'::regclass
      AND c.relnamespace = 'ledger'::regnamespace) AS touches
) AS u
WHERE p.prosecdef AND p.oid >= 16384 AND p.pronamespace <> 'ledger'::regnamespace
  AND (u.touches OR p.proowner = given.owner)
  AND NOT EXISTS (SELECT FROM pg_depend AS d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT DISTINCT format('view %s reads the ledger''s tables with the rights of %s', v.name,
    pg_get_userbyid(c.relowner)),
  CASE c.relkind WHEN 'v' THEN format('ALTER VIEW %s SET (security_invoker = true)', v.name)
    ELSE format('DROP MATERIALIZED VIEW %s', v.name) END, true
FROM given, pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
JOIN pg_class AS c ON c.oid = r.ev_class JOIN pg_class AS t ON t.oid = d.refobjid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_roles AS o ON o.oid = c.relowner
CROSS JOIN LATERAL (SELECT format('%I.%I', n.nspname, c.relname) AS name) AS v
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
  AND t.relnamespace = 'ledger'::regnamespace AND n.nspname <> 'ledger'
  AND c.relkind IN ('v', 'm') AND (o.rolbypassrls OR pg_has_role(o.oid, given.owner, 'USAGE'))
  AND EXISTS (SELECT FROM aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner)
  AND NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) AS s
    WHERE s.option_name = 'security_invoker' AND s.option_value::boolean)
UNION ALL
SELECT format('%s will get %s on %s that %s makes%s',
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type,
    k.kind, given.owner_name, coalesce(' in schema ' || n.nspname, '')),
  format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE %s ON %s FROM %s', given.owner_name,
    coalesce(' IN SCHEMA ' || quote_ident(n.nspname), ''), a.privilege_type, k.kind,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END), true
FROM given JOIN pg_default_acl AS d ON d.defaclrole = given.owner
LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL aclexplode(d.defaclacl) AS a
JOIN (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS')) AS k (type, kind)
  ON k.type = d.defaclobjtype::text
WHERE a.grantee <> given.owner AND coalesce(n.nspname, 'ledger') IN ('ledger', 'projection')
  AND (a.grantee <> 0 OR k.type <> 'f' OR n.oid IS NOT NULL)  -- PUBLIC's right by default
"""
_ROLES: Final = """
SELECT format('role %s is there to be granted, but logs in or rules itself', r.rolname),
  format('ALTER ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS',
    r.rolname), true
FROM given JOIN pg_roles AS r ON r.rolname = ANY (given.roles)
WHERE r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
  OR r.rolbypassrls
UNION ALL
SELECT format('role %s has all that %s may', r.rolname, pg_get_userbyid(m.roleid)),
  format('REVOKE %I FROM %I', pg_get_userbyid(m.roleid), r.rolname), true
FROM given JOIN pg_roles AS r ON r.rolname = ANY (given.roles)
JOIN pg_auth_members AS m ON m.member = r.oid
UNION ALL
SELECT format('login %s may act as the ledger''s owner %s%s', r.rolname, given.owner_name,
    CASE WHEN via.oid <> r.oid THEN ', by way of role ' || via.rolname ELSE '' END),
  format('REVOKE %I FROM %I', given.owner_name, via.rolname), false
FROM given JOIN pg_auth_members AS m ON m.roleid = given.owner
JOIN pg_roles AS via ON via.oid = m.member
JOIN pg_roles AS r ON r.rolcanlogin AND NOT r.rolsuper AND pg_has_role(r.oid, via.oid, 'MEMBER')
WHERE r.oid <> given.owner
UNION ALL
SELECT format('login %s has %s, which no policy binds, and rights in the ledger', r.rolname,
    CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'BYPASSRLS' END),
  format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS', r.rolname), true
FROM given JOIN pg_roles AS r ON r.rolcanlogin AND (r.rolsuper OR r.rolbypassrls)
WHERE r.oid <> given.owner AND (
  EXISTS (SELECT FROM ledger.access_grant AS g
    WHERE g.credential = r.rolname AND cardinality(g.rights) > 0)
  OR EXISTS (SELECT FROM pg_auth_members AS m JOIN pg_roles AS o ON o.oid = m.roleid
    WHERE m.member = r.oid AND o.rolname = ANY (given.roles))
  OR NOT r.rolsuper AND EXISTS (SELECT FROM pg_roles AS o
    WHERE o.rolname = ANY (given.roles) AND pg_has_role(r.oid, o.oid, 'MEMBER')))
UNION ALL
SELECT format('login %s has %s, and so reads or writes tables that no policy guards', r.rolname,
    o.rolname),
  format('REVOKE %I FROM %I', o.rolname, via.rolname), false
FROM pg_roles AS o JOIN pg_auth_members AS m ON m.roleid = o.oid
JOIN pg_roles AS via ON via.oid = m.member
JOIN pg_roles AS r ON r.rolcanlogin AND NOT r.rolsuper AND pg_has_role(r.oid, via.oid, 'MEMBER')
WHERE o.rolname IN ('pg_read_all_data', 'pg_write_all_data')
UNION ALL
SELECT format('runs are held by login %s, which may do all that the ledger''s owner may',
    l.credential),
  'give workers a login of their own with runfold_worker and `runfold access grant`', false
FROM given, (SELECT DISTINCT s.lease_credential AS credential FROM ledger.run_state AS s
  WHERE s.token IS NOT NULL) AS l JOIN pg_roles AS r ON r.rolname = l.credential
WHERE pg_has_role(r.oid, given.owner, 'MEMBER')
"""
_HELD: Final = """
SELECT format('process %s of login %s has left a transaction open for %s s, and holds what it '
    'changed or locked in the ledger', a.pid, a.usename,
    extract(epoch FROM clock_timestamp() - a.state_change)::int),
  format('SELECT pg_terminate_backend(%s)', a.pid), false
FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.state LIKE 'idle in transaction%'
  AND a.state_change < clock_timestamp() - $2::float8 * interval '1 second'
  AND EXISTS (
    SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
    WHERE l.pid = a.pid AND l.database = a.datid AND l.granted
      AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
      AND c.relnamespace = 'ledger'::regnamespace)
"""
# In pg_locks a prepared transaction has no process: it is the one that holds its own id.
_PREPARED: Final = """
SELECT format('prepared transaction %L of login %s holds what it changed or locked in the '
    'ledger, and ends with no session and no time limit', p.gid, p.owner),
  format('ROLLBACK PREPARED %L', p.gid), false
FROM pg_prepared_xacts AS p
WHERE p.database = current_database()
  AND p.prepared < clock_timestamp() - $2::float8 * interval '1 second'
  AND EXISTS (
    SELECT FROM pg_locks AS own
    JOIN pg_locks AS l ON l.virtualtransaction = own.virtualtransaction
    JOIN pg_class AS c ON c.oid = l.relation
    WHERE own.transactionid = p.transaction AND own.pid IS NULL AND l.pid IS NULL
      AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
      AND c.relnamespace = 'ledger'::regnamespace)
UNION ALL
SELECT format('the server lets %s transactions be prepared: a login that leaves one holds its '
    'locks beyond its session and every time limit', s.most),
  'where no program needs them: ALTER SYSTEM SET max_prepared_transactions = 0, and a restart',
  false
FROM (SELECT current_setting('max_prepared_transactions')::int AS most) AS s WHERE s.most > 0
"""
# A session that listens and leaves a transaction open keeps the queue from moving on, whatever its
# database: the server does not say which it is, but it is one of the oldest transactions.
_QUEUE: Final = """
SELECT format('the queue of NOTIFY is %s %% full, and when it is full workers poll only; a session '
    'that listens holds it, and process %s of login %s has had a transaction open for %s s',
    round(queue.usage * 100), a.pid, a.usename,
    extract(epoch FROM clock_timestamp() - a.xact_start)::int),
  format('SELECT pg_terminate_backend(%s)', a.pid), false
FROM (SELECT pg_notification_queue_usage() AS usage) AS queue CROSS JOIN LATERAL (
  SELECT s.* FROM pg_stat_activity AS s
  WHERE s.backend_type = 'client backend' AND s.pid <> pg_backend_pid()
    AND s.xact_start IS NOT NULL
  ORDER BY s.xact_start LIMIT 3
) AS a
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
_WIDE: Final = """
  SELECT format('policy %s of ledger.%s is changed, or not the ledger''s', p.polname, c.relname),
    '', true
  FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
  WHERE c.relnamespace = 'ledger'::regnamespace AND NOT c.relispartition
    AND starts_with(obj_description(p.oid, 'pg_policy'),
      pg_get_expr(p.polqual, p.polrelid) || ' from ') IS NOT TRUE
  UNION ALL
  SELECT format('%s has %s on ledger.%s', w.who, w.privilege_type, w.relname), '', true
  FROM (
    SELECT c.relname, a.privilege_type,
      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS who
    FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
    WHERE c.relnamespace = 'ledger'::regnamespace AND a.grantee <> c.relowner
  ) AS w
  WHERE w.who <> ALL ($1) OR w.privilege_type <> 'SELECT' AND NOT (w.who = 'runfold_projector'
    AND w.privilege_type = 'INSERT'
    AND (starts_with(w.relname, 'projection') OR starts_with(w.relname, 'rebuild')))
  UNION ALL
  SELECT DISTINCT format('%s may call ledger.%s',
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, f.proname),
    '', true
  FROM pg_proc AS f
  CROSS JOIN LATERAL aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) AS a
  WHERE f.pronamespace = 'ledger'::regnamespace AND a.grantee <> f.proowner
    AND (a.grantee = 0 OR pg_get_userbyid(a.grantee) <> ALL ($1))
  UNION ALL
  SELECT format('login %s has rights and no %s', session_user, string_agg(l.name, ', ')), '', true
  FROM given, ledger.login_limits() AS l, pg_roles AS r, pg_database AS d
  WHERE r.rolname = session_user AND d.datname = current_database()
    AND NOT pg_has_role(r.oid, given.owner, 'MEMBER')
    AND NOT EXISTS (
      SELECT FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c (setting)
      WHERE s.setrole IN (0, r.oid) AND s.setdatabase IN (0, d.oid)
        AND split_part(c.setting, '=', 1) = l.name)
  HAVING count(*) > 0
"""
_AT_START: Final = f"""
WITH {_GIVEN} SELECT * FROM (
  {_MONTHS} UNION ALL {_CODE} UNION ALL {_ROLES}
  UNION ALL
  SELECT DISTINCT format('row security of ledger.%s is off', c.relname), '', true
  FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
  WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p')
    AND NOT c.relispartition AND NOT c.relrowsecurity AND a.attname = 'project_id'
    AND NOT a.attisdropped
  UNION ALL
  SELECT format('trigger %s of ledger.%s does not always fire', t.tgname, c.relname), '', true
  FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
  WHERE c.relnamespace = 'ledger'::regnamespace AND NOT c.relispartition
    AND NOT t.tgisinternal AND t.tgenabled <> 'A'
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
