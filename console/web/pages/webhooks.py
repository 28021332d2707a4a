"""Webhooks: which events are sent where, and what became of each delivery."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Final, Literal

from fastapi import Depends, Form
from fastapi.responses import RedirectResponse, Response

from runfold.console.web.pages.viewing import Viewer, page, router, viewing
from runfold.ledger.errors import WebhookNotFound
from runfold.ledger.webhooks import Webhook

WINDOW: Final = 200
Looker = Annotated[Viewer, Depends(viewing("audit", "admin"))]
Admin = Annotated[Viewer, Depends(viewing("admin"))]
Text = Annotated[str, Form()]
pages = router()


@page(pages, "/p/{project}/webhooks", csv=True)
async def webhooks(viewer: Looker) -> Response:
    """List the webhooks."""
    return await _listed(viewer)


@pages.post("/p/{project}/webhooks")
async def add(
    viewer: Admin, url: Text, events: Text = "", kinds: Text = "", reason: Text = ""
) -> Response:
    """Send events to a URL from now on; the answer shows the secret, this once."""
    made = await viewer.ledger.webhooks.add(
        url.strip(), events=_names(events), kinds=_names(kinds), reason=reason or None
    )
    return await _listed(viewer, made)


@page(pages, "/p/{project}/webhooks/{webhook_id}", csv=True)
async def deliveries(viewer: Looker, webhook_id: str) -> Response:
    """List the newest deliveries of a webhook."""
    webhook = await _known(viewer, webhook_id)
    listed = await viewer.ledger.webhooks.deliveries(webhook_id, limit=WINDOW)
    rows = [
        {"delivery_id": delivery.delivery_id, "outcome": delivery.outcome} | asdict(delivery)
        for delivery in listed
    ]
    data = {"webhook": webhook, "deliveries": rows}
    return viewer.page("webhook.html", data, rows=rows, most=WINDOW)


@pages.post("/p/{project}/webhooks/{webhook_id}")
async def change(
    viewer: Admin,
    webhook_id: str,
    change: Annotated[Literal["pause", "resume", "remove", "resend"], Form()],
    reason: Text = "",
    delivery: Text = "",
) -> Response:
    """Pause, resume or remove a webhook, or send one of its deliveries again; on record."""
    hooks = viewer.ledger.webhooks
    await _known(viewer, webhook_id)
    to = f"{viewer.base}/webhooks"
    if change == "resend":
        if not await hooks.resend(delivery):
            raise WebhookNotFound(delivery)
        to = f"{to}/{webhook_id}"
    else:
        order = {"pause": hooks.pause, "resume": hooks.resume, "remove": hooks.remove}[change]
        await order(webhook_id, reason=reason or None)
    return RedirectResponse(to, HTTPStatus.SEE_OTHER)


async def _listed(viewer: Viewer, made: tuple[str, str] | None = None) -> Response:
    listed = await viewer.ledger.webhooks.every()
    return viewer.page("webhooks.html", {"webhooks": listed}, rows=listed, made=made)


async def _known(viewer: Viewer, webhook_id: str) -> Webhook:
    for webhook in await viewer.ledger.webhooks.every():
        if webhook.webhook_id == webhook_id:
            return webhook
    raise WebhookNotFound(webhook_id)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
