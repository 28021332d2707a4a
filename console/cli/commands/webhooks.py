"""`runfold webhooks`: which events are sent where, and the duty that delivers them."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Annotated, Final

import typer

from runfold.console.cli.kit.duty import until_terminated
from runfold.console.cli.kit.options import PROJECTOR, WORKER, Actor, OrderReason, command, program
from runfold.console.cli.kit.output import EMPTY
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import jsonable, moment
from runfold.console.shared.values import Misuse
from runfold.ledger.errors import ConfigurationError, WebhookNotFound
from runfold.ledger.webhooks import Delivery, Webhook
from runfold.workers.duties.webhooks import is_installed
from runfold.workers.process.worker_thread import when_it_answers

app: Final = program("Send events to URLs, with signatures.")

Id = Annotated[str, typer.Argument(metavar="WEBHOOK", help="The webhook's id, as of `list`.")]
Events = Annotated[
    str | None,
    typer.Option("--events", metavar="LIST", help="Types, with commas; default: all but beats."),
]
Kinds = Annotated[
    list[str] | None, typer.Option("--kind", metavar="KIND", help="Of runs of this kind only.")
]


@command(app, "list", rights="audit | admin")
async def list_(session: Session) -> None:
    """List the webhooks of the project, with the deliveries that are still to be made."""
    async with session.ledger() as ledger:
        listed = await ledger.webhooks.every()
    if session.as_json:
        for webhook in listed:
            session.out.json(webhook)
        return
    if not listed:
        session.out.talk("no webhooks yet: runfold webhooks add https://example.com/hook")
        return
    titles = ("WEBHOOK", "URL", "EVENTS", "KINDS", "WAITING", "STATE", "BY")
    session.out.table(titles, [_row(webhook) for webhook in listed], [None] * len(listed))


@command(app, "add", rights="admin", needs=WORKER)
async def add(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="URL", help="Begins with https://.")],
    *,
    events: Events = None,
    kinds: Kinds = None,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Send events to a URL from now on; print the secret of its signatures, this once."""
    types = [name.strip() for name in (events or "").split(",") if name.strip()]
    async with session.ledger() as ledger:
        webhook, secret = await ledger.webhooks.add(
            target, events=types, kinds=kinds or (), actor=actor, reason=reason
        )
    if session.as_json:
        session.out.json({"webhook_id": webhook, "secret": secret})
        return
    session.out.line(f"{webhook} {secret}")
    session.out.talk("keep the secret: it is not shown again; `runfold webhooks run` sends")


@command(app, "pause", rights="admin", needs=WORKER)
async def pause(
    session: Session, webhook: Id, *, actor: Actor = None, reason: OrderReason = None
) -> None:
    """Send nothing to a webhook until it is resumed."""
    async with session.ledger() as ledger:
        _known(await ledger.webhooks.every(), webhook)
        await ledger.webhooks.pause(webhook, actor=actor, reason=reason)
    _done(session, webhook, "paused")


@command(app, "resume", rights="admin", needs=WORKER)
async def resume(
    session: Session,
    webhook: Id,
    *,
    from_now: Annotated[
        bool, typer.Option("--from-now", help="Leave out the events that it missed.")
    ] = False,
    actor: Actor = None,
    reason: OrderReason = None,
) -> None:
    """Resume a paused webhook; it is sent what it missed."""
    async with session.ledger() as ledger:
        _known(await ledger.webhooks.every(), webhook)
        await ledger.webhooks.resume(webhook, from_now=from_now, actor=actor, reason=reason)
    _done(session, webhook, "resumed")


@command(app, "remove", rights="admin", needs=WORKER)
async def remove(
    session: Session, webhook: Id, *, actor: Actor = None, reason: OrderReason = None
) -> None:
    """Remove a webhook, its secret and its deliveries; the record of it stays."""
    async with session.ledger() as ledger:
        if not await ledger.webhooks.remove(webhook, actor=actor, reason=reason):
            raise WebhookNotFound(webhook)
    _done(session, webhook, "removed")


@command(app, "deliveries", rights="audit | admin")
async def deliveries(
    session: Session,
    webhook: Id,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, metavar="N")] = 50,
) -> None:
    """List the newest deliveries of a webhook, and how the last attempt at each ended."""
    async with session.ledger() as ledger:
        _known(await ledger.webhooks.every(), webhook)
        listed = await ledger.webhooks.deliveries(webhook, limit=limit)
    if session.as_json:
        for entry in listed:
            session.out.json(
                {"delivery_id": entry.delivery_id, "outcome": entry.outcome, **jsonable(entry)}
            )
        return
    if not listed:
        session.out.talk("no deliveries yet: `runfold webhooks run` sends")
        return
    titles = ("DELIVERY", "TYPE", "CREATED", "OUTCOME", "ATTEMPTS", "STATUS", "MS", "ERROR")
    session.out.table(titles, [_told(entry) for entry in listed], [None] * len(listed))


@command(app, "resend", rights="admin", needs=WORKER)
async def resend(
    session: Session,
    delivery: Annotated[
        str, typer.Argument(metavar="DELIVERY", help="The delivery's id, as of `deliveries`.")
    ],
    *,
    actor: Actor = None,
) -> None:
    """Send a delivery again, under its old id; on record."""
    async with session.ledger() as ledger:
        if not await ledger.webhooks.resend(delivery, actor=actor):
            raise WebhookNotFound(delivery)
    session.out.json({"delivery_id": delivery, "resent": True}) if session.as_json else (
        session.out.talk(f"{delivery} is sent again")
    )


@command(app, "run", rights="read", needs=PROJECTOR)
async def run(
    session: Session,
    *,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is due.")] = False,
    console: Annotated[
        str | None,
        typer.Option("--console", metavar="URL", help="URL of the pages, for links to runs."),
    ] = None,
    allow_loopback: Annotated[
        bool, typer.Option("--allow-loopback", help="Send to this machine too, in development.")
    ] = False,
) -> None:
    """Deliver events to webhooks until SIGTERM or Ctrl-C; any number of processes may do so.

    Needs the extra `webhooks`.
    """
    if not is_installed():
        raise ConfigurationError(
            "webhooks are sent with httpcore and standardwebhooks: install runfold[webhooks]"
        )
    from runfold.workers.duties.webhooks.deliverer import Terms  # noqa: PLC0415
    from runfold.workers.duties.webhooks.posting import Poster  # noqa: PLC0415
    from runfold.workers.duties.webhooks.sender import WebhookSender  # noqa: PLC0415

    if console and not re.fullmatch(r"https?://[!-~]+", console):
        raise Misuse("--console", f"{console} is not a URL: give one like https://example.com")
    terms = Terms(Poster(loopback=allow_loopback), (console or "").rstrip("/"))
    if once:
        async with session.ledger() as ledger:
            await WebhookSender(ledger, terms).once()
        return
    async with AsyncExitStack() as stack:
        stack.enter_context(until_terminated())
        ledger = await when_it_answers(session.ledger, stack)
        session.out.begin(f"delivering events of project {ledger.project_id}; Ctrl-C ends it")
        await WebhookSender(ledger, terms).run()


def _known(listed: list[Webhook], webhook: str) -> None:
    if webhook not in {entry.webhook_id for entry in listed}:
        raise WebhookNotFound(webhook)


def _done(session: Session, webhook: str, done: str) -> None:
    if session.as_json:
        session.out.json({"webhook_id": webhook, done: True})
    else:
        session.out.talk(f"{webhook} is {done}")


def _row(webhook: Webhook) -> tuple[str, ...]:
    return (
        webhook.webhook_id,
        webhook.url,
        ", ".join(webhook.events) or "all",
        ", ".join(webhook.kinds) or "all",
        str(webhook.waiting),
        "paused" if webhook.is_paused else "open",
        webhook.actor,
    )


def _told(entry: Delivery) -> tuple[str, ...]:
    return (
        entry.delivery_id,
        entry.type,
        moment(entry.created_at),
        entry.outcome,
        str(entry.attempts),
        EMPTY if entry.status is None else str(entry.status),
        EMPTY if entry.duration_ms is None else str(entry.duration_ms),
        entry.error or EMPTY,
    )
