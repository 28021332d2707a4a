"""`runfold metrics`, scraped for real; and `runfold trace`, sent to a real receiver of OTLP."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock
from urllib.request import urlopen
from uuid import UUID

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from runfold.console.cli.commands import metrics
from runfold.console.cli.commands.trace import send_each
from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, State
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.events import NoteAdded, StepCompleted
from runfold.projections.telemetry.metrics import Rows
from runfold.projections.telemetry.otlp import NotExported
from runfold.projections.telemetry.trace import spans
from tests.support.console import Cli, cli
from tests.support.forked import Forked
from tests.support.runs import TINY, claimed
from tests.support.waiting import BOUND, lapsed, until

__all__ = ["cli"]


async def story(ledger: Ledger) -> UUID:
    """A run that loses a worker, asks a tool and a person, and completes; and one that waits."""
    await ledger.submit("waits", key="waits")
    await ledger.signal((await ledger.runs(kind="waits"))[0].run_id, "x")
    run = await ledger.submit("parse", {"secret": "s3cret"})
    [lost] = await ledger.claim("w:1", kinds=["parse"], ttl=TINY)
    await ledger.append(lost, NoteAdded(text="begun"))
    await lapsed(ledger, lost)
    await ledger.reap()
    [lease] = await ledger.claim("w:2", kinds=["parse"])
    [lease] = await ledger.heartbeat([lease])
    await ledger.append(lease, NoteAdded(text="half way"))
    await ledger.append(
        lease, StepCompleted(name="read", output="s3cret", cost_usd=0.5, step_count=1)
    )
    await ledger.transition(lease, State.WAITING_TOOL, name="browser")
    await ledger.transition(lease, State.RUNNING, error_code="E-TOOL", error_detail="no")
    await ledger.transition(
        lease, State.WAITING_APPROVAL, park=True, name="pay", content={"prompt": "Pay?"}
    )
    await ledger.approve(await ledger.get(run.run_id), actor="ann")
    [lease] = await ledger.claim("w:2", kinds=["parse"])
    await ledger.transition(lease, State.COMPLETED)
    return run.run_id


def scraped(text: str) -> dict[tuple[str, ...], float]:
    """Return every sample: its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_metrics_are_what_the_events_say(cli: Cli) -> None:
    bare = scraped(cli.ok("metrics", "--once").out)
    assert bare == {("runfold_up",): 1.0}
    cli.given(story)
    cli.ok("projections", "run", "--once")

    found = scraped(cli.ok("metrics", "--once").out)

    assert found["runfold_runs", "waits", "test", "pending"] == 1
    assert found["runfold_runs", "parse", "test", "completed"] == 1
    assert found["runfold_runs", "parse", "test", "running"] == 0
    assert found["runfold_run_transitions_total", "parse", "test", "running"] == 4
    assert found["runfold_cost_usd_total", "parse", "test"] == 0.5
    assert found["runfold_leases_total", "test"] == 3
    assert found["runfold_leases_lost_total", "test"] == 1
    assert found["runfold_workers", "test"] == 2
    assert found["runfold_claimable_wait_seconds", "waits", "test"] > 0
    assert ("runfold_claimable_wait_seconds", "parse", "test") not in found
    assert found["runfold_projection_behind_positions", "run_counts"] == 0
    assert found["runfold_projection_stopped", "run_counts"] == 0


def takes_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize("host", ["127.0.0.1", *(["::1"] if takes_ipv6() else [])])
def test_they_are_scraped_over_http_until_it_is_told_to_stop(cli: Cli, host: str) -> None:
    words = [
        sys.executable,
        "-m",
        "runfold.console.cli.entry",
        "--url",
        cli.url,
        "metrics",
        "--host",
        host,
        "--port",
        "0",
    ]
    with Forked[str](
        words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as serving:
        assert serving.stderr is not None
        said = serving.stderr.readline()
        url = said.split()[2].rstrip(",")
        with urlopen(url, timeout=BOUND) as answer:  # noqa: S310  our own
            assert scraped(answer.read().decode())[("runfold_up",)] == 1
        port = url.rsplit(":", 1)[1].split("/")[0]
        assert (
            "give another --port"
            in cli.fails(exits.ERROR, "metrics", "--host", host, "--port", port).err
        )
        assert (
            "give another --host"
            in cli.fails(exits.ERROR, "metrics", "--host", "no.such.host.invalid").err
        )
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(BOUND) == 0


async def test_a_scrape_that_fails_logs_each_cause_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["gone", "gone", "full", None, "gone"])

    async def look(_: object) -> dict[str, Rows]:
        if reason := next(answers):
            raise DatabaseUnavailable(None, reason)
        return {}

    monkeypatch.setattr(metrics, "look", look)
    collector = metrics.Collector(Mock(), asyncio.get_running_loop())

    with structlog.testing.capture_logs() as lines:
        scrapes = [await asyncio.to_thread(list, collector.collect()) for _ in range(5)]

    assert [up.samples[0].value for up, *_ in scrapes] == [0, 0, 0, 1, 0]
    assert [line["event"] for line in lines] == ["scrape_failed"] * 3
    for line, reason in zip(lines, ("gone", "full", "gone"), strict=True):
        assert reason in line["reason"]


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Any]]]:
    """The URL of a receiver of OTLP, and the requests that it got."""
    got: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            import gzip

            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            got.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


def test_a_run_is_a_trace_whose_spans_are_the_same_whenever_it_is_sent(
    cli: Cli, receiver: tuple[str, list[Any]]
) -> None:
    url, got = receiver
    run_id = cli.given(story)

    assert cli.ok("trace", str(run_id), "--otlp", url).out.startswith(run_id.hex)
    cli.ok("trace", str(run_id), "--otlp", f"{url}/v1/traces", "--service", "payments")

    assert [path for path, _ in got] == ["/v1/traces"] * 2
    first, second = (list(request.resource_spans[0].scope_spans[0].spans) for _, request in got)
    assert [(span.trace_id, span.span_id) for span in first] == [
        (span.trace_id, span.span_id) for span in second
    ]
    assert {span.trace_id for span in first} == {run_id.bytes}
    by_name = {span.name: span for span in first}
    root = by_name["run parse"]
    assert set(by_name) == {
        "run parse",
        "queued",
        "attempt 1",
        "attempt 2",
        "step read",
        "tool browser",
        "approval pay",
    }
    parents = {
        span.name: {one.span_id: one.name for one in first}.get(span.parent_span_id)
        for span in first
    }
    assert parents["run parse"] is None
    assert parents["step read"] == parents["tool browser"] == "attempt 2"
    assert parents["approval pay"] == parents["attempt 1"] == parents["queued"] == "run parse"
    assert by_name["attempt 1"].status.code == by_name["tool browser"].status.code == 2
    assert (root.status.code, by_name["tool browser"].status.message) == (1, "E-TOOL")
    assert (
        root.start_time_unix_nano
        <= by_name["attempt 1"].start_time_unix_nano
        < root.end_time_unix_nano
    )
    second_attempts = [span for span in first if span.name == "attempt 2"]
    assert [[event.name for event in span.events] for span in second_attempts] == [
        ["lease.heartbeat", "note.added"], [],
    ]  # fmt: skip
    assert "s3cret" not in str(got)
    services = [request.resource_spans[0].resource.attributes for _, request in got]
    assert ["runfold" in str(services[0]), "payments" in str(services[1])] == [True, True]


def test_a_trace_is_shown_as_a_list(cli: Cli) -> None:
    run_id = cli.given(story)

    lines = cli.ok("trace", str(run_id)[:18]).out.splitlines()

    assert lines[0].startswith("run parse  ")
    assert any(line.startswith("    step read") for line in lines)
    assert any(line.startswith("  attempt 1") and "failed E-RUN-001" in line for line in lines)
    assert cli.ok("trace", str(run_id), "--json").lines[0]["trace_id"] == run_id.hex


async def test_an_open_run_has_open_spans(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    found = spans(lease.run_id, await ledger.history(lease.run_id))
    assert [(span.name, span.end is None) for span in found] == [
        ("run parse", True),
        ("queued", False),
        ("attempt 1", True),
    ]
    assert spans(lease.run_id, []) == []


def test_every_run_that_ends_is_sent_while_it_follows(
    cli: Cli, receiver: tuple[str, list[Any]]
) -> None:
    url, got = receiver
    run_id = cli.given(story)
    words = [
        sys.executable, "-m", "runfold.console.cli.entry", "--url", cli.url, "--project", "test",
        "trace", "--follow", "--otlp", url, "--after", "1/1:1:@0//0",
    ]  # fmt: skip
    with Forked[str](
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline().startswith(run_id.hex)
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=BOUND)
    assert len(got) == 1
    assert "to continue from here: runfold trace --follow --after" in said


async def test_the_first_run_that_a_receiver_does_not_take_is_where_to_continue(
    ledger: Ledger,
) -> None:
    said: list[str] = []
    session: Any = SimpleNamespace(out=SimpleNamespace(talk=said.append), as_json=False)

    def refuse(_: object) -> None:
        raise NotExported("http://away.example", "no answer")

    sender: Any = SimpleNamespace(url="http://away.example", send=refuse)
    following = asyncio.create_task(send_each(session, ledger, sender, None))

    async def has_ended() -> bool:
        await ledger.cancel((await ledger.submit("parse")).run_id)
        return following.done()

    await until(has_ended)
    with pytest.raises(NotExported):
        await following
    [line] = said
    place = line.split("--after ")[1].split()[0]
    missed = [event async for event in ledger.subscribe(after=place, live=False)]
    assert "run.cancelled" in {event.type for event in missed}


def test_nonsense_is_refused_by_name(cli: Cli) -> None:
    run = str(cli.submitted())
    cli.fails(exits.USAGE, "trace")
    cli.fails(exits.USAGE, "trace", run, "--follow")
    cli.fails(exits.USAGE, "trace", "--follow")
    assert "ftp://x" in cli.fails(exits.USAGE, "trace", run, "--otlp", "ftp://x").err
    cli.fails(exits.NOT_FOUND, "trace", "01890000-0000-7000-8000-000000000000")
