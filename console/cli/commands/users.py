"""`runfold users`: who signs in to the pages, and which sessions they have."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated, Final

import typer

from runfold.console.cli.kit import exits
from runfold.console.cli.kit.options import WORKER, Actor, OrderReason, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import moment
from runfold.ledger import sessions as web_sessions
from runfold.ledger import users
from runfold.ledger.errors import InvalidValue

app: Final = program("Manage who signs in to the pages.")
_LINE: Final = 4 * users.MAX_PASSWORD

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name; user:NAME in grants.")]
Issuer = Annotated[
    str | None,
    typer.Option("--issuer", metavar="URL", help="The identity provider that knows the user."),
]
Subject = Annotated[
    str | None,
    typer.Option("--subject", metavar="TEXT", help="How the provider names the user (sub)."),
]


@command(app, "list", rights="*audit | admin")
async def list_(session: Session) -> None:
    """List the users, by name."""
    async with session.all_projects() as project:
        after = ""
        while listed := await users.users(project, after=after):
            after = listed[-1].name
            for user in listed:
                _write(session, user)
    if not after:
        session.out.talk("no users: add one with runfold users add NAME")


def _write(session: Session, user: users.User) -> None:
    if session.as_json:
        session.out.json(user)
        return
    how = "password" if user.issuer is None else f"{user.subject} of {user.issuer}"
    state = ", disabled" if user.disabled_at else ""
    session.out.line(
        f"{user.credential}: {how}{state}, {user.failed_tries} failed tries,"
        f" last signed in {moment(user.last_used_at) if user.last_used_at else 'never'}"
    )


@command(app, "add", rights="*admin", needs=WORKER)
async def add(
    session: Session,
    name: Name,
    *,
    issuer: Issuer = None,
    subject: Subject = None,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Add a user, without any right; the password is asked for, or is the first line of stdin.

    With --issuer and --subject the user signs in by an identity provider and has no password.
    """
    if (issuer is None) != (subject is None):
        raise InvalidValue("issuer", issuer, "must come with --subject, and --subject with it")
    plain = users.check_name(name)
    provider = None if issuer is None or subject is None else (issuer, subject)
    password = None if provider else _password()
    async with session.all_projects() as project:
        added = await users.add(
            project, plain, password=password, provider=provider, actor=actor, reason=reason
        )
    _tell(session, plain, changed=added, no=f"{plain} exists already, or the subject does")
    session.out.talk(f"grant rights: runfold access grant user:{plain} --rights read")


@command(app, "password", rights="*admin", needs=WORKER)
async def password(
    session: Session, name: Name, *, actor: Actor = None, reason: OrderReason = None
) -> None:
    """Replace a user's password, read as by `add`, and end the user's sessions."""
    users.check_name(name)
    chosen = _password()
    async with session.all_projects() as project:
        changed = await users.set_password(project, name, chosen, actor=actor, reason=reason)
    _tell(session, name, changed=changed, no=f"there is no user {name}")


@command(app, "disable", rights="*admin", needs=WORKER)
async def disable(
    session: Session, name: Name, *, actor: Actor = None, reason: OrderReason = None
) -> None:
    """Disable a user, and end the user's sessions at once."""
    async with session.all_projects() as project:
        changed = await users.disable(project, name, actor=actor, reason=reason)
    _tell(session, name, changed=changed, no=f"{name} is not a user who may sign in")


@command(app, "enable", rights="*admin", needs=WORKER)
async def enable(
    session: Session, name: Name, *, actor: Actor = None, reason: OrderReason = None
) -> None:
    """Enable a disabled user again."""
    async with session.all_projects() as project:
        changed = await users.enable(project, name, actor=actor, reason=reason)
    _tell(session, name, changed=changed, no=f"{name} is not a disabled user")


@command(app, "sessions", rights="*audit | admin")
async def sessions(session: Session) -> None:
    """List the sessions that hold, without their secrets."""
    async with session.all_projects() as project:
        listed = await web_sessions.sessions(project)
    if not listed:
        session.out.talk("no sessions: nobody is signed in to the pages")
    for entry in listed:
        if session.as_json:
            session.out.json(entry)
            continue
        session.out.line(
            f"{entry.session_id} {entry.credential}: since {entry.created_at:%Y-%m-%d %H:%M}, used"
            f" {entry.last_used_at:%H:%M}, until {entry.expires_at:%Y-%m-%d %H:%M}"
        )


@command(app, "end-session", rights="*admin", needs=WORKER)
async def end_session(
    session: Session,
    session_id: Annotated[str, typer.Argument(metavar="SESSION", help="Its id, from sessions.")],
) -> None:
    """End a session at once."""
    async with session.all_projects() as project:
        ended = await web_sessions.end_by_id(project, session_id)
    _tell(session, session_id, changed=ended, no=f"{session_id} is not an open session")


def _password() -> str:
    """Return the password: asked for twice at a terminal, else the first line of stdin."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline(_LINE)
        return line.removesuffix("\n").removesuffix("\r")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise InvalidValue("password", "...", "was not the same both times: try again")
    return first


def _tell(session: Session, name: str, *, changed: bool, no: str) -> None:
    if session.as_json:
        session.out.json({"name": name, "changed": changed})
    if not changed:
        session.out.talk(no)
        raise typer.Exit(exits.ERROR)
