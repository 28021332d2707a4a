"""One POST to a webhook: signed, to a pinned public address, bounded in time, nothing followed."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import httpcore
from standardwebhooks import Webhook as Signer

from runfold.ledger.errors import InvalidValue
from runfold.ledger.webhooks import check_url
from runfold.version import __version__
from runfold.workers.duties.webhooks.addresses import AddressRefused, Names

Headers: TypeAlias = dict[bytes | str, bytes | str]
SECONDS: Final = 10.0
"""How long an endpoint has to answer, from the look-up of its name on."""
_FAULTS: Final = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt ended; `error` None: the endpoint took it. The body is not read."""

    status: int | None
    error: str | None
    duration_ms: int


class Poster:
    """Posts to webhooks; `loopback` lets them lead to this machine, for development."""

    def __init__(self, *, loopback: bool = False, seconds: float = SECONDS) -> None:
        self._seconds, self._loopback = seconds, loopback
        self._ssl, self._names = ssl.create_default_context(), Names()

    async def post(self, url: str, secret: bytes, message_id: str, body: str) -> Answer:
        """Send one message and return how it ended; raises only a cancellation."""
        start = time.monotonic()
        status, error = None, None
        try:
            async with asyncio.timeout(self._seconds):
                status = await self._status(
                    check_url(url), _headers(secret, message_id, body), body
                )
        except TimeoutError:
            error = f"no answer within {self._seconds:g} s"
        except (AddressRefused, InvalidValue) as refusal:
            error = str(refusal)
        except (OSError, ValueError, *_FAULTS) as fault:
            error = f"{type(fault).__name__}: {fault}"
        if status is not None and not 200 <= status < 300:  # noqa: PLR2004  what HTTP calls success
            error = f"answered {status}"
        return Answer(status, error, round((time.monotonic() - start) * 1000))

    async def _status(self, url: str, headers: Headers, body: str) -> int:
        backend = _Pinned(self._names, loopback=self._loopback)
        async with httpcore.AsyncConnectionPool(
            ssl_context=self._ssl, network_backend=backend, retries=0
        ) as pool:
            request: Any = pool.stream("POST", url, headers=headers, content=body.encode())
            response = await request.__aenter__()
            status = int(response.status)
            # The body is not needed, and may never end: closing the pool drops it.
            with suppress(RuntimeError):
                await response.aclose()
            return status


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were checked; resolves no name a second time."""

    def __init__(self, names: Names, *, loopback: bool) -> None:
        self._names, self._loopback = names, loopback
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the interface's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        name = host.strip("[]")
        for address in await self._names.public_addresses(name, port, loopback=self._loopback):
            try:
                return await self._sockets.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or AddressRefused(f"{host} has no address")


def _headers(secret: bytes, message_id: str, body: str) -> Headers:
    now = datetime.now(UTC)
    return {
        "content-type": "application/json",
        "user-agent": f"runfold/{__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Signer(secret).sign(message_id, now, body),
    }
