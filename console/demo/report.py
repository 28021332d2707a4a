"""The demo's output: progress while it runs, and the evidence at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from runfold.console.cli.kit.output import UNBOUNDED
from runfold.console.cli.kit.wrapping import entry
from runfold.console.demo.outcome import Outcome, States, facts_of
from runfold.console.shared.plain import clean, number_of
from runfold.ledger import State
from runfold.ledger.events import Event
from runfold.ledger.lifecycle import TERMINAL
from runfold.ledger.reading.report import Report

_FACTS: Final = {
    "attempt": "attempt {}",
    "token": "token {}",
    "late_ms": "{} ms late",
    "compensates": "compensates v{}",
    "error_code": "{}",
    "error_detail": "{}",
    "name": "{}",
    "cost_usd": "${}",
    "prompt": "{}",
    "reason": "{}",
}
STYLES: Final = {"lease.expired": "bold red", "run.completed": "green", "run.cancelled": "yellow"}


class Talk:
    """Reports the demo's progress on standard error."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress
        self._bar = progress.add_task("starting PostgreSQL", total=None)

    def say(self, line: str) -> None:
        """Print one thing that happened."""
        self._console.print(clean(line), highlight=False, markup=False, soft_wrap=True)

    def show(self, states: States, total: int) -> None:
        """Show how many runs are in each state."""
        done = sum(count for state, count in states.items() if state in TERMINAL)
        open_ = [
            f"{count} {state}" for state, count in sorted(states.items()) if state not in TERMINAL
        ]
        self._progress.update(
            self._bar, completed=done, total=total, description=", ".join(open_) or "all ended"
        )


@contextmanager
def talking() -> Iterator[Talk]:
    """Talk on standard error, with a progress bar if it is a terminal."""
    console = Console(stderr=True)
    done = TextColumn("{task.completed} done")
    columns = (BarColumn(), done, TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield Talk(console, progress)


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print the states, the history of a run that lost its worker, and the verdict."""
    console.print(f"{outcome.files} runs of project {outcome.project}", highlight=False)
    console.print(_states(outcome))
    if outcome.history:
        console.print()
        console.print(
            clean(_headline(outcome.history[0])), highlight=False, markup=False, soft_wrap=True
        )
        for line in _history(outcome.history, console.width if console.is_terminal else UNBOUNDED):
            console.print(line, highlight=False, soft_wrap=True)
    console.print(_summary(outcome), highlight=False, soft_wrap=True)


def _states(outcome: Outcome) -> Table:
    table = Table("state")
    table.add_column("runs", justify="right")
    for state in State:
        if state in outcome.states:
            table.add_row(state, str(outcome.states[state]))
    return table


def _headline(first: Event) -> str:
    content = getattr(first, "input", None) or {}
    return f"history of run {first.run_id}, which lost its worker: {content.get('path', '')}"


def _history(history: Sequence[Event], width: int) -> Iterator[Text]:
    start = history[0].recorded_at
    for event in history:
        head = Text(f"{event.version:>3} {_since(start, event.recorded_at):>6}  ")
        head.append(
            f"{clean(event.type):<18} {clean(event.actor):<13} ", style=STYLES.get(event.type, "")
        )
        yield from entry(head, _facts(event), width)


def _since(start: datetime | None, now: datetime | None) -> str:
    return f"{(now - start).total_seconds():.2f}" if start and now else ""


def _facts(event: Event) -> str:
    facts = facts_of(event)
    parts = [f"→ {event.state}"] if event.state else []
    parts += [text.format(clean(facts[name])) for name, text in _FACTS.items() if name in facts]
    if isinstance(facts.get("output"), dict):
        parts += [f"{clean(name)}={clean(value)}" for name, value in facts["output"].items()]
    return "  ".join(parts)


def _summary(outcome: Outcome) -> str:
    lines = [
        _fate(outcome),
        f"{number_of(len(outcome.granted), 'approval')} granted, {len(outcome.rejected)} rejected.",
    ]
    if outcome.report is not None:
        lines.append(_verdict(outcome.report))
    return "\n".join([*lines, f"{outcome.seconds:.1f} s in all."])


def _fate(outcome: Outcome) -> str:
    return (
        f"{outcome.killed} (pid {outcome.killed_pid}) was killed with SIGKILL; "
        f"the {len(outcome.lost)} runs that it held were put back and done by others."
    )


def _verdict(report: Report) -> str:
    verdict = (
        "[green]ok[/]" if report.ok else f"[red]{number_of(len(report.findings), 'finding')}[/]"
    )
    return (
        f"verify: {verdict}: {number_of(report.runs, 'run')}, {number_of(report.events, 'event')} "
        f"and {number_of(report.payloads, 'payload')}: versions, hash chains, payloads and states."
    )
