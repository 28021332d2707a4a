"""One process of a measurement, run in the environment of one system.

`child.py SYSTEM ROLE URL JSON`. The last line that it writes is its answer, in JSON.
"""

import asyncio
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop  # type: ignore[import-not-found, unused-ignore]  # of an environment of its own

Given = dict[str, Any]
STOP_SECONDS = 3
COUNT_SECONDS = 0.02


class Waits:
    """When each job began, and the milliseconds from its submission to that."""

    def __init__(self, first: Path) -> None:
        self._first = first
        """Where the time of the first job is written, and beside it how many began."""
        self.times = list[float]()
        self.milliseconds = list[float]()

    def note(self, asked_at: float) -> None:
        """Note the wait of one job."""
        now = time.time()
        if not self.times:
            self._first.write_text(str(now))
        self.times.append(now)
        self.milliseconds.append((now - asked_at) * 1_000)

    async def tell(self) -> None:
        """Write again and again how many jobs have begun."""
        while True:
            self._first.with_suffix(".count").write_text(str(len(self.times)))
            await asyncio.sleep(COUNT_SECONDS)


def system(name: str) -> Any:
    """Load a system by its file: its folder is on no path, where it would hide the package."""
    path = Path(__file__).parent / "systems" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"system_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def set_up(which: Any, url: str, _: Given) -> Given:
    """Make the schema."""
    await which.set_up(url)
    return {"keeps": which.KEEPS, "gives_up": which.GIVES_UP, "unfinished": which.UNFINISHED}


async def submit(which: Any, url: str, given: Given) -> Given:
    """Submit one by one, by so many callers at once, for so many seconds."""
    async with which.opened(url, 1, print) as here:
        await here["submit"](time.time())
        start = time.perf_counter()

        async def caller() -> int:
            made = 0
            while time.perf_counter() - start < given["seconds"]:
                await here["submit"](time.time())
                made += 1
            return made

        made = await asyncio.gather(*(caller() for _ in range(given["callers"])))
        return {"made": sum(made), "rate": sum(made) / (time.perf_counter() - start)}


async def bulk(which: Any, url: str, given: Given) -> Given:
    """Submit a thousand a call."""
    async with which.opened(url, 1, print) as here:
        start, left = time.perf_counter(), given["count"]
        while left > 0:
            await here["submit_many"]([time.time()] * min(left, 1_000))
            left -= 1_000
        return {"rate": given["count"] / (time.perf_counter() - start)}


async def feed(which: Any, url: str, given: Given) -> Given:
    """Submit so many a second, in bulk, as far as it can."""
    async with which.opened(url, 1, print) as here:
        start, made = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < given["seconds"]:
            due = min(int(passed * given["rate"]) - made, 1_000)
            if due > 0:
                await here["submit_many"]([time.time()] * due)
                made += due
            await asyncio.sleep(0.02 if due < 1_000 else 0)
        return {"made": made}


async def trickle(which: Any, url: str, given: Given) -> Given:
    """Submit one each so many milliseconds."""
    async with which.opened(url, 1, print) as here:
        for _ in range(given["count"]):
            await here["submit"](time.time())
            await asyncio.sleep(given["every_ms"] / 1_000)
    return {}


async def work(which: Any, url: str, given: Given) -> Given:
    """Work until SIGTERM, and print the waits of the jobs."""
    waits, stop = Waits(Path(given["first"])), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with which.opened(url, given["slots"], waits.note) as here:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # until all workers are ready
        telling = asyncio.ensure_future(waits.tell())
        running = asyncio.ensure_future(here["run"]())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done() and running.exception():
            raise ChildProcessError(str(running.exception()))
        print(json.dumps({"waits": waits.milliseconds, "done": waits.times}), flush=True)
        telling.cancel()
        running.cancel()  # so that it leaves nothing behind that the next one must wait for
        await asyncio.wait({running}, timeout=STOP_SECONDS)
    return {}


ROLES: dict[str, Callable[[Any, str, Given], Coroutine[Any, Any, Given]]] = {
    "set_up": set_up, "submit": submit, "bulk": bulk, "feed": feed, "trickle": trickle,
    "work": work,
}  # fmt: skip

if __name__ == "__main__":
    name, role, url, text = sys.argv[1:]
    sys.path.pop(0)
    print(json.dumps(uvloop.run(ROLES[role](system(name), url, json.loads(text)))), flush=True)
