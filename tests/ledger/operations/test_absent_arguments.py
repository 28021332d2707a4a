"""Each argument of each operation may be absent: it has a default, or is refused by name."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger
from tests.support.runs import claimed

INVALID = "22023"
RUN, TOKEN, FREE = "ARRAY[{run}::uuid]", "ARRAY[{token}]", "ARRAY[{free}::uuid]"
CALLS = {
    "submit": (
        "'test'", "'ann'", "'{parse}'", "'{null}'", "'{key}'", "'{0}'", "'{1 s}'", "'{3}'",
        "'{2100-01-01Z}'", "NULL", "NULL",
    ),
    "claim": ("'test'", "'w:1'", "'{parse}'", "1", "'1 min'"),
    "heartbeat": ("'test'", RUN, TOKEN, "'{1 min}'", "'{w:1}'"),
    "transition": (
        "'test'", "'{ann}'", RUN, TOKEN, "'{completed}'", "'{f}'", "'{n}'", "'{E-X}'", "'{null}'",
        "'{1}'", "'{1}'", "ARRAY[sha256('')]", "NULL", "NULL", "'{2}'", "'{key}'", "'{w:1}'",
    ),
    "transition of nobody's run": (
        "'test'", "'{ann}'", FREE, "'{null}'", "'{cancelled}'", "NULL", "NULL", "NULL", "NULL",
        "NULL", "NULL", "NULL", "NULL", "NULL", "'{1}'", "NULL",
    ),
    "requeue": (
        "'test'", "'lease.released'", RUN, TOKEN, "'{1 s}'", "'{E-X}'", "'{null}'", "'{w:1}'",
    ),
    "cancel": ("'test'", "'ann'", RUN, "'{{}}'"),
    "append": (
        "'test'", "'ann'", RUN, TOKEN, "'{note.added}'", "'{1}'", "'{n}'", "'{E-X}'", "'{null}'",
        "'{1}'", "'{1}'", "'{2}'", "'{key}'", "'{w:1}'",
    ),
    "signal": ("'test'", "'ann'", "{run}", "'name'", "'{{}}'", "'{{}}'", "'key'"),
    "refuse": ("'test'", "'ann'", "'complete'", RUN, TOKEN),
    "reap": ("'test'", "'reaper'", "10", "true"),
    "commands": (
        "'test'", RUN, "'{completed}'", "'{f}'", "'{n}'", "'{E-X}'", "'{null}'", "'{1}'", "'{1}'",
        "ARRAY[sha256('')]", "'{1 s}'", "'{timeout}'", "'{key}'",
    ),
    "closings": ("'test'", RUN, TOKEN),
    "change_kind": ("'test'", "'ann'", "'parse'", "'kind.paused'", "NULL", "'why'"),
    "change_access": ("'test'", "'ann'", "'login'", "'{work}'", "'{ann}'", "now()", "'why'"),
    "change_role": ("'test'", "'ann'", "'role.granted'", "'finance'", "'bob'", "'why'"),
    "change_token": ("'ann'", "'abc'", "sha256('')", "'name'", "'1 day'", "'why'"),
    "put_schedule": (
        "'test'", "'ann'", "'nightly'", "'parse'", "'{{}}'", "'0 3 * * *'", "'UTC'", "now()",
        "now()",
    ),
    "drop_schedule": ("'test'", "'ann'", "'nightly'"),
    "make_partitions": ("3",),
}  # fmt: skip
"""A call that is right, by its arguments. `null` in quotes and braces is the array's element."""


@pytest.mark.parametrize("call", CALLS)
async def test_an_absent_argument_has_a_default_or_is_refused(
    ledger: Ledger, connection: asyncpg.Connection[Any], call: str
) -> None:
    lease: Lease = await claimed(ledger)
    free = await ledger.submit("parse")
    filled = {"run": f"'{lease.run_id}'", "free": f"'{free.run_id}'", "token": lease.token}
    arguments = [_filled(one, filled) for one in CALLS[call]]

    surprises = []
    for place in range(-1, len(arguments)):
        for absent in ("NULL", "'{NULL}'") if place >= 0 else ("",):
            given = [absent if n == place else one for n, one in enumerate(arguments)]
            statement = f"SELECT ledger.{call.split(maxsplit=1)[0]}({', '.join(given)})"
            state = await _outcome(connection, statement)
            if not _is_named(state, right=place < 0):
                surprises.append((state, statement))
    assert not surprises, "\n".join(map(str, surprises))


def _filled(argument: str, values: dict[str, Any]) -> str:
    for name, value in values.items():
        argument = argument.replace("{" + name + "}", str(value))
    return argument.replace("{{}}", "{}")


def _is_named(state: str | None, *, right: bool) -> bool:
    if right:
        return state is None
    # 22P02, 22007: '{NULL}' where no array is asked for.
    return state in {None, INVALID, "22P02", "22007"} or str(state).startswith("RF")


async def _outcome(connection: asyncpg.Connection[Any], statement: str) -> str | None:
    """Return the SQLSTATE of what the statement raises, undone in any case."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    finally:
        await transaction.rollback()
    return None
