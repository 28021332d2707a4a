"""A run that cannot be folded is set aside and named; others go on, and it may be taken up."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from runfold.ledger import Ledger, names
from runfold.ledger.reading import feed
from runfold.projections import Projection, Source, count, field, first, of_run, refold
from runfold.projections.declared import statements
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import declared, install
from runfold.projections.declared.interventions import resume, retry, skip, skip_event
from runfold.projections.declared.status import set_aside, statuses
from runfold.projections.errors import NotStopped, ProjectionNotFound, RebuildFailed
from tests.support.databases import PROJECT
from tests.support.projections import append, append_by_newer_code, read, sizes, sizes_of

BAD = '"many"'


async def caught_up(ledger: Ledger, projection: Projection, batch: int = 5_000) -> None:
    """Install the projection and take every event."""
    await install(ledger.pool, projection)
    await CatchUp(ledger.pool, projection, batch=batch).to_the_end()


async def runs(ledger: Ledger, *kinds: str) -> list[UUID]:
    """Submit a run of each kind."""
    return [(await ledger.submit(kind)).run_id for kind in kinds]


async def status_of(ledger: Ledger, projection: Projection) -> Any:
    """Return the status of the projection."""
    found = await statuses(ledger.pool, {projection.name: projection})
    return next(status for status in found if status.name == projection.name)


async def test_what_is_forgotten_is_of_one_table_and_one_run_or_of_its_rebuild(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    one, two = UUID(int=1), UUID(int=2)
    rows = {(table, run, place) for table in "ab" for run, place in ((one, 7), (two, 0))}
    for given, gone in (
        ((PROJECT, one), ("a", one, 7)),
        (("other", one), None),
        ((None, None), ("a", two, 0)),
    ):
        with subtests.test(f"{given}"):
            await ledger.pool.execute("DELETE FROM ledger.projection_aside")
            await ledger.pool.executemany(
                "INSERT INTO ledger.projection_aside"
                " (relation, name, project_id, run_id, first_position, last_position)"
                " VALUES ($1, 'sizes', 'test', $2, $3, 9)",
                list(rows),
            )
            await ledger.pool.execute("SELECT ledger.forget_aside('a', $1, $2)", *given)
            left = await ledger.pool.fetch(
                "SELECT relation, run_id, first_position FROM ledger.projection_aside"
            )
            assert {tuple(row) for row in left} == rows - {gone}


async def test_a_status_is_told_though_what_is_set_aside_goes_meanwhile(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    projection, towards = sizes(), feed.towards
    [bad] = await runs(ledger, "parse")
    await read(ledger, bad, BAD)
    await caught_up(ledger, projection)

    async def rebuilt(*given: Any) -> Any:
        await ledger.pool.execute("DELETE FROM ledger.projection_aside")
        return await towards(*given)

    monkeypatch.setattr(feed, "towards", rebuilt)
    told = await status_of(ledger, projection)
    assert (told.set_aside, told.run_id) == (1, bad)
    assert (await status_of(ledger, projection)).set_aside == 0


@pytest.mark.parametrize("batch", [1, 3, 5_000])
async def test_a_run_that_cannot_be_folded_is_set_aside_and_all_others_go_on(
    ledger: Ledger, batch: int
) -> None:
    bad, good = await runs(ledger, "parse", "mail")
    for run, size in ((bad, "1"), (good, "2"), (bad, BAD), (good, "4"), (bad, "8")):
        await read(ledger, run, size)

    await caught_up(ledger, sizes(), batch)
    await read(ledger, bad, "16")
    await read(ledger, good, "32")
    await caught_up(ledger, sizes(), batch)

    assert await sizes_of(ledger) == [("mail", 3, 38), ("parse", 1, 1)]
    status = await status_of(ledger, sizes())
    assert (status.state, status.behind, status.set_aside) == ("current", 0, 1)
    assert (status.run_id, status.event_version) == (bad, 3)
    assert '"many"' in status.error
    [aside] = await set_aside(ledger.pool, "sizes")
    assert (aside.run_id, aside.event_version, aside.events) == (bad, 3, 3)
    assert not aside.retrying


async def test_one_project_stops_no_shipped_projection_of_another(
    unverified_database: str,
) -> None:
    async with (
        Ledger.open(unverified_database, PROJECT) as ledger,
        Ledger.open(unverified_database, "other", create_project=True) as other,
    ):
        [poison] = await runs(other, "mail")
        await append_by_newer_code(other, poison, "note.added")
        for projection in declared().values():
            await caught_up(ledger, projection)
        await runs(ledger, "parse")
        [lease] = await ledger.claim("w1")
        await ledger.transition(lease, "completed", cost_usd_delta=1)
        for projection in declared().values():
            await caught_up(ledger, projection)
            status = await status_of(ledger, projection)
            assert (status.behind, status.error is None) == (0, not status.set_aside)

        spent = (
            "SELECT project_id, cost_usd, completed FROM projection.spending WHERE completed > 0"
        )
        assert [tuple(row) for row in await ledger.pool.fetch(spent)] == [("test", 1, 1)]


async def test_a_run_is_taken_up_where_it_was_left_once_its_event_is_skipped(
    ledger: Ledger,
) -> None:
    [bad] = await runs(ledger, "parse")
    for size in ("1", BAD, "4", "8"):
        await read(ledger, bad, size)
    await caught_up(ledger, sizes())

    skipped = await skip(ledger.pool, "sizes", actor="ann", reason="a defect of the sender")
    [aside] = await set_aside(ledger.pool, "sizes")
    await caught_up(ledger, sizes())

    assert skipped == (bad, 3)
    assert aside.retrying
    assert await sizes_of(ledger) == [("parse", 3, 13)]
    assert await set_aside(ledger.pool, "sizes") == []
    status = await status_of(ledger, sizes())
    assert (status.state, status.skipped, status.set_aside) == ("current", 1, 0)
    with pytest.raises(NotStopped):
        await skip(ledger.pool, "sizes", actor="ann", reason="again")
    record = "SELECT actor, reason, event_version FROM ledger.projection_skip"
    assert [tuple(row) for row in await ledger.pool.fetch(record)] == [
        ("ann", "a defect of the sender", 3)
    ]


async def test_each_event_of_a_run_that_cannot_be_folded_is_skipped_in_turn(
    ledger: Ledger,
) -> None:
    """Also where a rebuild, which knows the run alone, has set it aside."""
    [bad] = await runs(ledger, "parse")
    for size in ("1", BAD, "4", '"more"', "8"):
        await read(ledger, bad, size)
    await caught_up(ledger, sizes())

    assert await skip(ledger.pool, "sizes", actor="ann", reason="a defect") == (bad, 3)
    await caught_up(ledger, sizes())
    assert await sizes_of(ledger) == [("parse", 2, 5)]
    [aside] = await set_aside(ledger.pool, "sizes")
    assert (aside.event_version, aside.events, aside.retrying) == (5, 2, False)
    assert "more" in (aside.error or "")

    # The live table has the run up to that event, and the rebuilt one nothing of it.
    assert (await refold(ledger.pool, sizes())).wrong is None
    await retry(ledger.pool, "sizes")
    await caught_up(ledger, sizes())
    assert await sizes_of(ledger) == [("parse", 2, 5)]
    assert await skip(ledger.pool, "sizes", actor="ann", reason="another") == (bad, 5)
    await caught_up(ledger, sizes())
    assert await sizes_of(ledger) == [("parse", 3, 13)]
    assert await set_aside(ledger.pool, "sizes") == []


async def test_a_run_that_is_tried_too_early_stays_aside_with_the_new_reason(
    ledger: Ledger,
) -> None:
    [first_bad, second_bad] = await runs(ledger, "parse", "mail")
    await read(ledger, first_bad, BAD)
    await read(ledger, second_bad, '"x"')
    await caught_up(ledger, sizes())

    assert await resume(ledger.pool, "sizes") == 2
    assert await retry(ledger.pool, "sizes", run_id=first_bad) == 1
    await caught_up(ledger, sizes())

    asides = await set_aside(ledger.pool, "sizes")
    assert {aside.run_id for aside in asides} == {first_bad, second_bad}
    assert not any(aside.retrying for aside in asides)
    with pytest.raises(ProjectionNotFound):
        await retry(ledger.pool, "size")


async def test_a_cause_that_was_mended_needs_no_skip(ledger: Ledger) -> None:
    await ledger.pool.execute(
        "CREATE FUNCTION public.weight(int) RETURNS int LANGUAGE sql AS 'SELECT 1 / ($1 - 2)'"
    )
    weighed = Projection(
        "weighed",
        key={"run_id": "run_id"},
        columns={
            "weight": first(Source("public.weight(event.version)", "int"), {"acme.read"}),
            "reads": count({"acme.read"}),
        },
    )
    [run] = await runs(ledger, "parse")
    await read(ledger, run, "1")
    await read(ledger, run, "1")
    await caught_up(ledger, weighed)
    assert (await status_of(ledger, weighed)).set_aside == 1

    await ledger.pool.execute(
        "CREATE OR REPLACE FUNCTION public.weight(int) RETURNS int LANGUAGE sql AS 'SELECT 10 + $1'"
    )
    await retry(ledger.pool, "weighed", project_id="test")
    await caught_up(ledger, weighed)

    rows = await ledger.pool.fetch("SELECT weight, reads FROM projection.weighed")
    assert [tuple(row) for row in rows] == [(12, 2)]


async def test_a_project_of_many_bad_runs_is_set_aside_as_a_whole_and_comes_back(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "RUNS_ASIDE", 2)
    monkeypatch.setattr("runfold.projections.declared.pages.RUNS_ASIDE", 2)
    tried = sizes()
    async with Ledger.open(database, "other", create_project=True) as other:
        bad = await runs(other, "a", "b")
        for run in bad:
            await read(other, run, BAD)
        await caught_up(ledger, tried)
        [late] = await runs(other, "c")
        await read(other, late, "1")
        [good] = await runs(ledger, "d")
        await read(ledger, good, "1")
        await caught_up(ledger, tried)
        assert await sizes_of(ledger) == [("d", 1, 1)]
        asides = await set_aside(ledger.pool, "sizes")
        assert [(aside.run_id in bad, aside.error is None) for aside in asides] == [
            (True, False), (True, False), (False, True),
        ]  # fmt: skip

        await skip_event(ledger.pool, tried, bad[0], 2, actor="ann", reason="a defect")
        await caught_up(ledger, tried)

    assert await sizes_of(ledger) == [("c", 1, 1), ("d", 1, 1)]
    assert [aside.run_id for aside in await set_aside(ledger.pool, "sizes")] == [bad[1]]


async def test_a_key_that_is_too_large_for_its_index_sets_its_run_aside(ledger: Ledger) -> None:
    named = Projection(
        "named", key={"name": field("name")}, columns={"reads": count({"acme.read"})}
    )
    large, small = await runs(ledger, "parse", "parse")
    noise = "".join(f"{number:08x}" for number in range(0, 2**31, 500_009))
    await append(ledger, large, "acme.read", 1, f'{{"name":"{noise}"}}')
    await append(ledger, small, "acme.read", 1, '{"name":"short"}')

    await caught_up(ledger, named)

    assert await ledger.pool.fetchval("SELECT array_agg(name) FROM projection.named") == ["short"]
    assert [aside.run_id for aside in await set_aside(ledger.pool, "named")] == [large]


async def test_the_log_names_a_run_that_is_set_aside(ledger: Ledger) -> None:
    [bad] = await runs(ledger, "parse")
    await read(ledger, bad, BAD)

    with capture_logs() as lines:
        await caught_up(ledger, sizes())

    [line] = [line for line in lines if line["event"] == names.RUN_SET_ASIDE]
    assert (line["projection"], line["run_id"], line["version"]) == ("sizes", str(bad), 2)
    assert '"many"' in line["reason"]


async def test_a_rebuild_sets_bad_runs_aside_and_puts_the_rest_in_place(ledger: Ledger) -> None:
    good, bad = await runs(ledger, "parse", "mail")
    await read(ledger, good, "5")
    await read(ledger, bad, BAD)
    await read(ledger, bad, "1")
    with pytest.raises(RebuildFailed, match=str(bad)):
        await refold(ledger.pool, sizes(), strict=True)

    done = await refold(ledger.pool, sizes())

    assert [one.run_id for one in done.bad] == [bad]
    assert await sizes_of(ledger) == [("parse", 1, 5)]
    [aside] = await set_aside(ledger.pool, "sizes")
    assert (aside.run_id, aside.event_version) == (bad, None)
    await read(ledger, bad, "2")
    await caught_up(ledger, sizes())
    await skip_event(ledger.pool, sizes(), bad, 2, actor="ann", reason="a defect of the sender")
    await caught_up(ledger, sizes())
    assert await sizes_of(ledger) == [("mail", 2, 3), ("parse", 1, 5)]
    done = await refold(ledger.pool, sizes())
    assert (done.bad, done.wrong) == ((), 0)


async def test_a_run_that_turns_bad_while_a_rebuild_catches_up_is_set_aside_there(
    ledger: Ledger,
) -> None:
    good, bad = await runs(ledger, "parse", "mail")
    await read(ledger, good, "5")
    await read(ledger, bad, "1")
    await caught_up(ledger, sizes())
    loop, late = asyncio.get_running_loop(), []

    def write(_: object) -> None:
        late.append(loop.create_task(read(ledger, bad, BAD)))

    done = await refold(ledger.pool, sizes(), connections=1, on_progress=write)
    await asyncio.gather(*late)
    await caught_up(ledger, sizes())

    assert done.bad == ()
    assert await sizes_of(ledger) == [("mail", 1, 1), ("parse", 1, 5)]
    assert [aside.run_id for aside in await set_aside(ledger.pool, "sizes")] == [bad]


async def test_an_event_of_a_newer_schema_sets_its_run_aside_in_a_rebuild_too(
    unverified_database: str,
) -> None:
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        await _meets_a_newer_schema(ledger)


async def _meets_a_newer_schema(ledger: Ledger) -> None:
    [run] = await runs(ledger, "parse")
    notes = Projection(
        "notes", key={"kind": of_run("kind")}, columns={"notes": count({"note.added"})}
    )
    await append_by_newer_code(ledger, run, "note.added")

    await caught_up(ledger, notes)
    [aside] = await set_aside(ledger.pool, "notes")
    assert "note.added schema version 99 is not known" in str(aside.error)

    [bad] = (await refold(ledger.pool, notes)).bad
    assert bad.run_id == run


async def test_the_feed_that_refuses_a_checkpoint_is_no_fault_of_a_run(ledger: Ledger) -> None:
    [run] = await runs(ledger, "parse")
    await read(ledger, run, "1")
    await install(ledger.pool, sizes())
    await ledger.pool.execute("UPDATE ledger.feed_generation SET system_identifier = 1")

    with pytest.raises(Exception, match="cluster"):
        await CatchUp(ledger.pool, sizes()).step()

    assert await set_aside(ledger.pool, "sizes") == []
