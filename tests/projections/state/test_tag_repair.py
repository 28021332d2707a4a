"""Lists by tag that disagree with the events are put right again, on record."""

from __future__ import annotations

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, Run
from runfold.ledger.events import NoteAdded
from runfold.projections.state.tag_repair import TAGS_REPAIRED
from tests.support.console import Cli, cli, execute

__all__ = ["cli"]

HIDE = "DELETE FROM ledger.run_tag WHERE tag = 'one'"
INVENT = "UPDATE ledger.run_tag SET tag = 'other' WHERE tag = 'one'"
OTHER_KIND = "UPDATE ledger.run_tag SET kind = 'other' WHERE tag = 'one'"
NO_RUN = (
    "INSERT INTO ledger.run_tag SELECT project_id, 'one', kind, gen_random_uuid() "
    "FROM ledger.run_tag WHERE tag = 'one'"
)
BOTH = f"WITH gone AS ({HIDE}) UPDATE ledger.run_state SET tags = '{{bad,two}}'"


@pytest.mark.parametrize(
    ("change", "wrong", "notes"),
    [(HIDE, 1, 1), (INVENT, 2, 2), (OTHER_KIND, 2, 2), (NO_RUN, 1, 0), (BOTH, 1, 1)],
)
def test_a_list_by_tag_is_repaired_by_the_command_that_finds_it(
    cli: Cli, change: str, wrong: int, notes: int
) -> None:
    async def submitted(ledger: Ledger) -> Run:
        return await ledger.submit("parse", tags=["one", "two"])

    async def seen(ledger: Ledger) -> tuple[list[Run], list[NoteAdded]]:
        written = await ledger.history(run.run_id)
        return await ledger.runs(tag="one"), [e for e in written if isinstance(e, NoteAdded)]

    run = cli.given(submitted)
    execute(cli.url, change)

    cli.fails(exits.USAGE, "drift", "--repair")
    found = cli("drift")
    assert found.code == exits.INTEGRITY
    assert "the list of" in found.out
    [*_, done] = cli("drift", "--repair", "--actor", "ann", "--reason", "a test", "--json").lines

    assert (done["tags"], done["repaired"]) == (wrong, True)
    assert cli.ok("drift", "--json").json["ok"]
    [listed], written = cli.given(seen)
    assert (listed.run_id, listed.tags) == (run.run_id, ("one", "two"))
    said = [note for note in written if note.name == TAGS_REPAIRED]
    assert "; ".join(str(note.text) for note in said).count("the list of 'o") == notes
    assert all(note.actor == "ann" and str(note.text).startswith("a test: ") for note in said)
