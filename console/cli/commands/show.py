"""`runfold show` and `runfold state`: one run as it is, or as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runfold.console.cli.kit.options import RunId, command
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.plain import clean, compact, moment, money, pretty, relative
from runfold.console.cli.kit.session import Session

if TYPE_CHECKING:
    from datetime import datetime

    from runfold.ledger import Run


async def show(session: Session, run: RunId) -> None:
    """Show a run: its state, lease, last failure, input and output, and on standard error what to do next."""
    from runfold.console.cli.kit.run_id import find_run

    async with session.ledger() as ledger:
        found = await ledger.get(await find_run(ledger, run))
    _write(session.out, found)
    for hint in hints(found):
        session.out.talk(hint)


async def state(
    session: Session,
    run: RunId,
    *,
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="VERSION|TIME",
            help="After this event, or at this time (with its zone).",
        ),
    ],
) -> None:
    """Show a run as it was after an event or at a time: the fold over fewer events."""
    from runfold.console.cli.kit.run_id import find_run
    from runfold.console.cli.kit.values import version_or_instant

    when = version_or_instant(at)
    async with session.ledger() as ledger:
        wanted = await find_run(ledger, run)
        if isinstance(when, int):
            found = await ledger.state_at(wanted, when)
        else:
            found = await ledger.state_at(wanted, time=when)
    _write(session.out, found)


def _write(out: Output, run: Run) -> None:
    if out.as_json:
        out.json(run)
        return
    for name, value in header(run):
        out.line(f"{name:<9} {value}")
    for name, content in (("input", run.input), ("output", run.output)):
        if content is not None:
            out.line(f"{name}\n{pretty(content)}")


def header(run: Run) -> list[tuple[str, str]]:
    """Write what is worth a line: a name and a value each, without the content."""
    lines = [
        ("run", str(run.run_id)),
        ("kind", clean(run.kind)),
        ("state", f"{run.state}{' (parked)' if run.is_parked else ''}, version {run.version}"),
        ("attempt", f"{run.attempt_count} of {run.max_attempts}"),
        ("priority", str(run.priority)),
        ("submitted", _when(run.created_at)),
        ("started", _when(run.started_at)),
        ("ended", _when(run.completed_at)),
        ("changed", _when(run.updated_at) if run.completed_at is None else ""),
        ("claimable", f"from {_when(run.available_at)}" if run.available_at else ""),
        ("lease", _lease(run)),
        ("approval", f"undecided ends {_when(run.wait_until)}" if run.wait_until else ""),
        ("deadline", _when(run.deadline)),
        (
            "cancel",
            f"requested {_when(run.cancel_requested_at)}" if run.cancel_requested_at else "",
        ),
        ("failure", _failure(run)),
        ("cost", f"{money(run.cost_usd)}, {run.step_count} steps"),
        ("tags", ", ".join(clean(tag) for tag in run.tags)),
        ("key", clean(run.key or "")),
        (
            "sha256",
            f"{run.output_sha256} (of an output kept elsewhere)" if run.output_sha256 else "",
        ),
        ("hash", run.hash.hex()),
    ]
    return [(name, value) for name, value in lines if value]


def _when(value: datetime | None) -> str:
    return f"{moment(value)} ({relative(value)})" if value is not None else ""


def _lease(run: Run) -> str:
    if run.token is None or run.lease_until is None:
        return ""
    return f"{clean(run.worker_id)} under token {run.token}, until {_when(run.lease_until)}"


def _failure(run: Run) -> str:
    detail = compact(run.error_detail, 500) if run.error_detail is not None else ""
    return "  ".join(part for part in (clean(run.error_code or ""), detail) if part)


def hints(run: Run) -> list[str]:
    """Say what can be done next."""
    from datetime import UTC, datetime

    watch = f"to watch it: runfold history {run.run_id} --follow"
    if run.is_terminal:
        return [
            f"its whole history: runfold history {run.run_id}",
            f"to check it: runfold verify {run.run_id}",
        ]
    if run.lease_until is not None and run.lease_until < datetime.now(UTC):
        return ["its lease has ended; a reaper repairs it: runfold reap --once", watch]
    if run.cancel_requested_at is not None:
        return ["its worker learns of the cancellation with its next heartbeat", watch]
    if run.state == "waiting_approval" and run.available_at is None:
        return [
            f"it waits for you: runfold approve {run.run_id}, or runfold reject {run.run_id} --reason ..."
        ]
    if run.available_at is not None and run.available_at <= datetime.now(UTC):
        return [f"it waits for a worker that takes kind {clean(run.kind)!r}", watch]
    return [watch]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "show", panel="Runs")(show)
    command(app, "state", panel="Runs")(state)
