"""Logins with rights that lack a limit on the server, each with the statement that sets it."""

from __future__ import annotations

from typing import Any, Final

from runfold.ledger.postgres.connections import fetch

_UNLIMITED: Final = """
SELECT format('login %s has rights and no %s', r.rolname,
    concat_ws(', ', CASE WHEN r.rolconnlimit < 0 THEN 'connection limit' END, lacking.names))
  AS lack,
  concat_ws('; ', CASE WHEN r.rolconnlimit < 0
    THEN format('ALTER ROLE %I CONNECTION LIMIT 100', r.rolname) END, lacking.remedy) AS remedy
FROM pg_namespace AS n JOIN pg_database AS d ON d.datname = current_database()
JOIN pg_roles AS r ON r.rolcanlogin AND NOT pg_has_role(r.oid, n.nspowner, 'MEMBER')
CROSS JOIN LATERAL (
  SELECT string_agg(l.name, ', ' ORDER BY l.name) AS names,
    string_agg(format('ALTER ROLE %I IN DATABASE %I SET %I = %L', r.rolname, d.datname, l.name,
      l.value), '; ' ORDER BY l.name) AS remedy
  FROM ledger.login_limits() AS l
  WHERE NOT EXISTS (
    SELECT FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c (setting)
    WHERE s.setrole IN (0, r.oid) AND s.setdatabase IN (0, d.oid)
      AND split_part(c.setting, '=', 1) = l.name)) AS lacking
WHERE n.nspname = 'ledger' AND ($1::text IS NULL OR r.rolname = $1)
  AND (r.rolconnlimit < 0 OR lacking.names IS NOT NULL)
  AND EXISTS (SELECT FROM ledger.access_grant AS g WHERE g.credential = r.rolname
    AND cardinality(g.rights) > 0 AND (g.until IS NULL OR g.until > ledger.now()))
ORDER BY r.rolname
"""


async def unlimited(source: Any, login: str | None = None) -> list[str]:
    """Return a line for each login that this one can see the grants of, or for one login."""
    rows = await fetch(source, _UNLIMITED, login)
    return [f"{row['lack']}: {row['remedy']}" for row in rows]
