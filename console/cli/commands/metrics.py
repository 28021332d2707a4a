"""`runfold metrics`: serve the fleet's metrics for Prometheus."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

import typer

from runfold.console.cli.kit.duty import until_terminated
from runfold.console.cli.kit.options import Host, Port, command, program
from runfold.console.cli.kit.session import Session
from runfold.console.shared.addresses import shown_address
from runfold.ledger import names
from runfold.ledger.access import EVERYWHERE
from runfold.ledger.errors import AccessDenied, ConfigurationError, LedgerError
from runfold.ledger.log import logger
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.reading.permitted import check_may
from runfold.projections.telemetry.metrics import families, look
from runfold.workers.process.worker_thread import when_it_answers

SCRAPE_SECONDS: Final = 10.0


app: Final = program()


@command(app, "metrics", rights="")
async def metrics(
    session: Session,
    *,
    host: Host = "127.0.0.1",
    port: Port = 9464,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics and end.")] = False,
) -> None:
    """Serve metrics for Prometheus.

    They cover the projects that the login may read, come from the projections, and are served at
    /metrics. Those of the projections themselves need read in all projects. Needs the extra
    `metrics`.
    """
    try:
        from prometheus_client import (  # noqa: PLC0415  an extra, named if it is missing
            CollectorRegistry,
            generate_latest,
            start_http_server,
        )
    except ImportError as error:
        raise ConfigurationError(
            "metrics are served with prometheus-client: install runfold[metrics]"
        ) from error
    async with AsyncExitStack() as stack:
        if once:
            database = await stack.enter_async_context(session.database())
        else:
            stack.enter_context(until_terminated())
            database = await when_it_answers(session.database, stack)
        await _say_what_is_left_out(database.pool)
        registry = CollectorRegistry()
        registry.register(Collector(database.pool, asyncio.get_running_loop()))
        if once:
            if session.as_json:
                for family in await asyncio.to_thread(list, registry.collect()):
                    session.out.json(_facts(family))
                return
            text = (await asyncio.to_thread(generate_latest, registry)).decode()
            session.out.block(text.rstrip("\n"))
            return
        try:
            server, _ = start_http_server(port, host, registry)
        except (OSError, ValueError) as error:  # ValueError: the host can be no name
            taken = getattr(error, "errno", None) in {errno.EADDRINUSE, errno.EACCES}
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({reason}): "
                f"give another {'--port' if taken else '--host'}"
            ) from error
        try:
            address = shown_address(host, server.socket)
            session.out.talk(f"metrics on {address}/metrics, until Ctrl-C")
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(server.shutdown)
            server.server_close()


async def _say_what_is_left_out(pool: Pool) -> None:
    """Warn of a login that sees a part: an alert on a metric that is absent never fires."""
    try:
        await check_may(pool, EVERYWHERE, "read", "audit")
    except AccessDenied as error:
        logger().warning(
            names.METRICS_LEFT_OUT,
            reason=str(error),
            then="the metrics of projections, and of projects that it may not read, are absent",
        )


def _facts(family: Any) -> dict[str, Any]:
    samples = [{"labels": sample.labels, "value": sample.value} for sample in family.samples]
    return {
        "name": family.name,
        "type": family.type,
        "help": family.documentation,
        "samples": samples,
    }


class Collector:
    """Asks the database in the event loop for every scrape, which comes in a thread."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool, self._loop = pool, loop
        self._failure: str | None = None

    def collect(self) -> Iterator[Any]:
        """Yield the families of one scrape; `runfold_up` is 0 when the database does not answer.

        The reason is logged once for each cause.
        """
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415  an extra

        try:
            readings = asyncio.run_coroutine_threadsafe(look(self._pool), self._loop).result(
                SCRAPE_SECONDS
            )
        except (LedgerError, TimeoutError) as error:
            failure = str(error) or f"no answer in {SCRAPE_SECONDS:.0f} seconds"
            if failure != self._failure:
                logger().warning(names.SCRAPE_FAILED, reason=failure)
            self._failure = failure
            yield GaugeMetricFamily(names.UP, "1 when the database answered.", 0)
            return
        self._failure = None
        yield GaugeMetricFamily(names.UP, "1 when the database answered.", 1)
        yield from families(readings)
