"""Searching runs by a query: what fits, in pages both ways, and never more than a page costs."""

from __future__ import annotations

from typing import Any

import pytest

from runfold.ledger import Ledger, Submit
from runfold.ledger.errors import InvalidQuery, InvalidValue
from runfold.ledger.reading import search_statements as searching
from runfold.ledger.reading.query import parse
from tests.support.runs import claimed


async def some_runs(ledger: Ledger, number: int = 8) -> list[str]:
    """Submit runs of two kinds and tags and bring them to different states; newest first."""
    ids = []
    for n in range(number):
        run = await ledger.submit(f"kind{n % 2}", key=f"k{n}", tags=[f"t{n % 3}", "all"])
        ids.append(str(run.run_id))
    return ids[::-1]


async def found(ledger: Ledger, query: str, **cursor: Any) -> list[str]:
    return [str(run.run_id) for run in await ledger.search(query, **cursor)]


async def test_each_word_narrows_the_runs(ledger: Ledger) -> None:
    ids = await some_runs(ledger)
    assert await found(ledger, "") == ids
    assert await found(ledger, "kind:kind1") == ids[::2]
    assert await found(ledger, "kind:kind1,kind0") == ids
    assert await found(ledger, "-kind:kind1 since:1h") == ids[1::2]
    assert await found(ledger, "key:k3") == await found(ledger, "k3") == [ids[4]]
    assert await found(ledger, "tag:t0") == [ids[1], ids[4], ids[7]]
    assert await found(ledger, "tag:t0,all") == ids
    assert await found(ledger, "tag:all tag:t0 kind:kind1") == [ids[4]]
    assert await found(ledger, "tag:all -tag:t0,t1") == [ids[2], ids[5]]
    assert await found(ledger, f"id:{ids[2]}") == [ids[2]]
    assert await found(ledger, ids[0][:8]) == ids
    assert await found(ledger, "since:1h age:<2h") == ids
    assert await found(ledger, "age:>1h") == await found(ledger, "until:2020-01-01") == []


async def test_states_workers_costs_attempts_and_errors_are_found(ledger: Ledger) -> None:
    failed = await claimed(ledger, "w:7")
    await ledger.fail(failed, "E-9", cost_usd_delta=2)
    held = await claimed(ledger, "w:8")
    pending = await ledger.submit("c")
    ends, holds, waits = str(failed.run_id), str(held.run_id), str(pending.run_id)

    assert await found(ledger, "state:failed") == [ends]
    assert await found(ledger, "-state:failed") == [waits, holds]
    assert await found(ledger, "worker:w:8") == [holds]
    assert await found(ledger, "state:failed cost:>1.5") == [ends]
    assert await found(ledger, "state:failed cost:<=1.5") == []
    assert await found(ledger, "since:1h attempts:>0") == [holds, ends]
    assert await found(ledger, "since:1h error:E-9") == [ends]
    assert await found(ledger, "since:1h -error:E-9") == [waits, holds]


async def test_pages_lead_forth_and_back_without_gaps(ledger: Ledger) -> None:
    ids = await some_runs(ledger)
    first = await ledger.search("tag:all", limit=3)
    assert (first.newer, [str(run.run_id) for run in first]) == (None, ids[:3])
    second = await ledger.search("tag:all", before=first.older, limit=3)
    assert [str(run.run_id) for run in second] == ids[3:6]
    last = await ledger.search("tag:all", before=second.older, limit=3)
    assert ([str(run.run_id) for run in last], last.older) == (ids[6:], None)

    back = await ledger.search("tag:all", after=last.newer, limit=3)
    assert back == second
    assert (back.older, back.newer) == (second.older, second[0].run_id)
    start = await ledger.search("tag:all", after=back.newer, limit=3)
    assert (start, start.newer) == (first, None)


async def test_a_page_ends_after_the_runs_that_it_may_look_through(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "EXAMINED", 4)
    ids = await some_runs(ledger)
    page = await ledger.search("tag:all key:k0,k1 cost:<1")
    assert [str(run.run_id) for run in page] == ids[-2:]
    nothing = await ledger.search("tag:all cost:>1")
    assert (nothing, nothing.examined, str(nothing.older)) == ([], 4, ids[3])
    beyond = await ledger.search("tag:all cost:>1", before=nothing.older)
    assert (beyond, str(beyond.older)) == ([], ids[7])
    end = await ledger.search("tag:all cost:>1", before=beyond.older)
    assert (end, end.older, end.examined) == ([], None, None)


async def test_lists_that_give_no_more_than_their_share_leave_out_no_run(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "ENTRIES", 20)
    monkeypatch.setattr(searching, "LEAST", 2)
    ids = [str((await ledger.submit(f"kind{n % 5 if n < 20 else 0}")).run_id) for n in range(30)]
    for gone in ids[::3]:
        await ledger.cancel(gone)
    query = "state:pending,cancelled attempts:<1"
    before: list[str] = []
    page = await ledger.search(query, limit=7)
    while page.older is not None:
        before += [str(run.run_id) for run in page]
        page = await ledger.search(query, before=page.older, limit=7)
    before += [str(run.run_id) for run in page]
    assert before == ids[::-1]
    after = [str(run.run_id) for run in page]
    while page.newer is not None:
        page = await ledger.search(query, after=page.newer, limit=7)
        after = [str(run.run_id) for run in page] + after
    assert sorted(set(after)) == sorted(ids)


async def test_a_tag_is_found_among_many_runs_and_checked_on_no_more_than_a_page_looks_through(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "EXAMINED", 4)
    tagged = await ledger.submit("parse", tags=["rare"])
    await ledger.submit_many([Submit(kind="parse")] * 5)

    for query in ("tag:rare", "tag:rare kind:parse", "tag:rare,none"):
        page = await ledger.search(query)
        assert (page, page.older, page.examined) == ([tagged], None, None), query
    query = "tag:rare state:pending"
    page = await ledger.search(query)
    assert (page, page.older, page.examined) == ([tagged], None, None), "few have the tag"

    monkeypatch.setattr("runfold.ledger.reading.run_lists.FEW", 0)
    page = await ledger.search(query)
    assert (page, page.examined) == ([], 4)
    older = await ledger.search(query, before=page.older)
    assert (older, older.older, older.examined) == ([tagged], None, None)
    listed = await ledger.runs(tag="rare", state="pending")
    assert (listed, listed.older, listed.examined) == ([], page.older, 4)
    listed = await ledger.runs(tag="rare", state="pending", before=listed.older)
    assert (listed, listed.older, listed.newer) == ([tagged], None, tagged.run_id)


async def test_what_no_index_answers_is_refused(ledger: Ledger, subtests: pytest.Subtests) -> None:
    for query in ["cost:>0.5", "attempts:>1", "-tag:test", "kind:a -kind:b"]:
        with (
            subtests.test(query),
            pytest.raises(InvalidQuery, match=r"named twice|no index answers this alone"),
        ):
            await ledger.search(query)


async def test_cursors_and_limits_are_checked(ledger: Ledger) -> None:
    run = await ledger.submit("parse")
    with pytest.raises(InvalidValue, match="leave one out"):
        await ledger.search("", before=run.run_id, after=run.run_id)
    with pytest.raises(InvalidValue, match="limit"):
        await ledger.search("", limit=1_001)
    with pytest.raises(InvalidValue, match="run id"):
        await ledger.search("", before="x")


INDEXED = (
    "", "state:failed", "state:pending,failed cost:>1", "kind:kind1 tag:t1", "worker:w", "key:k1",
)  # fmt: skip


@pytest.mark.new_database
async def test_no_query_scans_the_runs(ledger: Ledger, subtests: pytest.Subtests) -> None:
    commands = [Submit(kind=f"kind{n % 5}", tags=[f"t{n % 9}"], key=f"k{n}") for n in range(2_000)]
    await ledger.submit_many(commands)
    async with ledger.pool.acquire() as connection:
        await connection.execute("ANALYZE ledger.run_state")
        for query in INDEXED:
            with subtests.test(query):
                found = searching.Statement("test", parse(query), None, forward=False).page(
                    51, content=True
                )
                rows = await connection.fetch(f"EXPLAIN {found[0]}", *found[1:])
                plan = "\n".join(row[0] for row in rows)
                assert "Seq Scan on run_state" not in plan
