"""`runfold metrics`: the fleet's metrics for Prometheus, over HTTP."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from runfold.console.cli.kit.options import command
from runfold.console.cli.kit.session import Session

if TYPE_CHECKING:
    from runfold.ledger.postgres.connections import Pool

SCRAPE_SECONDS: Final = 10.0


async def metrics(
    session: Session,
    *,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; by default only this machine may ask.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="0 takes any that is free.")
    ] = 9464,
    once: Annotated[bool, typer.Option("--once", help="Print them and end.")] = False,
) -> None:
    """Serve metrics of all projects, from the read models, at /metrics; needs the extra `metrics`."""
    from runfold.ledger.errors import ConfigurationError

    try:
        from prometheus_client import CollectorRegistry, generate_latest, start_http_server
    except ImportError as error:
        raise ConfigurationError(
            "metrics are served with prometheus-client: install runfold[metrics]"
        ) from error
    async with session.database() as database:
        registry = CollectorRegistry()
        registry.register(_Collector(database.pool, asyncio.get_running_loop()))
        if once:
            sys.stdout.write((await asyncio.to_thread(generate_latest, registry)).decode())
            return
        try:
            server, _ = start_http_server(port, host, registry)
        except OSError as error:
            remedy = "--port" if error.errno in {errno.EADDRINUSE, errno.EACCES} else "--host"
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({error.strerror}): give another {remedy}"
            ) from error
        session.out.talk(f"metrics on http://{host}:{server.server_port}/metrics, until Ctrl-C")
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        try:
            await ended.wait()
        finally:
            await asyncio.to_thread(server.shutdown)
            server.server_close()


class _Collector:
    """Asks the database in the event loop for every scrape, which comes in a thread."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool, self._loop = pool, loop

    def collect(self) -> Iterator[Any]:
        """Give the families of one scrape; `runfold_up` is 0 when the database does not answer."""
        from prometheus_client.core import GaugeMetricFamily

        from runfold.ledger import names
        from runfold.ledger.errors import LedgerError
        from runfold.projections.telemetry.metrics import families, look

        try:
            found = asyncio.run_coroutine_threadsafe(look(self._pool), self._loop).result(
                SCRAPE_SECONDS
            )
        except (LedgerError, TimeoutError):
            yield GaugeMetricFamily(names.UP, "1 when the database answered.", 0)
            return
        yield GaugeMetricFamily(names.UP, "1 when the database answered.", 1)
        yield from families(found)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "metrics", panel="Care")(metrics)
