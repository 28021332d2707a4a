"""Whether the server lives, whether it can do its work, and its metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from runfold.console.web.callers import Callers, caller
from runfold.ledger import Ledger, names
from runfold.ledger.errors import ConfigurationError, LedgerError
from runfold.ledger.log import logger
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.errors import READS_ONLY

router = APIRouter(tags=["health"])
BELIEVED_SECONDS: Final = 1.0
"""How long an answer of the database is reused: /ready needs no token, so it must be cheap."""
_READ_ONLY: Final = "SELECT current_setting('transaction_read_only') = 'on' AS read_only"
MISSING_EXTRA: Final = "metrics are served with prometheus-client: install runfold[metrics]"


class Health(BaseModel):
    """Whether the server can answer."""

    status: Literal["ok", "unavailable"] = "ok"


@router.head("/health", include_in_schema=False)
@router.get("/health", operation_id="health")
async def health() -> Health:
    """Answer while the process lives; the database is not asked. Needs no token."""
    return Health()


@router.head("/ready", include_in_schema=False)
@router.get("/ready", operation_id="ready", responses={503: {"model": Health}})
async def ready(request: Request, response: Response) -> Health:
    """Answer whether requests can be served now: 503 if not. Needs no token.

    The reason is for the operator: it is logged, once for each cause.
    """
    state = request.app.state
    now = time.monotonic()
    if now - state.ready_checked_at > BELIEVED_SECONDS:
        unready = await _unready(state.callers.own)
        if unready is not None and unready != state.unready:
            logger().warning(names.NOT_READY, reason=unready)
        state.ready_checked_at, state.unready = now, unready
    if state.ending.is_set() or state.unready is not None:
        response.status_code = 503
        return Health(status="unavailable")
    return Health()


async def _unready(own: Ledger) -> str | None:
    """Return why the database cannot serve requests; None if it can.

    Whoever presents a token or signs in is recorded, so a database that takes no writes serves
    nobody.
    """
    try:
        [row] = await fetch(own.pool, _READ_ONLY)
    except LedgerError as error:
        return str(error)
    return READS_ONLY if row["read_only"] else None


@router.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
async def metrics(
    request: Request, _: Annotated[Ledger, Depends(caller("read", everywhere=True))]
) -> PlainTextResponse:
    """Answer with the metrics of all projects, for Prometheus. Needs read in all of them."""
    try:
        from prometheus_client import (  # noqa: PLC0415  an extra, named if it is missing
            CollectorRegistry,
            generate_latest,
        )
    except ImportError as error:
        raise ConfigurationError(MISSING_EXTRA) from error
    from runfold.projections.telemetry.metrics import families, look  # noqa: PLC0415  as above

    callers: Callers = request.app.state.callers
    rows = await look(callers.own.pool)

    class Collected:
        """The metrics that were read, as a collector."""

        def collect(self) -> Iterator[Any]:
            """Yield the families."""
            return families(rows)

    registry = CollectorRegistry()
    registry.register(Collected())
    return PlainTextResponse(
        generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8"
    )
