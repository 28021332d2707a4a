"""A field of a payload means the same whoever folds it, and whenever."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from urllib.parse import quote

import pytest

from runfold.ledger import Ledger
from runfold.projections import CatchUp, Projection, field, install, last, refold, rows, set_aside
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
        '{"at":"infinity","took":"-14 months 1 s"}': (datetime, date, timedelta),
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
    assert shown[run]["took"] == timedelta(days=-425, seconds=1)
    assert shown[run]["took"] == await ledger.pool.fetchval(
        "SELECT took FROM projection.booked WHERE run_id = $1", run
    )
