"""What the resources share: headers, bodies, and runs, leases and events as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Header, Path, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from runfold.console.shared import values
from runfold.console.shared.json_lists import without_content
from runfold.console.shared.plain import jsonable
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import Event
from runfold.ledger.run import Lease, Run
from runfold.ledger.validation import MAX_LEASE, check_lease_time, check_run_id

_ETAG: Final = re.compile(r'"([1-9][0-9]{0,8})"')
MAX_WAIT: Final = 60.0
"""Seconds that a request may wait for a run."""
Shown = dict[str, Any]
RunId = Annotated[str, Path(description="The id of a run, a UUIDv7.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key and content give the first outcome again.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="The ETag of the run as it was read; 412 if it has moved on since.",
    ),
]


def _deadline(value: object) -> object:
    if isinstance(value, str):
        return _read(values.deadline, value)
    if isinstance(value, bool):
        raise ValueError("must be a time or a number of seconds")  # noqa: TRY004  pydantic's own
    return value


def _instant(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be a time, as a text")  # noqa: TRY004  pydantic's own
    return _read(partial(values.instant, ""), value)


def _read(reading: Callable[[str], object], text: str) -> object:
    try:
        return reading(text)
    except InvalidValue as error:
        raise ValueError(error.remedy) from None


# Read as on the command line: pydantic takes numbers, also in texts, for seconds since 1970.
Deadline = Annotated[datetime | float | None, BeforeValidator(_deadline)]
Instant = Annotated[datetime, BeforeValidator(_instant)]
Cost = Annotated[Decimal, Field(strict=False, description="A text is exact.")]


class Sent(BaseModel):
    """A body of a request: a member that it does not have is refused, as is `true` for a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class UnderLease(Sent):
    """The lease under which a worker writes, as `claims` gave it."""

    token: int
    worker_id: str

    def lease(self, run_id: str, ttl: float | None = None) -> Lease:
        """Return the lease on a run. Raises InvalidValue."""
        return Lease(
            run_id=check_run_id(run_id),
            token=self.token,
            attempt=0,
            max_attempts=0,
            kind="",
            priority=0,
            input=None,
            worker_id=self.worker_id,
            until=datetime.now(UTC),
            ttl=MAX_LEASE if ttl is None else check_lease_time("ttl", ttl),
        )


class Body(Sent):
    """A request without a lease, which may name its actor."""

    actor: str | None = Field(None, description="Who acts; else the token itself.")


def version_of(if_match: str | None) -> int | None:
    """Return the version that an If-Match header names. Raises InvalidValue."""
    if if_match is None:
        return None
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise InvalidValue("If-Match", if_match, 'must be the ETag of a run, such as "3"')
    return int(match[1])


def shown(run: Run, response: Response) -> Shown:
    """Return a run after a write, as JSON without its content; its version is the ETag."""
    _tag(run, response)
    return dict(without_content(run))


def opened(run: Run, response: Response) -> Shown:
    """Return a run as JSON, with the content whose read is on record; its version is the ETag."""
    _tag(run, response)
    return dict(jsonable(run))


def _tag(run: Run, response: Response) -> None:
    response.headers["ETag"] = f'"{run.version}"'


def shown_lease(lease: Lease) -> Shown:
    """Return a lease as JSON; `ttl` is in seconds."""
    return dict(jsonable(lease))


def shown_event(event: Event) -> Shown:
    """Return an event as JSON, without the members that are null."""
    return dict(jsonable(event.model_dump(exclude_none=True)))
