"""`runfold roles list|grant|revoke|history`: who may decide approvals that ask for a role."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from runfold.console.cli.kit.options import WORKER, Actor, OrderReason, command, program
from runfold.console.cli.kit.session import Session
from runfold.ledger import roles
from runfold.ledger.roles import Member

app: Final = program("Grant and revoke the roles that approvals ask for.")

Role = Annotated[str, typer.Argument(metavar="ROLE", help="The role, as approvals name it.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The member: the actor of decisions.")]
Some = Annotated[str | None, typer.Argument(metavar="[ROLE]", help="Only this role.")]


@command(app, "list", rights="read | work | decide | audit | admin")
async def list_(session: Session, role: Some = None) -> None:
    """List the members of every role."""
    async with session.ledger() as ledger:
        members = await roles.members(ledger.pool, ledger.project_id, role)
    for member in members:
        _write(session, member)
    if not members:
        session.out.talk(
            "no members yet: runfold roles grant ROLE NAME"
            if role is None
            else f"nobody has the role {role}: runfold roles grant {role} NAME"
        )


@command(app, "grant", rights="admin", needs=WORKER)
async def grant(
    session: Session, role: Role, name: Name, *, actor: Actor = None, reason: OrderReason = None
) -> None:
    """Grant a role to a member."""
    async with session.ledger() as ledger:
        await ledger.grant_role(role, name, actor=actor, reason=reason)
        _write(session, (await roles.history(ledger.pool, ledger.project_id, role))[-1])


@command(app, "revoke", rights="admin", needs=WORKER)
async def revoke(
    session: Session, role: Role, name: Name, *, actor: Actor = None, reason: OrderReason = None
) -> None:
    """Revoke a role from a member."""
    async with session.ledger() as ledger:
        await ledger.revoke_role(role, name, actor=actor, reason=reason)
        _write(session, (await roles.history(ledger.pool, ledger.project_id, role))[-1])


@command(app, "history", rights="read | work | decide | audit | admin")
async def history(session: Session, role: Some = None) -> None:
    """Show who granted and revoked which role, when and why."""
    async with session.ledger() as ledger:
        events = await roles.history(ledger.pool, ledger.project_id, role)
    for event in events:
        _write(session, event)
    if not events:
        session.out.talk("no role was ever granted" if role is None else f"nobody ever had {role}")


def _write(session: Session, member: Member) -> None:
    if session.as_json:
        session.out.json(member)
        return
    why = "" if member.reason is None else f": {member.reason}"
    session.out.line(
        f"{member.recorded_at:%Y-%m-%d %H:%M:%S} {member.type} {member.role} {member.member} "
        f"by {member.actor}{why}"
    )
