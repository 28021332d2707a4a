"""`runfold trace`: a run's history as spans, printed or sent to an OpenTelemetry receiver."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import span as length
from runfold.console.shared.values import Misuse
from runfold.ledger import Ledger
from runfold.ledger.lifecycle import TERMINAL
from runfold.projections.telemetry.otlp import Sender
from runfold.projections.telemetry.trace import Span, spans

app: Final = program()


@command(app, "trace", rights="read")
async def trace(
    session: Session,
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run's id, or a unique beginning of it."),
    ] = None,
    *,
    otlp: Annotated[
        str | None,
        typer.Option("--otlp", metavar="URL", help="Send the trace there, by OTLP over HTTP."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Send each run when it ends, until Ctrl-C.")
    ] = False,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="CHECKPOINT",
            help="With --follow: continue where an earlier one ended.",
        ),
    ] = None,
    service: Annotated[
        str, typer.Option("--service", metavar="NAME", help="The service's name in the traces.")
    ] = "runfold",
) -> None:
    """Show a run as a trace, or send it to OpenTelemetry.

    The trace has the run's attempts, steps, tools and waits. Sending needs the extra `traces`.
    """
    if follow == (run is not None):
        raise Misuse("RUN", "give either a run, or --follow for all that end from now on")
    if after is not None and not follow:
        raise Misuse("--after", "needs --follow: it is where --follow continues")
    if follow and otlp is None:
        raise Misuse("--otlp", "--follow needs a URL to send to")
    sender = None if otlp is None else Sender(otlp, service=service)
    async with session.ledger() as ledger:
        try:
            if run is None and sender is not None:
                await send_each(session, ledger, sender, after)
            elif run is not None:
                run_id = await find_run(ledger, run)
                trace_spans = spans(run_id, await ledger.history(run_id))
                if sender is None:
                    _write(session.out, trace_spans)
                else:
                    await _send(session, sender, trace_spans)
        finally:
            if sender is not None:
                sender.close()


async def send_each(session: Session, ledger: Ledger, sender: Sender, after: str | None) -> None:
    """Send each run that ends; at the end say where to continue, also if none was taken."""
    events = ledger.subscribe(after=after or "now", states=sorted(TERMINAL))
    await events.begin()
    done = events.checkpoint
    try:
        async for event in events:
            if event.run_id is not None:
                await _send(
                    session, sender, spans(event.run_id, await ledger.history(event.run_id))
                )
            done = events.checkpoint
    finally:
        session.out.talk(
            f"to continue from here: runfold trace --follow --after {done} --otlp {sender.url}"
        )


async def _send(session: Session, sender: Sender, trace_spans: list[Span]) -> None:
    await asyncio.to_thread(sender.send, trace_spans)
    sent = sum(span.end is not None for span in trace_spans)
    trace_id = f"{trace_spans[0].trace_id:032x}"
    session.out.json(
        {"trace_id": trace_id, "spans": sent}
    ) if session.as_json else session.out.line(f"{trace_id}: {sent} spans")


def _write(out: Output, spans_: list[Span]) -> None:
    if out.as_json:
        for span in spans_:
            out.json(_facts(span))
        return
    depths: dict[int | None, int] = {None: -1}
    names: set[str] = set()
    for span in spans_:
        depths[span.span_id] = depths[span.parent_id] + 1
        indent = "  " * depths[span.span_id]
        again = "  continued after a wait" if span.name in names and _is_attempt(span) else ""
        names.add(span.name)
        out.entry(Text(f"{indent}{span.name}  "), _line(span) + again)


def _is_attempt(span: Span) -> bool:
    return span.name.startswith("attempt ")


def _line(span: Span) -> str:
    parts = ["open" if span.end is None else length(span.end - span.start)]
    if span.failed:
        parts.append(f"failed {span.error or ''}".rstrip())
    parts += [
        f"{number} {name}" for name, number in Counter(mark.name for mark in span.marks).items()
    ]
    return "  ".join(parts)


def _facts(span: Span) -> dict[str, Any]:
    ids = {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
    parent = None if span.parent_id is None else f"{span.parent_id:016x}"
    return {**asdict(span), **ids, "parent_id": parent}
