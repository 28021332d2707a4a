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


class Waits:
    """The milliseconds from the submission of each job to its start."""

    def __init__(self, first: Path) -> None:
        self._first = first
        """Where the time of the first job is written."""
        self.milliseconds = list[float]()

    def note(self, asked_at: float) -> None:
        """Note the wait of one job."""
        if not self.milliseconds:
            self._first.write_text(str(time.time()))
        self.milliseconds.append((time.time() - asked_at) * 1_000)


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
    return {"keeps": which.KEEPS, "gives_up": which.GIVES_UP, "unfinished": which.UNFINISHED,
            "part": getattr(which, "PART", 1.0)}  # fmt: skip


async def submit(which: Any, url: str, given: Given) -> Given:
    """Submit one by one, by so many callers at once."""
    async with which.opened(url, 1, print) as here:
        numbers = iter(range(given["count"]))

        async def caller() -> None:
            for _ in numbers:
                await here["submit"](time.time())

        await here["submit"](time.time())
        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(given["callers"])))
        return {"rate": given["count"] / (time.perf_counter() - start)}


async def bulk(which: Any, url: str, given: Given) -> Given:
    """Submit a thousand a call."""
    async with which.opened(url, 1, print) as here:
        start, left = time.perf_counter(), given["count"]
        while left > 0:
            await here["submit_many"]([time.time()] * min(left, 1_000))
            left -= 1_000
        return {"rate": given["count"] / (time.perf_counter() - start)}


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
        running = asyncio.ensure_future(here["run"]())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done() and running.exception():
            raise ChildProcessError(str(running.exception()))
        print(json.dumps({"waits": waits.milliseconds}), flush=True)
        running.cancel()  # so that it leaves nothing behind that the next one must wait for
        await asyncio.wait({running}, timeout=STOP_SECONDS)
    return {}


ROLES: dict[str, Callable[[Any, str, Given], Coroutine[Any, Any, Given]]] = {
    "set_up": set_up, "submit": submit, "bulk": bulk, "trickle": trickle, "work": work,
}  # fmt: skip

if __name__ == "__main__":
    name, role, url, text = sys.argv[1:]
    sys.path.pop(0)
    print(json.dumps(uvloop.run(ROLES[role](system(name), url, json.loads(text)))), flush=True)
