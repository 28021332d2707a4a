"""The command line of the archive: list, export, detach, attach, hold, release, history, check."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger
from runfold.ledger.postgres.urls import driver_url
from tests.support.archiving import ended
from tests.support.console import Cli, cli
from tests.support.past_month import MONTH, in_that_month

__all__ = ["cli"]


def given(cli: Cli) -> UUID:
    """Have one ended run in a month that is over."""

    async def run(ledger: Ledger) -> UUID:
        connection = await asyncpg.connect(driver_url(str(ledger.url)))
        try:
            async with in_that_month(connection):
                return await ended(ledger)
        finally:
            await connection.close()

    run_id: UUID = cli.given(run)
    return run_id


def months(cli: Cli) -> dict[str, Any]:
    """Return every month by name."""
    return {line["month"]: line for line in cli.ok("archive", "list", "--json").lines}


def test_a_month_goes_to_a_file_and_back(cli: Cli, tmp_path: Path) -> None:
    run = str(given(cli))
    before = cli.ok("history", run, "--json").lines
    assert months(cli)[MONTH]["state"] == "open"
    assert "ready" in cli.ok("archive", "export", MONTH, "--dry-run").out
    assert "RUNFOLD_ARCHIVE" in cli.fails(exits.ERROR, "archive", "export", MONTH).err
    (tmp_path / "file").touch()
    full = ("archive", "export", MONTH, "--to", str(tmp_path / "file"))
    assert "cannot be written" in cli.fails(exits.ERROR, *full).err

    said = cli.ok(
        "archive", "export", MONTH, "--to", str(tmp_path), "--actor", "ann", "--reason", "old"
    ).out
    exported = months(cli)[MONTH]["archive"]
    assert exported["sha256"] in said
    assert "ready" in cli.ok("archive", "detach", MONTH, "--dry-run").out
    cli.ok("archive", "detach", MONTH, "--actor", "ann")

    assert months(cli)[MONTH]["state"] == "detached"
    assert months(cli)[MONTH]["bytes"] is None
    assert f"{MONTH}  detached" in cli.ok("archive", "list").out
    assert cli.ok("history", run, "--json").lines == before
    assert cli.ok("verify").out.startswith("ok: 1 run, 5 events")
    assert "archived" in cli.ok("whatif", "--ttl", "1s").err
    checked = cli.ok("archive", "check", exported["file"], "--json").json
    assert (checked["ok"], checked["events"], checked["sha256"]) == (True, 5, exported["sha256"])
    assert exported["sha256"] in cli.ok("archive", "check", exported["file"]).out
    cli.fails(exits.USAGE, "archive", "check", str(tmp_path / "none.parquet"))

    assert f"archive attach {MONTH}" in cli.fails(exits.CONFLICT, "rerun", run).err
    assert cli.ok("runs", "--count", "--json").json["total"] == 1, "nothing is half-written"
    moved = Path(exported["file"]).rename(tmp_path / "moved.parquet")
    error = cli.fails(exits.INTEGRITY, "history", run).err
    assert "cannot be read (No such file or directory)" in error
    moved.rename(exported["file"])

    assert cli.ok("archive", "attach", MONTH, "--json").json["events"] == 5
    assert months(cli)[MONTH]["state"] == "attached"
    history = cli.ok("archive", "history", MONTH).out
    assert [line.split()[4] for line in history.splitlines()] == [
        "archive.exported",
        "archive.detached",
        "archive.attached",
    ]
    assert "ann" in history
    assert "old" in history


def test_holds_are_placed_released_and_in_the_way(cli: Cli, tmp_path: Path) -> None:
    run = str(given(cli))

    cli.ok("archive", "hold", MONTH, "--reason", "case 7", "--actor", "ann")
    assert cli.ok("archive", "hold", run[:18], "--reason", "case 8", "--json").json == {
        "placed": run
    }
    assert months(cli)[MONTH]["holds"] == 2
    blocked = cli("archive", "export", MONTH, "--dry-run")
    assert blocked.code == exits.CONFLICT
    assert "obstacle: ann holds the month: case 7" in blocked.out
    error = cli.fails(
        exits.CONFLICT, "archive", "export", MONTH, "--to", str(tmp_path), "--json"
    ).error
    assert (error["type"], error["month"], len(error["obstacles"])) == ("ArchiveRefused", MONTH, 2)
    assert not list(tmp_path.iterdir())

    cli.ok("archive", "release", MONTH, "--reason", "closed")
    cli.ok("archive", "release", run, "--reason", "closed")
    cli.fails(exits.CONFLICT, "archive", "release", run, "--reason", "closed")
    assert "ready" in cli.ok("archive", "export", MONTH, "--dry-run").out
    assert len(cli.ok("archive", "history", "--json").lines) == 4


def test_nonsense_is_refused_by_name(cli: Cli) -> None:
    assert "2026-13" in cli.fails(exits.USAGE, "archive", "export", "2026-13", "--dry-run").err
    cli.fails(exits.CONFLICT, "archive", "detach", "1999-01")
    cli.fails(exits.CONFLICT, "archive", "attach", "1999-01")
    cli.fails(
        exits.NOT_FOUND, "archive", "hold", "01890000-0000-7000-8000-000000000000", "--reason", "x"
    )
    cli.fails(exits.USAGE, "archive", "hold", "1999-01")
    assert "nothing was archived" in cli.ok("archive", "history").err
