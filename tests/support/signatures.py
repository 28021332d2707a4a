"""The functions that a login may call, and the record of them for each schema revision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg

FUNCTIONS_FILE = Path(__file__).parents[1] / "ledger" / "postgres" / "functions.json"
Functions = Mapping[str, Any]
_CALLABLE = """
SELECT p.proname AS name, p.pronargdefaults AS defaults, p.proretset AS set,
  format_type(p.prorettype, NULL) AS result,
  (SELECT json_agg(json_build_array(a.name, format_type(a.type, NULL), coalesce(a.mode, 'i'))
     ORDER BY a.number)
   FROM ROWS FROM (unnest(p.proargnames), unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])),
     unnest(p.proargmodes)) WITH ORDINALITY AS a (name, type, mode, number)) AS parameters
FROM pg_proc AS p
WHERE p.pronamespace = 'ledger'::regnamespace AND EXISTS (
  SELECT FROM unnest(ARRAY['runfold_worker', 'runfold_reader', 'runfold_projector']) AS r (role)
  WHERE has_function_privilege(r.role, p.oid, 'EXECUTE'))
ORDER BY p.proname, p.oid
"""


async def callable_functions(connection: asyncpg.Connection) -> Functions:
    """Return the functions by name; raise AssertionError for a name with two functions."""
    functions: dict[str, Any] = {}
    for row in await connection.fetch(_CALLABLE):
        parameters = json.loads(row["parameters"] or "[]")
        given = [[name, type_] for name, type_, mode in parameters if mode == "i"]
        columns = [[name, type_] for name, type_, mode in parameters if mode != "i"]
        assert row["name"] not in functions, f"{row['name']} is there twice: calls are ambiguous"
        functions[row["name"]] = {
            "parameters": given,
            "required": len(given) - row["defaults"],
            "returns": columns or [["setof " if row["set"] else "", row["result"]]],
        }
    return functions


def broken_calls(before: Functions, now: Functions) -> Iterator[str]:
    """Name what code that knows the functions as they were before cannot call or read any more."""
    for name, old in before.items():
        new = now.get(name)
        if new is None:
            yield f"{name} is gone"
            continue
        known = len(old["parameters"])
        if new["parameters"][:known] != old["parameters"]:
            yield f"{name} takes other parameters"
        if new["required"] > old["required"]:
            yield f"{name} needs more parameters"
        if [column for column in old["returns"] if column not in new["returns"]]:
            yield f"{name} returns less"


def recorded() -> dict[str, Functions]:
    """Read the record: functions by revision."""
    return dict(json.loads(FUNCTIONS_FILE.read_text())) if FUNCTIONS_FILE.exists() else {}


def record(revision: str, functions: Functions) -> None:
    """Write the functions of a revision, one to a line, beside those of the others."""
    blocks = []
    for key, known in sorted({**recorded(), revision: functions}.items()):
        lines = ",\n".join(f"    {json.dumps(n)}: {json.dumps(f)}" for n, f in known.items())
        blocks.append(f'  "{key}": {{\n{lines}\n  }}')
    FUNCTIONS_FILE.write_text("{\n" + ",\n".join(blocks) + "\n}\n")
