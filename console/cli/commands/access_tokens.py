"""`runfold access token|tokens|revoke-token`: API tokens, which let programs in."""

from __future__ import annotations

from typing import Annotated

import typer

from runfold.console.cli.kit import exits
from runfold.console.cli.kit.options import WORKER, Actor, OrderReason, command
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import moment
from runfold.ledger import api_tokens
from runfold.ledger.api_tokens import ApiToken


async def token(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the token is for.")],
    *,
    days: Annotated[int, typer.Option("--days", metavar="DAYS", help="Its life in days.")] = 90,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Make an API token and print its secret, this once."""
    async with session.all_projects() as project:
        credential, secret = await api_tokens.make_token(
            project, name, days=days, actor=actor, reason=reason
        )
    if session.as_json:
        session.out.json({"credential": credential, "secret": secret})
        return
    session.out.line(secret)
    session.out.talk(f"grant it rights: runfold access grant {credential} --rights ...")


async def tokens(session: Session) -> None:
    """List the API tokens, the oldest first, without their secrets."""
    async with session.all_projects() as project:
        after = ""
        while listed := await api_tokens.tokens(project, after=after):
            after = listed[-1].token_id
            for entry in listed:
                _write_token(session, entry)
    if not after:
        session.out.talk("no API tokens: make one with runfold access token NAME")


async def revoke_token(
    session: Session,
    token_id: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, or token:ID.")],
    *,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Revoke an API token: its secret lets nobody in any more."""
    async with session.all_projects() as project:
        revoked = await api_tokens.revoke_token(project, token_id, actor=actor, reason=reason)
    if session.as_json:
        session.out.json({"token_id": token_id, "revoked": revoked})
    session.out.talk(f"revoked {token_id}" if revoked else f"{token_id} is not a token in use")
    if not revoked:
        raise typer.Exit(exits.ERROR)


def _write_token(session: Session, entry: ApiToken) -> None:
    if session.as_json:
        session.out.json(entry)
        return
    state = "revoked" if entry.revoked_at else f"until {entry.expires_at:%Y-%m-%d}"
    session.out.line(
        f"{entry.credential} {entry.name}: {state}, {entry.failed_uses} failed uses,"
        f" last used {moment(entry.last_used_at) if entry.last_used_at else 'never'}"
    )


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "token", rights="*admin", needs=WORKER)(token)
    command(app, "tokens", rights="*audit | admin")(tokens)
    command(app, "revoke-token", rights="*admin", needs=WORKER)(revoke_token)
