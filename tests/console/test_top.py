"""`runfold top`: what is alive, on one screen; and screens that renew themselves."""

from __future__ import annotations

import os
import pty
import select
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len

from runfold.console.cli.commands.top import alive, screen
from runfold.ledger import Ledger
from tests.support.forked import Forked
from tests.support.runs import claimed
from tests.support.waiting import BOUND


async def test_a_sample_has_live_states_workers_and_the_oldest_that_waits(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    waiting = await ledger.submit("page")

    sample = await alive(ledger)

    assert sample["states"]["pending"] == 1
    assert sample["states"]["running"] == 1
    assert "completed" not in sample["states"]
    assert sample["oldest_pending_at"] == waiting.available_at
    assert [one["worker_id"] for one in sample["workers"]] == [lease.worker_id]
    assert sample["refusals"] == []


@pytest.mark.parametrize("width", [80, 40])
def test_a_screen_fits_its_terminal(width: int) -> None:
    now = datetime.now(UTC)
    lease = {"leases": 3, "heard_at": None, "ends_first": now - timedelta(seconds=5)}
    sample: dict[str, Any] = {
        "project": "test",
        "at": now,
        "states": {"pending": 10_000, "running": 2},
        "oldest_pending_at": now - timedelta(days=2),
        "workers": [{"worker_id": f"host-of-a-long-name:{n}", **lease} for n in range(100)],
        "refusals": [
            {"run_id": f"{'0' * 35}{n}", "worker_id": "w", "name": "complete", "recorded_at": now}
            for n in range(5)
        ],
    }
    lines = screen(sample, width, 24)
    assert len(lines) == 24
    assert max(cell_len(line.plain) for line in lines) <= width
    assert any("complete" in line.plain for line in lines)
    assert len(screen(sample, width, None)) > 100


DRAWN = """
import asyncio
from rich.text import Text
from runfold.console.cli.kit.live_screen import renew

async def draw(width, height):
    draw.times = getattr(draw, "times", 0) + 1
    return [Text(f"drawn {draw.times}")] * 500

asyncio.run(renew(draw, 0.05))
"""


def test_a_screen_renews_itself_until_q() -> None:
    shell, terminal = pty.openpty()
    shown = Forked[bytes](
        [sys.executable, "-c", DRAWN], stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    try:
        seen = b""
        while b"drawn 2" not in seen:
            assert select.select([shell], [], [], BOUND)[0], seen
            seen += os.read(shell, 65_536)
        os.write(shell, b"q")
        with suppress(OSError):  # at the end of the other side
            while select.select([shell], [], [], BOUND)[0]:
                seen += os.read(shell, 65_536)
        assert shown.wait(BOUND) == 0
        assert b"\x1b[?1049l" in seen  # the screen of before is back
    finally:
        shown.kill()
        os.close(shell)
