"""Webhooks: which events are sent where, and what became of each delivery.

They are declared here; `runfold.workers.duties.webhooks` sends. See docs/decisions/0069.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import check_named_types
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import check_found
from runfold.ledger.validation import (
    LOOPBACK,
    check_int,
    check_list,
    check_run_id,
    check_text,
)

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  the beginning of every secret
SECRET_BYTES: Final = (24, 64)
"""The least and the most bytes of a secret, as Standard Webhooks asks."""
MAX_URL: Final = 2_000
MAX_NAMES: Final = 100

_CHANGE: Final = "SELECT ledger.change_webhook($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) AS changed"
_ALL: Final = """
SELECT hook.webhook_id, hook.url, hook.events, hook.kinds, hook.is_paused, hook.actor, hook.reason,
  (SELECT count(*) FROM (SELECT FROM ledger.delivery AS open
    WHERE open.webhook_id = hook.webhook_id AND open.next_at IS NOT NULL LIMIT 10000) AS counted
  ) AS waiting
FROM ledger.webhook AS hook WHERE hook.project_id = $1 ORDER BY hook.webhook_id
"""
_DELIVERIES: Final = """
SELECT sent.webhook_id, sent.run_id, sent.version, sent.type, sent.body, sent.created_at,
  sent.next_at, sent.attempts, sent.delivered_at,
  latest.attempted_at, latest.duration_ms, latest.status, latest.error
FROM ledger.delivery AS sent LEFT JOIN ledger.delivery_attempt AS latest
  ON latest.webhook_id = sent.webhook_id AND latest.run_id = sent.run_id
  AND latest.version = sent.version AND latest.attempt = sent.attempts
WHERE sent.project_id = $1 AND sent.webhook_id = $2
ORDER BY sent.created_at DESC, sent.run_id, sent.version DESC LIMIT $3
"""
_ATTEMPTS: Final = """
SELECT attempt, attempted_at, duration_ms, status, error FROM ledger.delivery_attempt
WHERE project_id = $1 AND webhook_id = $2 AND run_id = $3 AND version = $4 ORDER BY attempt
"""
_RESEND: Final = "SELECT ledger.resend_delivery($1, $2, $3, $4, $5) AS found"
_ID: Final = re.compile(r"(wh_[0-9a-f]{12})_([0-9a-f-]{36})_([1-9][0-9]{0,8})_[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that events are sent to; no `events` or `kinds` means all.

    `waiting`: deliveries that have not ended, counted up to 10,000.
    """

    webhook_id: str
    url: str
    events: tuple[str, ...]
    kinds: tuple[str, ...]
    is_paused: bool
    actor: str
    reason: str | None
    waiting: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is sent to a webhook of one event, and how the last attempt ended.

    `next_at`: when it is tried next; None and not delivered: it was given up.
    """

    webhook_id: str
    run_id: UUID
    version: int
    type: str
    body: str
    created_at: datetime
    next_at: datetime | None
    attempts: int
    delivered_at: datetime | None
    attempted_at: datetime | None
    duration_ms: int | None
    status: int | None
    error: str | None

    @property
    def delivery_id(self) -> str:
        """The `webhook-id` under which every attempt is sent."""
        return delivery_id(self.webhook_id, self.run_id, self.version, self.body)

    @property
    def outcome(self) -> str:
        """One word: delivered, waiting, failing or given_up."""
        if self.next_at is not None:
            return "failing" if self.error else "waiting"
        return "given_up" if self.error else "delivered"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a delivery; `status` None: no answer came. `error` None: it was taken."""

    attempt: int
    attempted_at: datetime
    duration_ms: int
    status: int | None
    error: str | None


class Webhooks:
    """The webhooks of a project; see `Ledger.webhooks`."""

    def __init__(self, project: Project) -> None:
        self._project = project

    async def add(
        self,
        url: str,
        *,
        events: Iterable[str] = (),
        kinds: Iterable[str] = (),
        secret: str | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> tuple[str, str]:
        """Send events to a URL from now on; return the webhook's id and the secret.

        `events` are types, `kinds` kinds of runs; none: all but heartbeats. `secret`: one of the
        form `whsec_` and base64 of 24 to 64 bytes, else a new one. Needs the right admin.

        Raises InvalidValue or AccessDenied.
        """
        check_url(url)
        if secret is None:
            secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        key = secret_bytes(secret)
        webhook_id = await self._change(
            None, "add", url=url, events=_names("events", check_named_types("events", events)),
            kinds=_names("kinds", kinds), key=key, actor=actor, reason=reason,
        )  # fmt: skip
        return str(webhook_id), secret

    async def every(self) -> list[Webhook]:
        """Return every webhook of the project. Needs the right admin or audit."""
        rows = await fetch(self._project.pool, _ALL, self._project.project_id)
        await self._check_found(rows)
        return [
            Webhook(**{**row, "events": tuple(row["events"]), "kinds": tuple(row["kinds"])})
            for row in rows
        ]

    async def pause(
        self, webhook_id: str, *, actor: str | None = None, reason: str | None = None
    ) -> bool:
        """Send nothing until it is resumed; return whether it was not paused already."""
        return await self._change(webhook_id, "pause", actor=actor, reason=reason) is not None

    async def resume(
        self,
        webhook_id: str,
        *,
        from_now: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Resume a paused webhook: send it what it missed, or with `from_now` only what comes."""
        changed = await self._change(
            webhook_id, "resume", from_now=from_now, actor=actor, reason=reason
        )
        return changed is not None

    async def remove(
        self, webhook_id: str, *, actor: str | None = None, reason: str | None = None
    ) -> bool:
        """Remove a webhook and its deliveries; return whether there was one."""
        return await self._change(webhook_id, "remove", actor=actor, reason=reason) is not None

    async def deliveries(self, webhook_id: str, *, limit: int = 100) -> list[Delivery]:
        """Return the newest deliveries. Needs the right admin or audit. Raises InvalidValue."""
        check_int("limit", limit, least=1, most=1_000)
        project = self._project
        check_text("webhook", webhook_id, limit=40)
        rows = await fetch(project.pool, _DELIVERIES, project.project_id, webhook_id, limit)
        await self._check_found(rows)
        return [Delivery(**row) for row in rows]

    async def attempts(self, delivery: str) -> list[Attempt]:
        """Return every attempt at the delivery of this id, the first one first."""
        project = self._project
        parts = _parse_id(delivery)
        rows = await fetch(project.pool, _ATTEMPTS, project.project_id, *parts)
        await self._check_found(rows)
        return [Attempt(**row) for row in rows]

    async def resend(self, delivery: str, *, actor: str | None = None) -> bool:
        """Send a delivery again under its id, on record; return whether there is one.

        Needs the right admin. Raises InvalidValue or AccessDenied.
        """
        project = self._project
        facts = (project.actor_or_default(actor), *_parse_id(delivery))
        [row] = await fetch(project.pool, _RESEND, project.project_id, *facts)
        return bool(row["found"])

    async def _check_found(self, rows: Sized) -> None:
        project = self._project
        await check_found(rows, project.pool, project.project_id, "admin", "audit")

    async def _change(
        self,
        webhook_id: str | None,
        action: str,
        *,
        actor: str | None,
        reason: str | None,
        url: str | None = None,
        events: list[str] | None = None,
        kinds: list[str] | None = None,
        key: bytes | None = None,
        from_now: bool = False,
    ) -> str | None:
        if webhook_id is not None:
            check_text("webhook", webhook_id, limit=40)
        project = self._project
        why = project.order_reason(reason)
        who = project.actor_or_default(actor)
        what = (webhook_id, action, url, events, kinds, key, from_now, why)
        [row] = await fetch(project.pool, _CHANGE, project.project_id, who, *what)
        changed: str | None = row["changed"]
        return changed


def delivery_id(webhook_id: str, run_id: UUID, version: int, body: str) -> str:
    """Return the id of a delivery: the same however often it is sent.

    After a restore, or a fail-over that lost events, a run has another event of the same version.
    The body's digest tells them apart: a receiver has to hear of both.
    """
    digest = hashlib.sha256(body.encode()).hexdigest()[:8]
    return f"{webhook_id}_{run_id}_{version}_{digest}"


def check_url(url: str) -> str:
    """Return the URL of a webhook: https, or http to this machine.

    Raises InvalidValue. That the host's addresses are public is checked at each connection.
    """
    check_text("url", url, limit=MAX_URL)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidValue("url", url, f"is not a URL: {error}") from error
    if not host or port == 0 or not url.isascii() or any(char.isspace() for char in url):
        raise InvalidValue("url", url, "must be of the form https://host/path")
    if parts.username is not None or parts.password is not None:
        raise InvalidValue("url", "with a password", "must not hold one: the signature proves more")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise InvalidValue("url", url, "must begin with https://; http:// only to this machine")
    return url


def secret_bytes(secret: str) -> bytes:
    """Return the key of a secret. Raises InvalidValue, which does not repeat it."""
    wrong = InvalidValue(
        "secret", "(not shown)", f"must be {SECRET_PREFIX} and base64 of 24 to 64 bytes"
    )
    if not secret.startswith(SECRET_PREFIX):
        raise wrong
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise wrong from None
    if not SECRET_BYTES[0] <= len(key) <= SECRET_BYTES[1]:
        raise wrong
    return key


def _names(field: str, values: Iterable[str]) -> list[str]:
    check_list(field, values, "texts")
    names = sorted(set(values))
    for name in names:
        check_text(field, name)
    check_int(field, len(names), least=0, most=MAX_NAMES)
    return names


def _parse_id(delivery: str) -> tuple[str, UUID, int]:
    match = _ID.fullmatch(delivery)
    if match is None:
        remedy = "is not an id of one: `runfold webhooks deliveries` lists them"
        raise InvalidValue("delivery", delivery, remedy)
    return match[1], check_run_id(match[2]), int(match[3])
