"""Logins with rights that lack a limit on the server, each with the statement that sets it."""

from __future__ import annotations

from typing import Any, Final

from runfold.ledger.postgres.connections import fetch

LACKS: Final = """NOT EXISTS (
  SELECT FROM pg_db_role_setting AS stored CROSS JOIN unnest(stored.setconfig) AS each (setting)
  WHERE stored.setrole IN (0, login.oid) AND stored.setdatabase IN (0, database.oid)
    AND split_part(each.setting, '=', 1) = bound.name)"""
"""Whether nothing sets the `bound` for a `login` in a `database`."""
_UNLIMITED: Final = f"""
SELECT format('login %s has rights and no %s', login.rolname,
    concat_ws(', ', CASE WHEN login.rolconnlimit < 0 THEN 'connection limit' END, lacking.names))
  AS lack,
  concat_ws('; ', CASE WHEN login.rolconnlimit < 0
    THEN format('ALTER ROLE %I CONNECTION LIMIT 100', login.rolname) END, lacking.remedy) AS remedy
FROM pg_namespace AS schema JOIN pg_database AS database ON database.datname = current_database()
JOIN pg_roles AS login ON login.rolcanlogin
  AND NOT pg_has_role(login.oid, schema.nspowner, 'MEMBER')
CROSS JOIN LATERAL (
  SELECT string_agg(bound.name, ', ' ORDER BY bound.name) AS names,
    string_agg(format('ALTER ROLE %I IN DATABASE %I SET %I = %L', login.rolname, database.datname,
      bound.name, bound.value), '; ' ORDER BY bound.name) AS remedy
  FROM ledger.login_limits() AS bound
  WHERE {LACKS}) AS lacking
WHERE schema.nspname = 'ledger' AND ($1::text IS NULL OR login.rolname = $1)
  AND (login.rolconnlimit < 0 OR lacking.names IS NOT NULL)
  AND EXISTS (SELECT FROM ledger.access_grant AS granted WHERE granted.credential = login.rolname
    AND cardinality(granted.rights) > 0 AND (granted.until IS NULL OR granted.until > ledger.now()))
ORDER BY login.rolname
"""


async def unlimited(source: Any, login: str | None = None) -> list[str]:
    """Return a line for each login that this one can see the grants of, or for one login."""
    rows = await fetch(source, _UNLIMITED, login)
    return [f"{row['lack']}: {row['remedy']}" for row in rows]
