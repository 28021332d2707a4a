"""The console's server in a thread, beside a browser whose calls block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

import asyncpg

from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.console.web.serving import Server, listening
from runfold.ledger import Ledger
from runfold.ledger.postgres.urls import driver_url
from tests.console.browser.filling import Filled, Storyteller
from tests.support.databases import PROJECT
from tests.support.waiting import BOUND, until

T = TypeVar("T")


class _Quiet(Server):
    """A server that leaves signals to the tests."""

    def capture_signals(self) -> Any:
        return nullcontext()


class Served:
    """A filled project, and its console: open to this machine, and for tokens only."""

    ledger: Ledger
    filled: Filled
    open: str
    closed: str

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._ending = asyncio.Event()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something with the ledger, in the thread of the server."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(BOUND)

    @contextmanager
    def running(self) -> Iterator[Served]:
        """Serve until the block ends."""
        ready = threading.Event()
        thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve(ready)), daemon=True
        )
        thread.start()
        try:
            assert ready.wait(BOUND), "the server did not start"
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._ending.set)
            thread.join(BOUND)
            self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        async with AsyncExitStack() as stack:
            self.ledger = await stack.enter_async_context(Ledger.open(self._url, PROJECT))
            connection = await asyncpg.connect(driver_url(self._url))
            self.filled = await Storyteller(self.ledger, connection).tell()
            await connection.close()
            self.open = await self._start(stack, Options(open=True))
            self.closed = await self._start(stack, Options())
            ready.set()
            await self._ending.wait()

    async def _start(self, stack: AsyncExitStack, options: Options) -> str:
        listener = stack.enter_context(listening("127.0.0.1", 0))
        server = _Quiet(app(self.ledger, options))
        serving = asyncio.create_task(server.serve([listener]))

        async def end() -> None:
            server.end()
            await serving

        stack.push_async_callback(end)
        await until(lambda: server.started)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
