"""`runfold access`: what logins and API tokens may do in the project, and what was changed."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from runfold.console.cli.kit import exits
from runfold.console.cli.kit.options import OWNER, WORKER, Actor, OrderReason, command, program
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import moment
from runfold.console.shared.values import Misuse
from runfold.ledger import access, api_tokens, payload_reads
from runfold.ledger.access import Grant
from runfold.ledger.api_tokens import ApiToken
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
    datetime | None, typer.Option("--until", metavar="TIME", help="The end of the grant, in UTC.")
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
        session.out.talk("no grants: only the owner's login may do anything here")


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
            until=None if until is None else until.replace(tzinfo=until.tzinfo or UTC),
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
    """Revoke all rights of a login or token in the project."""
    async with session.ledger() as ledger:
        await access.revoke(
            ledger.project, credential, everywhere=everywhere, actor=actor, reason=reason
        )
    if session.as_json:
        session.out.json({"credential": credential, "revoked": True})
    session.out.talk(f"revoked what {credential} might do")


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
                    session.out.json(asdict(event))
                else:
                    why = "" if event.reason is None else f": {event.reason}"
                    session.out.line(
                        f"{event.number} {event.recorded_at:%Y-%m-%d %H:%M:%S} {event.type}"
                        f" {event.subject} by {event.actor} as {event.credential}{why}"
                    )


@command(app, "reads", rights="audit")
async def reads(
    session: Session,
    *,
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Only of this run.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="At most this many, up to 10,000.")
    ] = 100,
) -> None:
    """Show who read the content of which run by the API and the pages, the newest first."""
    async with session.ledger() as ledger:
        run_id = None if run is None else await find_run(ledger, run)
        listed = await payload_reads.reads(ledger.project, run_id=run_id, limit=limit)
    for entry in listed:
        if session.as_json:
            session.out.json(asdict(entry))
        else:
            session.out.line(
                f"{entry.read_at:%Y-%m-%d %H:%M} {entry.run_id} by"
                f" {entry.credential}: {entry.route}"
            )
    if not listed:
        session.out.talk("nobody read the content of a run by the API or the pages")


@command(app, "drop-reads", rights="owner", needs=OWNER)
async def drop_reads(
    session: Session,
    before: Annotated[
        datetime,
        typer.Argument(
            metavar="TIME", help="In UTC, at least 184 days ago; those from before it are deleted."
        ),
    ],
    *,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Delete old records of who read what, on record in the control history."""
    async with session.ledger() as ledger:
        moment = before.replace(tzinfo=before.tzinfo or UTC)
        dropped = await payload_reads.drop_reads(ledger.project, moment, actor=actor, reason=reason)
    if session.as_json:
        session.out.json({"before": moment, "dropped": dropped})
    else:
        session.out.line(f"{dropped:,} records of reads from before {moment:%Y-%m-%d %H:%M} UTC")


@command(app, "token", rights="*admin", needs=WORKER)
async def token(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the token is for.")],
    *,
    days: Annotated[int, typer.Option("--days", metavar="DAYS", help="Its life in days.")] = 90,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Make an API token and print its secret, this once."""
    async with session.ledger() as ledger:
        credential, secret = await api_tokens.make_token(
            ledger.project, name, days=days, actor=actor, reason=reason
        )
    if session.as_json:
        session.out.json({"credential": credential, "secret": secret})
        return
    session.out.line(secret)
    session.out.talk(f"grant it rights: runfold access grant {credential} --rights ...")


@command(app, "tokens", rights="*audit | admin")
async def tokens(session: Session) -> None:
    """List the API tokens, the oldest first, without their secrets."""
    async with session.ledger() as ledger:
        after = ""
        while listed := await api_tokens.tokens(ledger.project, after=after):
            after = listed[-1].token_id
            for entry in listed:
                _write_token(session, entry)


@command(app, "revoke-token", rights="*admin", needs=WORKER)
async def revoke_token(
    session: Session,
    token_id: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, or token:ID.")],
    *,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Revoke an API token: its secret lets nobody in any more."""
    async with session.ledger() as ledger:
        revoked = await api_tokens.revoke_token(
            ledger.project, token_id, actor=actor, reason=reason
        )
    if session.as_json:
        session.out.json({"token_id": token_id, "revoked": revoked})
    session.out.talk(f"revoked {token_id}" if revoked else f"{token_id} is not a token in use")
    if not revoked:
        raise typer.Exit(exits.ERROR)


def _write_token(session: Session, entry: ApiToken) -> None:
    if session.as_json:
        session.out.json(asdict(entry))
        return
    state = "revoked" if entry.revoked_at else f"until {entry.expires_at:%Y-%m-%d}"
    session.out.line(
        f"{entry.credential} {entry.name}: {state}, {entry.failed_uses} failed uses,"
        f" last used {moment(entry.last_used_at) if entry.last_used_at else 'never'}"
    )


def _write(session: Session, entry: Grant) -> None:
    if session.as_json:
        session.out.json(asdict(entry))
        return
    until = "" if entry.until is None else f" until {entry.until:%Y-%m-%d %H:%M}"
    session.out.line(
        f"{entry.credential} in {entry.project_id}: {', '.join(entry.rights)};"
        f" as {', '.join(entry.actors)}{until}"
    )
