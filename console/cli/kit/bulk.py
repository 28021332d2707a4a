"""One confirmed action on every run that fits a query: what `cancel` and `rerun` share."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.confirmation import agreed
from runfold.console.cli.kit.exits import CONFLICT, ERROR, OK
from runfold.console.cli.kit.session import Session
from runfold.console.shared.bulk import Action, Preview, batch, bulk_of, preview
from runfold.console.shared.plain import clean
from runfold.console.shared.values import Misuse
from runfold.ledger import Ledger
from runfold.ledger.reading.permitted import check_may

_DONE: Final = {"cancel": "cancelled", "rerun": "submitted"}
Query = Annotated[
    str | None,
    typer.Option(
        "--query", metavar="QUERY", help="Every run that fits, such as 'kind:review since:24h'."
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--count", metavar="N", help="How many runs you expect; another number is refused."
    ),
]


async def act_on_all(
    session: Session,
    action: Action,
    query: str,
    *,
    reason: str | None,
    actor: str | None,
    count: int | None,
) -> int:
    """Act on every run that fits a query, batch by batch, and print what became of each.

    Raises Misuse without a reason, or without the right count where nobody can be asked.
    """
    if reason is None:
        raise Misuse("--reason", "a query needs one; it is recorded with every run")
    async with session.ledger() as ledger:
        await check_may(ledger.pool, ledger.project_id, "read")
        counted = await preview(ledger, await bulk_of(ledger, action, query))
        matching = counted.matching if counted.is_all else None
        if not agreed(action, counted.in_words, matching=matching, count=count):
            return ERROR
        done, refused = await _act(session, ledger, counted, reason, actor)
    session.out.talk(f"{done:,} {_DONE[action]}, {refused:,} refused")
    return CONFLICT if refused else OK


async def _act(
    session: Session, ledger: Ledger, counted: Preview, reason: str, actor: str | None
) -> tuple[int, int]:
    done = refused = 0
    older = None
    while True:
        part = await batch(ledger, counted.bulk, reason=reason, actor=actor, before=older)
        for outcome in part.outcomes:
            done, refused = done + outcome.is_done, refused + (not outcome.is_done)
            if session.as_json:
                session.out.json(outcome)
                continue
            new = f" as {outcome.new_run_id}" if outcome.new_run_id else ""
            session.out.line(f"{outcome.run_id} {clean(outcome.what)}{new}")
        older = part.older
        if older is None:
            return done, refused
