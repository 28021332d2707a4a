"""The commands of projections: rows, what is set aside and tried again, and dropping one."""

from __future__ import annotations

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger
from runfold.projections import CatchUp, Projection, Source, install, last, once
from tests.support.console import Cli, cli
from tests.support.projections import read, sizes

__all__ = ["cli"]


async def _reads(ledger: Ledger) -> None:
    for size in ("2", '"many"'):
        await read(ledger, (await ledger.submit("parse")).run_id, size)
    await install(ledger.pool, sizes())
    await CatchUp(ledger.pool, sizes()).to_the_end()


def test_rows_are_shown_and_filtered(cli: Cli) -> None:
    cli.given(_reads)

    assert cli.ok("projections", "show", "sizes").out.split() == [
        "KIND", "READS", "SIZE", "parse", "1", "2",
    ]  # fmt: skip
    nothing = cli.ok("projections", "show", "sizes", "--where", "kind=mail")
    assert (nothing.out, nothing.err) == ("", "no rows\n")
    row = cli.ok("projections", "show", "sizes", "--where", "kind=parse", "--json").json
    assert row == {"kind": "parse", "reads": 1, "size": 2}
    cli.fails(exits.USAGE, "projections", "show", "sizes", "--where", "kind")
    cli.fails(exits.NOT_FOUND, "projections", "show", "size")


async def _of_every_form(ledger: Ledger) -> None:
    await ledger.submit("parse", tags=["a", "b"])
    form = Projection(
        "form",
        key={"kind": "kind"},
        columns={
            "tags": once("tags"),
            "seed": last(Source("'\\x00ff'::bytea", "bytea")),
            "early": last(Source("event.version = 1", "boolean")),
            "end": last(Source("'infinity'", "timestamptz")),
        },
    )
    await install(ledger.pool, form)
    await CatchUp(ledger.pool, form).to_the_end()


def test_values_are_shown_as_where_takes_them(cli: Cli) -> None:
    cli.given(_of_every_form)
    words = ("projections", "show", "form", "--where")
    for condition in ("seed=\\x00ff", "early=true", "end=infinity"):
        shown = cli.ok(*words, condition).out.splitlines()[1]
        assert shown.split() == ["parse", "a,", "b", "\\x00ff", "true", "infinity"]
    assert cli.ok(*words, "early=true", "--json").json["end"] == "infinity"


def test_runs_that_are_set_aside_are_named_until_they_are_folded(cli: Cli) -> None:
    cli.given(_reads)
    status = cli("projections", "status", "sizes")
    assert status.code == exits.INTEGRITY
    assert "1 run set aside" in status.out
    assert '"many"' in status.out
    assert "projections resume sizes" in status.err
    assert "to try again: 1 run set aside" in cli.ok("projections", "resume", "sizes").err


def test_a_projection_is_dropped_with_its_tables_and_is_new_again(cli: Cli) -> None:
    cli.given(_reads)
    dropped = cli.ok("projections", "drop", "sizes", "--json").json
    assert dropped == {"name": "sizes", "dropped": ["projection.sizes_v1"]}
    cli.fails(exits.NOT_FOUND, "projections", "drop", "sizes")
    cli.fails(exits.NOT_FOUND, "projections", "show", "sizes")


@pytest.mark.parametrize("name", ["sizes; DROP TABLE ledger.event", "run_state"])
def test_nothing_else_is_dropped(cli: Cli, name: str) -> None:
    cli.fails(exits.NOT_FOUND, "projections", "drop", name)


def test_a_pause_and_what_follows_it_are_told_as_json(cli: Cli) -> None:
    cli.given(_reads)

    paused = cli.ok("projections", "pause", "sizes", "--json")
    assert paused.json["name"] == "sizes"
    assert cli("projections", "status", "sizes", "--json").lines[0]["state"] == "paused"
    assert cli.ok("projections", "resume", "sizes", "--json").json["name"] == "sizes"
    assert cli("projections", "status", "sizes", "--json").lines[0]["state"] != "paused"
