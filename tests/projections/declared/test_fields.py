"""A field of a payload means the same whoever folds it, and whenever."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from urllib.parse import quote
from uuid import UUID

import pytest

from runfold.ledger import Ledger
from runfold.projections import (
    CatchUp,
    Projection,
    field,
    install,
    last,
    of_run,
    once,
    refold,
    rows,
    set_aside,
)
from tests.support.databases import PROJECT
from tests.support.projections import append

READ = {"acme.read"}
BOOKED = Projection(
    "booked",
    key={"run_id": "run_id"},
    columns={
        "at": last(field("at", "timestamptz"), READ),
        "day": last(field("at", "date"), READ),
        "took": last(field("took", "interval"), READ),
    },
)
ODD = "-c DateStyle=SQL,DMY -c IntervalStyle=sql_standard -c TimeZone=Asia/Kathmandu"


async def test_no_setting_of_a_login_changes_what_is_folded(
    ledger: Ledger, database: str, subtests: pytest.Subtests
) -> None:
    run = (await ledger.submit("parse")).run_id
    await append(ledger, run, "acme.read", 1, '{"at":"01/02/2026 00:30","took":"-1 2:03"}')
    await install(ledger.pool, BOOKED)
    mark = "&" if "?" in database else "?"
    async with Ledger.open(f"{database}{mark}options={quote(ODD)}", PROJECT) as odd:
        await CatchUp(odd.pool, BOOKED).to_the_end()
        for ledger_ in (ledger, odd):
            with subtests.test(odd=ledger_ is odd):
                [row] = await rows(ledger_.pool, "booked")
                assert row["at"] == datetime(2026, 1, 2, 0, 30, tzinfo=UTC)
                assert row["day"] == date(2026, 1, 2)
                assert row["took"] == timedelta(days=-1, hours=2, minutes=3)
                assert (await refold(ledger_.pool, BOOKED)).wrong == 0


async def test_a_time_that_depends_on_when_it_is_read_is_not_folded(ledger: Ledger) -> None:
    texts = ("now", "Today", "tomorrow 12:00", " yesterday allballs")
    for text in texts:
        run = (await ledger.submit("parse")).run_id
        await append(ledger, run, "acme.read", 1, f'{{"at":"{text}"}}')
    for type_ in ("date", "timestamptz"):
        column = last(field("at", type_), READ)
        projection = Projection(f"of_{type_}", key={"run_id": "run_id"}, columns={"at": column})
        await install(ledger.pool, projection)
        await CatchUp(ledger.pool, projection).to_the_end()

        aside = await set_aside(ledger.pool, projection.name)
        assert len(aside) == len(texts)
        assert all("no time" in str(run.error) for run in aside)


async def test_rows_are_read_whatever_their_times(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    await install(ledger.pool, BOOKED)
    texts = {
        '{"at":"99999-01-01","took":"2000000000 days"}': (str, str, str),
        '{"at":"4713-01-01 BC","took":"-170000000 years"}': (str, str, str),
        '{"at":"infinity","took":"-14 months 1 s"}': (str, str, timedelta),
    }
    runs = {}
    for text in texts:
        run = (await ledger.submit("parse")).run_id
        await append(ledger, run, "acme.read", 1, text)
        runs[run] = text
    await CatchUp(ledger.pool, BOOKED).to_the_end()

    shown = {row["run_id"]: row for row in await rows(ledger.pool, "booked")}
    for run, text in runs.items():
        with subtests.test(text):
            columns = [shown[run][column] for column in ("at", "day", "took")]
            assert [type(value) for value in columns] == list(texts[text])
    assert (shown[run]["at"], shown[run]["day"]) == ("infinity", "infinity")
    assert shown[run]["took"] == timedelta(days=-425, seconds=1)
    assert shown[run]["took"] == await ledger.pool.fetchval(
        "SELECT took FROM projection.booked WHERE run_id = $1", run
    )


async def test_once_takes_the_largest_of_several_in_any_order(ledger: Ledger) -> None:
    """A declaration that is wrong about "once" gives the same table in any batches, and rebuilt."""
    projection = Projection(
        "once_each",
        key={"kind": of_run("kind")},
        columns={
            type_: once(field(type_, type_), {"acme.read"}) for type_ in ("text", "boolean", "uuid")
        },
    )
    await install(ledger.pool, projection)
    run = (await ledger.submit("parse")).run_id
    ids = [UUID(int=number) for number in (1, 3, 2)]
    for text, truth, id_ in zip(("b", "c", "a"), ("false", "true", "false"), ids, strict=True):
        body = f'{{"text": "{text}", "boolean": {truth}, "uuid": "{id_}"}}'
        await append(ledger, run, "acme.read", 1, body)
    await CatchUp(ledger.pool, projection, batch=1).to_the_end()

    assert await rows(ledger.pool, "once_each") == [
        {"kind": "parse", "text": "c", "boolean": True, "uuid": ids[1]}
    ]
    assert (await refold(ledger.pool, projection)).wrong == 0
