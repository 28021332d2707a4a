"""`runfold roles list|grant|revoke|history`: who may decide approvals that ask for a role."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runfold.console.cli.kit.options import Actor, command
from runfold.console.cli.kit.plain import clean
from runfold.console.cli.kit.session import Session

if TYPE_CHECKING:
    from runfold.ledger.roles import Member

app: Final = typer.Typer(
    help="Roles: who may decide approvals that ask for one.", no_args_is_help=True
)

Role = Annotated[str, typer.Argument(metavar="ROLE", help="The role, as approvals name it.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Who: the actor of decisions.")]
Some = Annotated[str | None, typer.Argument(metavar="[ROLE]", help="Only this role.")]
Why = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Why; kept in the history of the roles."),
]


@command(app, "list")
async def list_(session: Session, role: Some = None) -> None:
    """List who has which role."""
    from runfold.ledger import roles

    async with session.ledger() as ledger:
        found = await roles.members(ledger.pool, ledger.project_id, role)
    for member in found:
        _say(session, member)
    if not found:
        session.out.talk("nobody has a role: runfold roles grant ROLE NAME")


@command(app, "grant")
async def grant(
    session: Session, role: Role, name: Name, *, actor: Actor = None, reason: Why = None
) -> None:
    """Give somebody a role."""
    from runfold.ledger import roles

    async with session.ledger() as ledger:
        await roles.grant(
            ledger.pool, ledger.project_id, role, name, actor=actor or ledger.actor, reason=reason
        )
        _say(session, (await roles.history(ledger.pool, ledger.project_id, role))[-1])


@command(app, "revoke")
async def revoke(
    session: Session, role: Role, name: Name, *, actor: Actor = None, reason: Why = None
) -> None:
    """Take a role from somebody."""
    from runfold.ledger import roles

    async with session.ledger() as ledger:
        await roles.revoke(
            ledger.pool, ledger.project_id, role, name, actor=actor or ledger.actor, reason=reason
        )
        _say(session, (await roles.history(ledger.pool, ledger.project_id, role))[-1])


@command(app, "history")
async def history(session: Session, role: Some = None) -> None:
    """Tell who granted and revoked which role, when and why."""
    from runfold.ledger import roles

    async with session.ledger() as ledger:
        for event in await roles.history(ledger.pool, ledger.project_id, role):
            _say(session, event)


def _say(session: Session, member: Member) -> None:
    if session.as_json:
        session.out.json(asdict(member))
        return
    why = "" if member.reason is None else f": {clean(member.reason)}"
    session.out.line(
        f"{member.recorded_at:%Y-%m-%d %H:%M:%S} {member.type} {clean(member.role)} {clean(member.member)} "
        f"by {clean(member.actor)}{why}"
    )
