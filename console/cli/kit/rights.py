"""What a command asks of its login: rights in the project or in all of them, or the schema.

A rule is `read | audit` for one of these rights, `submit & read` for both; with a first `*` in all
projects. `owner` is the owner of the schema, and no text means that nothing is asked.
"""

from __future__ import annotations

from typing import Final

from runfold.ledger.access import EVERYWHERE
from runfold.ledger.errors import AccessDenied
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.postgres.opening import SPEAKER
from runfold.ledger.reading.permitted import check_may

OWNER: Final = "owner"
OWNERS: Final = "only the owner of the schema may; use the login that ran `runfold db upgrade`"


async def check(pool: Pool, rule: str, project_id: str = EVERYWHERE) -> None:
    """Raise AccessDenied unless the login has what a rule asks for.

    The functions of the database check each write again. It is asked up front because a read
    without the right finds nothing, and what is not found would be said not to exist.
    """
    if rule == OWNER:
        [row] = await fetch(pool, SPEAKER)
        if row["speaker"] is not None:
            raise AccessDenied(f"{row['speaker']} does not own the schema", OWNERS)
        return
    where = EVERYWHERE if rule.startswith("*") else project_id
    for rights in sets_of(rule):
        await check_may(pool, where, *rights)


def sets_of(rule: str) -> list[list[str]]:
    """Return the sets of rights of a rule, of each of which one is needed."""
    return [
        [right.strip() for right in part.split("|")]
        for part in rule.removeprefix("*").split("&")
        if part
    ]


def sentence(rule: str) -> str | None:
    """Return a rule as a sentence, for the help of a command; None for one that asks nothing."""
    if rule == OWNER:
        return "Only the owner of the schema may."
    return f"Needs the right {in_words(rule)}." if rule else None


def in_words(rule: str) -> str:
    """Return the rights of a rule, and where they are needed."""
    where = "all projects" if rule.startswith("*") else "the project"
    return f"{', and '.join(map(_one_of, sets_of(rule)))} in {where}"


def _one_of(rights: list[str]) -> str:
    *others, last = rights
    return f"{', '.join(others)} or {last}" if others else last
