"""Webhooks: which events are sent where, and what became of each delivery."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, status
from pydantic import Field

from runfold.console.shared.plain import jsonable
from runfold.console.web.api.shapes import Body, Shown
from runfold.console.web.callers import Admin, caller
from runfold.ledger import Ledger
from runfold.ledger.errors import WebhookNotFound

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
Looker = Annotated[Ledger, Depends(caller("audit", "admin"))]
WebhookId = Annotated[str, Path(max_length=40, description="As the list has it.")]
DeliveryId = Annotated[str, Path(max_length=100, description="The `webhook-id` it is sent with.")]


class Webhook(Body):
    """A URL, and what is sent to it; no events or kinds means all."""

    url: str = Field(description="https; http to the server's own machine only.")
    events: list[str] = Field(default_factory=list, description="Types, such as `run.failed`.")
    kinds: list[str] = Field(default_factory=list)
    secret: str | None = Field(None, description="`whsec_` and base64; else a new one is made.")
    reason: str | None = None


class Change(Body):
    """Who changes a webhook, and why."""

    reason: str | None = None


class Resume(Change):
    """How a paused webhook goes on."""

    from_now: bool = Field(default=False, description="Leave out the events that it missed.")


@router.get("", operation_id="webhooks")
async def webhooks(ledger: Looker) -> Shown:
    """List the webhooks, without their secrets. Needs the right audit or admin."""
    return {"webhooks": jsonable(await ledger.webhooks.every())}


@router.post("", operation_id="add_webhook", status_code=status.HTTP_201_CREATED)
async def add(ledger: Admin, body: Webhook) -> Shown:
    """Send events to a URL from now on; the secret is shown this once. Needs admin."""
    webhook_id, secret = await ledger.webhooks.add(**body.model_dump())
    return {"webhook_id": webhook_id, "secret": secret}


@router.post("/{webhook_id}/pause", operation_id="pause_webhook")
async def pause(ledger: Admin, looker: Looker, webhook_id: WebhookId, body: Change) -> Shown:
    """Send nothing until it is resumed. Needs admin."""
    await ledger.webhooks.pause(webhook_id, **body.model_dump())
    return await _shown(looker, webhook_id)


@router.post("/{webhook_id}/resume", operation_id="resume_webhook")
async def resume(ledger: Admin, looker: Looker, webhook_id: WebhookId, body: Resume) -> Shown:
    """Resume a paused webhook; it is sent what it missed. Needs admin."""
    await ledger.webhooks.resume(webhook_id, **body.model_dump())
    return await _shown(looker, webhook_id)


@router.delete(
    "/{webhook_id}", operation_id="remove_webhook", status_code=status.HTTP_204_NO_CONTENT
)
async def remove(ledger: Admin, webhook_id: WebhookId) -> None:
    """Remove a webhook, its secret and its deliveries. Needs admin."""
    if not await ledger.webhooks.remove(webhook_id):
        raise WebhookNotFound(webhook_id)


@router.get("/{webhook_id}/deliveries", operation_id="deliveries")
async def deliveries(
    ledger: Looker,
    webhook_id: WebhookId,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Shown:
    """List the newest deliveries, with the last attempt at each. Needs audit or admin."""
    await _shown(ledger, webhook_id)
    deliveries = await ledger.webhooks.deliveries(webhook_id, limit=limit)
    named = [
        {"delivery_id": delivery.delivery_id, "outcome": delivery.outcome, **jsonable(delivery)}
        for delivery in deliveries
    ]
    return {"deliveries": named}


@router.get("/deliveries/{delivery_id}/attempts", operation_id="delivery_attempts")
async def attempts(ledger: Looker, delivery_id: DeliveryId) -> Shown:
    """List every attempt at a delivery, the first one first. Needs audit or admin."""
    return {"attempts": jsonable(await ledger.webhooks.attempts(delivery_id))}


@router.post("/deliveries/{delivery_id}/resend", operation_id="resend_delivery")
async def resend(ledger: Admin, delivery_id: DeliveryId, body: Body) -> Shown:
    """Send a delivery again, under its old id; on record. Needs admin."""
    if not await ledger.webhooks.resend(delivery_id, actor=body.actor):
        raise WebhookNotFound(delivery_id)
    return {"delivery_id": delivery_id, "resent": True}


async def _shown(ledger: Ledger, webhook_id: str) -> Shown:
    for webhook in await ledger.webhooks.every():
        if webhook.webhook_id == webhook_id:
            return dict(jsonable(webhook))
    raise WebhookNotFound(webhook_id)
