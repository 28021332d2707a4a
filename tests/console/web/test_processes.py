"""The server as a process: workers in other languages, streams that resume, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.ledger import Ledger, State
from runfold.ledger.reading import feed
from tests.support.forked import Forked
from tests.support.waiting import BOUND, until

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "howto" / "workers-in-any-language.md"
CLAIMED = (
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() "
    "AND state = 'idle' AND query LIKE '%ledger.claim(%' AND pid <> pg_backend_pid())"
)


def blocks(language: str) -> list[str]:
    """Return the blocks of a language in the page on workers in any language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@contextmanager
def serving(database: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `runfold serve` on a free port; yield its address and the process."""
    words = ["--url", database, "--project", "test", "serve", "--port", "0"]
    with Forked[str](
        [sys.executable, "-m", "runfold.console.cli.entry", *words],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            address = re.search(r"http://\S+?(?=,)", process.stderr.readline())
            assert address, process.stderr.read()
            yield address[0], process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_a_run_is_done_with_curl_alone(database: str, ledger: Ledger) -> None:
    with serving(database) as (address, _):
        script = "set -e\n" + "".join(blocks("sh")).replace("http://127.0.0.1:7700", address)
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=BOUND,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    *later, run = sorted(await ledger.runs(), key=lambda each: each.run_id, reverse=True)
    assert [each.key for each in later] == ["order-19", "order-18"]
    assert f'"{(await ledger.history(run.run_id))[-1].hash.hex()}"' in done.stdout
    assert '"ok":true' in done.stdout.replace(" ", "")
    assert (run.state, run.output, run.step_count) == (State.COMPLETED, {"width": 640}, 0)
    types = [event.type for event in await ledger.history(run.run_id)]
    assert types == [
        "run.submitted", "lease.acquired", "lease.heartbeat", "step.completed", "run.completed",
    ]  # fmt: skip
    assert '"type":"run.completed"' in done.stdout


OFFLINE = """
const [plain, every] = [fetch, setInterval];
let beats = 0, failed;
const offline = new Promise((done) => { failed = done; });
globalThis.setInterval = (beat) => every(beat, 1);
globalThis.fetch = async (url, asked) => {
  if (url.endsWith("/heartbeats") && beats++) {
    setImmediate(failed);
    throw new Error("no network");
  }
  if (url.endsWith("/steps")) await offline;
  return plain(url, asked);
};
"""
"""Has each heartbeat but the first fail, once at least before the worker's step is recorded."""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
async def test_a_run_is_done_from_submit_to_history_with_fetch_alone(
    database: str, ledger: Ledger, tmp_path: Path
) -> None:
    program = tmp_path / "worker.mjs"
    program.write_text(OFFLINE + "".join(blocks("javascript")))
    with serving(database) as (address, _):
        environment = {**os.environ, "RUNFOLD_API": f"{address}/v1"}
        done = await asyncio.to_thread(
            subprocess.run,
            ["node", str(program)],
            env=environment, capture_output=True, text=True, check=False, timeout=BOUND,
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    [after] = await ledger.runs()
    assert (after.key, after.state) == ("order-20", State.COMPLETED)
    assert after.output == {"thumbnail": "b.png.t"}
    types = [event.type for event in await ledger.history(after.run_id)]
    assert types == [
        "run.submitted", "lease.acquired", "lease.heartbeat", "step.completed", "run.completed",
    ]  # fmt: skip
    assert done.stdout == f'completed {{"thumbnail":"b.png.t"}} {" ".join(types)}\n'


async def test_a_stream_resumes_after_its_last_event_and_ends_with_the_server(
    database: str, ledger: Ledger
) -> None:
    first, second = await ledger.submit("a"), await ledger.submit("b")
    with serving(database) as (address, process):
        async with httpx.AsyncClient(base_url=address, timeout=BOUND) as client:
            ids, runs = await read(client, 1, {"Last-Event-ID": ""}, "?after=start")
            _, rest = await read(client, 1, {"Last-Event-ID": ids[-1]})
            async with client.stream("GET", "/v1/events") as open_stream:
                process.send_signal(signal.SIGTERM)
                assert [line async for line in open_stream.aiter_lines() if "data" in line] == []
        assert process.wait(timeout=BOUND) == 0
    assert [*runs, *rest] == [str(first.run_id), str(second.run_id)]


@pytest.mark.parametrize("path", ["/v1/events", "/p/test/live"])
async def test_what_is_committed_once_a_stream_is_open_comes_in_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    now, begins, may_begin = feed.now, asyncio.Event(), asyncio.Event()
    sent: list[str] = []

    async def later(pool: Any) -> feed.Checkpoint:
        begins.set()
        await may_begin.wait()
        return await now(pool)

    asked = [{"type": "http.request"}]

    async def receive() -> Any:
        return asked.pop() if asked else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message["type"] + str(message.get("body", b"")))

    monkeypatch.setattr(feed, "now", later)
    served = app(ledger, Options(open=True))
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http",
    }  # fmt: skip
    async with served.router.lifespan_context(served):
        stream = asyncio.create_task(served(scope, receive, send))
        await asyncio.wait_for(begins.wait(), BOUND)
        assert sent == []  # not open before its place in the feed is known
        may_begin.set()
        await until(lambda: sent)
        await ledger.submit("a")
        await until(lambda: len(sent) > 1)
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)


async def test_a_page_is_told_of_changes_to_its_project_or_its_run_alone(
    database: str, ledger: Ledger
) -> None:
    watched = await ledger.submit("a")
    with serving(database) as (address, _):
        async with httpx.AsyncClient(base_url=address, timeout=BOUND) as client:
            whole, one = "/p/test/live", f"/p/test/live?run={watched.run_id}"
            async with client.stream("GET", whole) as all_runs, client.stream("GET", one) as single:
                assert all_runs.headers["content-type"].startswith("text/event-stream")
                await ledger.submit_many({"kind": "b"} for _ in range(200))
                lines = all_runs.aiter_lines()
                told = [line async for line in _message(lines)]
                await ledger.cancel(watched.run_id)
                of_one = [line async for line in _message(single.aiter_lines())]
            assert "event: change" in told
            assert not any("run_id" in line for line in [*told, *of_one])  # nothing to read there
            resumed = {"Last-Event-ID": next(each[4:] for each in told if each.startswith("id: "))}
            async with client.stream("GET", whole, headers=resumed) as again:
                assert [line async for line in _message(again.aiter_lines())]


async def _message(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield the lines of the next message; comments keep the connection, and say nothing."""
    begun = False
    async for line in lines:
        begun |= line.startswith("event:")
        if begun and not line:
            return
        if not line.startswith(":"):
            yield line


async def read(
    client: httpx.AsyncClient, count: int, headers: dict[str, str], query: str = ""
) -> tuple[list[str], list[str]]:
    """Read events of the stream; return their ids and their runs."""
    ids: list[str] = []
    runs: list[str] = []
    async with client.stream("GET", f"/v1/events{query}", headers=headers) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("id:"):
                ids.append(line.removeprefix("id:").strip())
            if line.startswith("data:"):
                runs.append(json.loads(line.removeprefix("data:"))["run_id"])
            if len(ids) >= count and len(runs) >= count and not line:
                break
    return ids, runs


async def test_a_claim_that_waits_gets_the_run_that_comes(database: str, ledger: Ledger) -> None:
    with serving(database) as (address, _):
        async with httpx.AsyncClient(base_url=address, timeout=BOUND) as client:
            asked = {"worker_id": "w:1", "wait": 60}
            waiting = asyncio.create_task(client.post("/v1/claims", json=asked))
            await client.get("/v1/health")
            run = await ledger.submit("parse")
            answer = await waiting

    assert answer.json()["leases"][0]["run_id"] == str(run.run_id)


async def test_a_caller_that_went_away_while_it_waited_claims_nothing(
    database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_POLL_SECONDS", "3600")  # only a run that comes ends the wait
    with serving(database) as (address, _):
        async with httpx.AsyncClient(base_url=address, timeout=BOUND) as client:
            asked = {"worker_id": "w:1", "wait": 60}
            gone = asyncio.create_task(client.post("/v1/claims", json=asked))
            await until(lambda: ledger.pool.fetchval(CLAIMED))
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            await client.get("/v1/health")  # answered after what came before it: the hanging up
            run = await ledger.submit("parse")
            answer = await client.post("/v1/claims", json={"worker_id": "w:2"})

    [lease] = answer.json()["leases"]
    assert (lease["run_id"], lease["attempt"]) == (str(run.run_id), 1)
