"""`runfold access`: what logins and API tokens may do in the project, and what was changed."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from runfold.console.cli.commands import access_reads, access_tokens
from runfold.console.cli.kit import exits
from runfold.console.cli.kit.options import WORKER, Actor, OrderReason, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.shared.values import Misuse, day_or_instant
from runfold.ledger import access
from runfold.ledger.access import Grant
from runfold.ledger.control_history import control_history
from runfold.ledger.postgres.login_limits import unlimited
from runfold.ledger.reading.permitted import check_may

app: Final = program("Show and grant what logins and API tokens may do.")

Credential = Annotated[
    str, typer.Argument(metavar="CREDENTIAL", help="A login, or token:ID of an API token.")
]
Some = Annotated[
    str | None, typer.Argument(metavar="[CREDENTIAL]", help="Only this login or token.")
]
Rights = Annotated[
    str,
    typer.Option(
        "--rights", metavar="LIST", help=f"Some of {', '.join(access.RIGHTS)}, with commas."
    ),
]
Actors = Annotated[
    list[str] | None,
    typer.Option(
        "--as",
        metavar="ACTOR",
        help="An actor it may speak for, once for each; a final * stands for any end. Default: its "
        "own name.",
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="The end of the grant, in UTC.")
]
Everywhere = Annotated[
    bool, typer.Option("--all-projects", help="In every project, also in those to come.")
]


@command(app, "list", rights="")
async def list_(session: Session, credential: Some = None) -> None:
    """List who may do what in the project."""
    async with session.ledger() as ledger:
        grants = await access.grants(ledger.project, credential)
    for entry in grants:
        _write(session, entry)
    if not grants:
        nobody = "no grants: only the owner's login may do anything here"
        session.out.talk(nobody if credential is None else f"{credential} has no grant here")


@command(app, "grant", rights="admin", needs=WORKER)
async def grant(
    session: Session,
    credential: Credential,
    *,
    rights: Rights,
    actors: Actors = None,
    until: Until = None,
    everywhere: Everywhere = False,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Grant rights to a login or token, in place of those that it has in the project."""
    for name in actors or ():
        if "," in name:  # as the rights are listed
            raise Misuse("--as", f"{name!r} has a comma: give --as once for each actor")
    async with session.ledger() as ledger:
        await access.grant(
            ledger.project,
            credential,
            [right.strip() for right in rights.split(",")],
            actors=actors or None,
            until=None if until is None else day_or_instant("--until", until),
            everywhere=everywhere,
            actor=actor,
            reason=reason,
        )
        for entry in await access.grants(ledger.project, credential):
            _write(session, entry)
        if await access.is_stranger(ledger.project, credential):
            what = "token or user" if ":" in credential else "login of this server yet"
            session.out.talk(f"{credential} is not a {what}: grant again once it is made")
        for lacking in await unlimited(ledger.pool, credential):
            session.out.talk(lacking)


@command(app, "revoke", rights="admin", needs=WORKER)
async def revoke(
    session: Session,
    credential: Credential,
    *,
    everywhere: Everywhere = False,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Revoke all rights of a login or token in the project, and name those that it keeps.

    A grant in all projects is revoked with --all-projects alone.
    """
    async with session.ledger() as ledger:
        place = access.EVERYWHERE if everywhere else ledger.project_id
        had = await access.grants_of(ledger.pool, credential)
        await access.revoke(  # also of nothing: it takes back a login's right to connect
            ledger.project, credential, everywhere=everywhere, actor=actor, reason=reason
        )
    kept = [entry for entry in had if entry.project_id != place]
    if session.as_json:
        session.out.json(
            {
                "credential": credential,
                "revoked": kept != had,
                "kept": [entry.project_id for entry in kept],
            }
        )
    elif kept != had:
        session.out.talk(f"revoked what {credential} might do in {place}")
    else:
        session.out.talk(f"nothing new: {credential} had no rights in {place}")
    for entry in kept:
        session.out.talk(_kept(entry))


def _kept(entry: Grant) -> str:
    everywhere = entry.project_id == access.EVERYWHERE
    words = ["runfold", *([] if everywhere else ["--project", entry.project_id])]
    words += ["access", "revoke", entry.credential, *(["--all-projects"] if everywhere else [])]
    return (
        f"{entry.credential} keeps {', '.join(entry.rights)} in {entry.project_id}: "
        f"{shlex.join(words)}"
    )


@command(app, "check", rights="")
async def check(
    session: Session,
    right: Annotated[str, typer.Argument(metavar="RIGHT", help="One of the rights.")],
    *,
    actor: Actor = None,
) -> None:
    """Check whether this login has a right in the project, and may speak for an actor."""
    async with session.ledger() as ledger:
        refused = await access.check(ledger.project, right, actor)
        speaker = ledger.project.speaker or "the owner's login"
    if session.as_json:
        session.out.json({"right": right, "allowed": refused is None, "reason": refused})
    elif refused is None:
        session.out.line(f"{speaker} has the right {right}")
    else:
        session.out.talk(refused)
    if refused is not None:
        raise typer.Exit(exits.ERROR)


@command(app, "history", rights="audit")
async def history(session: Session, *, everywhere: Everywhere = False) -> None:
    """Show every change of grants, kinds, roles, schedules, archives and tokens."""
    async with session.ledger() as ledger:
        if everywhere:
            await check_may(ledger.pool, access.EVERYWHERE, "audit")
        after = 0
        while events := await control_history(ledger.project, after=after, everywhere=everywhere):
            after = events[-1].number
            for event in events:
                if session.as_json:
                    session.out.json(event)
                else:
                    why = "" if event.reason is None else f": {event.reason}"
                    session.out.line(
                        f"{event.number} {event.recorded_at:%Y-%m-%d %H:%M:%S} {event.type}"
                        f" {event.subject} by {event.actor} as {event.credential}{why}"
                    )


def _write(session: Session, entry: Grant) -> None:
    if session.as_json:
        session.out.json(entry)
        return
    session.out.line(
        f"{entry.credential} in {entry.project_id}: {', '.join(entry.rights)};"
        f" as {', '.join(entry.actors)}{_end(entry.until)}"
    )


def _end(until: datetime | None) -> str:
    if until is None:
        return ""
    return f"{', ended' if until <= datetime.now(UTC) else ' until'} {until:%Y-%m-%d %H:%M}"


access_reads.register(app)
access_tokens.register(app)
