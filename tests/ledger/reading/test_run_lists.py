"""Pages of runs: right for every filter, in both directions, in the time of the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, Final

import asyncpg
import pytest

from runfold.ledger import Ledger, Run, State, Submit
from runfold.ledger.errors import InvalidValue
from runfold.ledger.reading import search_statements as searching
from runfold.ledger.reading.run_filter import RunFilter
from runfold.ledger.reading.search import query_of
from tests.support.databases import PROJECT

MANY: Final = 100_000
HELD: Final = 200
PAGE: Final = 50
# A run of a page costs its place in the index, its row and its content: three looks of up to four
# blocks. Each list adds one look; the fleet below has 3 kinds, in 16 lists at most each. What is
# held waits or runs, which its index does not tell: as many runs as the workers have slots.
BLOCKS: Final = PAGE * 12 + 3 * 16 * 12 + HELD


async def fleet(ledger: Ledger) -> list[Run]:
    """Make runs in every state and of several kinds, tags and priorities; return all of them."""
    await ledger.submit_many(
        [
            Submit(
                kind=kind, priority=number % 3, tags=["odd"] * (number % 2), key=f"{kind} {number}"
            )
            for number in range(10)
            for kind in ("a", "b")
        ]
    )
    await ledger.submit("a", delay=3_600, tags=["odd"])
    leases = await ledger.claim("w:1", limit=6) + await ledger.claim("w:2", limit=6)
    ends = (State.COMPLETED, State.FAILED, State.WAITING_TOOL, State.WAITING_APPROVAL)
    for lease, state in zip(leases[::2], ends, strict=False):
        await ledger.transition(lease, state, name="signal:x", park=state == State.WAITING_TOOL)
    await ledger.retry(leases[1], error_code="E-1", delay=3_600)
    await ledger.release(leases[3])
    await ledger.cancel(leases[5].run_id)
    runs = await ledger.runs(limit=1_000)
    await ledger.cancel(runs[0].run_id)
    return await ledger.runs(limit=1_000)


FILTERS: Final[dict[str, list[dict[str, Any]]]] = {
    "state": [
        *({"state": state} for state in State),
        {"state": ["pending", "failed"]},
        {"state": []},
    ],
    "kind": [{"kind": "a"}],
    "worker_id": [{"worker_id": "w:1"}, {"worker_id": "none"}],
    "tag": [{"tag": "odd"}, {"tag": "none"}],
    "key": [{"key": "a 3"}, {"key": "none"}],
}


def filters() -> Iterator[dict[str, Any]]:
    """Yield no filter, every filter, and every pair of them."""
    yield {}
    for some in FILTERS.values():
        yield from some
    for one, other in combinations(FILTERS.values(), 2):
        yield from ({**left, **right} for left in one for right in other)


def fits(run: Run, **wanted: Any) -> bool:
    """Whether a run has all that is wanted."""
    states, tag = wanted.pop("state", None), wanted.pop("tag", None)
    states = [states] if isinstance(states, str) else states
    return (
        (states is None or run.state in states)
        and (tag is None or tag in run.tags)
        and all(getattr(run, name) == value for name, value in wanted.items())
    )


async def test_every_filter_and_every_pair_gives_the_runs_that_fit_in_both_directions(
    ledger: Ledger,
) -> None:
    runs = await fleet(ledger)
    assert {run.state for run in runs} >= set(State) - {State.TIMEOUT}
    middle = runs[len(runs) // 2].run_id

    for given in filters():
        fit = [run for run in runs if fits(run, **given)]
        older = [run for run in fit if run.run_id < middle]
        newer = [run for run in fit if run.run_id > middle]
        assert await ledger.runs(**given) == fit, given
        assert await ledger.runs(**given, before=middle, limit=3) == older[:3], given
        assert await ledger.runs(**given, after=middle, limit=3) == newer[-3:], given


async def test_pages_lead_forwards_through_the_runs_that_they_led_back_through(
    ledger: Ledger,
) -> None:
    runs = await fleet(ledger)

    back = [await ledger.runs(limit=5)]
    while len(back[-1]) == 5:
        back.append(await ledger.runs(limit=5, before=back[-1][-1].run_id))
    forth = [back[-1]]
    while newer := await ledger.runs(limit=5, after=forth[0][0].run_id):
        forth.insert(0, newer)

    assert [run for page in back for run in page] == runs
    assert [run for page in forth for run in page] == runs
    between = await ledger.runs(after=runs[-1].run_id, before=runs[0].run_id, limit=2)
    assert between == runs[1:3]
    past = await ledger.runs(after=runs[9].run_id, limit=4, at=runs[0].created_at)
    assert [run.run_id for run in past] == [run.run_id for run in runs[5:9]]


async def test_runs_are_chosen_by_the_time_of_their_submission(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    first = await ledger.submit("a")
    await connection.execute("SELECT pg_sleep(0.003)")
    second = await ledger.submit("b")
    time = datetime.fromtimestamp((second.run_id.int >> 80) / 1_000, UTC)

    async def found(**bounds: datetime) -> list[str]:
        return [run.kind for run in await ledger.runs(**bounds)]  # type: ignore[arg-type]

    assert await found(since=time) == ["b"]
    assert await found(until=time) == ["a"]
    assert await found(since=time, until=time) == []
    assert await found(since=datetime(1900, 1, 1, tzinfo=UTC)) == ["b", "a"]
    assert await found(until=datetime(9999, 1, 1, tzinfo=UTC)) == ["b", "a"]
    assert await ledger.runs(kind="a", since=time - timedelta(days=1)) == [first]
    with pytest.raises(InvalidValue, match="time zone"):
        await found(since=datetime(2026, 1, 1))  # noqa: DTZ001  what is refused
    with pytest.raises(InvalidValue, match="datetime"):
        await ledger.runs(until="1h")  # type: ignore[arg-type]


# -- at size ---------------------------------------------------------------------------------------

FILL: Final = """
INSERT INTO ledger.run_state (project_id, run_id, version, hash, kind, state, priority,
  attempt_count, max_attempts, worker_id, token, lease_until, available_at, created_at, updated_at,
  completed_at, cost_usd, step_count, tags)
SELECT $1, ledger.uuid7_floor((moment AT TIME ZONE 'UTC')::timestamp), 1, '\\x00',
  CASE WHEN n % 3 = 0 THEN 'parse' ELSE 'review' END,
  state, n % 2, 1, 3, CASE WHEN state = 'running' THEN 'w:' || n % 7 END,
  CASE WHEN state = 'running' THEN 2 END, CASE WHEN state = 'running' THEN moment END,
  CASE WHEN state = 'pending' THEN moment END, moment, moment,
  CASE WHEN state IN ('completed', 'failed') THEN moment END, 0, 0,
  array_remove(ARRAY[CASE WHEN n % 2 = 1 THEN 'half' END, CASE WHEN n < 100 THEN 'old' END,
    CASE WHEN n > $2 * 3 / 4 THEN 'new' END], NULL)
FROM (SELECT n, timestamptz '2026-01-01Z' + n * interval '1 second' AS moment,
  CASE WHEN n = 7 THEN 'failed' WHEN n < $2 / 2 THEN 'completed' WHEN n < $2 / 2 + $3 THEN 'running'
    ELSE 'pending' END AS state
  FROM generate_series(1, $2) AS n OFFSET 0) AS made
"""
TAGS: Final = """
INSERT INTO ledger.run_tag SELECT project_id, unnest(tags), kind, run_id FROM ledger.run_state
WHERE hash = '\\x00'
"""
"""Old runs have ended, the newest wait: a walk from the newest meets no other for long."""
RARE: Final[tuple[dict[str, Any], ...]] = (
    {"state": "failed"},
    {"state": "completed"},
    {"state": "waiting_tool"},
    {"state": ["failed", "cancelled", "timeout"]},
    {"kind": "seldom"},
    {"kind": "parse"},
    {"worker_id": "w:3"},
    {"worker_id": "none"},
    {"key": "none"},
    {"kind": "parse", "state": "failed"},
    {"kind": "review", "state": "completed"},
    {"kind": "seldom", "state": "pending"},
    {"kind": "seldom", "worker_id": "w:3"},
    {"state": "running", "worker_id": "w:3"},
    {"state": "failed", "key": "none"},
    {"kind": "parse", "key": "none"},
    {"tag": "none"},
    {"tag": "old"},
    {"tag": "half"},
    {"tag": "half", "until": datetime(2026, 1, 1, 1, tzinfo=UTC)},
    {"tag": "old", "since": datetime(2026, 1, 2, tzinfo=UTC)},
    {"tag": "half", "kind": "seldom"},
    {"tag": "old", "kind": "parse"},
    {"tag": "half", "state": "failed"},
    {"tag": "half", "worker_id": "w:3"},
    {"tag": "none", "state": "pending"},
    {"tag": "none", "state": "completed"},
    {"tag": "half", "key": "none"},
    {"key": "none", "worker_id": "w:3"},
    {"key": "none", "since": datetime(2026, 1, 2, tzinfo=UTC)},
    {"worker_id": "w:3", "until": datetime(2026, 1, 1, 1, tzinfo=UTC)},
    {"until": datetime(2026, 1, 1, 1, tzinfo=UTC)},
    {"state": "pending", "until": datetime(2026, 1, 1, 1, tzinfo=UTC)},
    {"kind": "parse", "since": datetime(2026, 1, 2, tzinfo=UTC)},
    {},
)
APART: Final[dict[str, Any]] = {"tag": "new", "state": "completed"}
"""Many have the tag, and many the state, but none both: all that the page may look through."""
EXAMINED: Final = 100
LOOKED: Final = EXAMINED * 5


@pytest.mark.slow
@pytest.mark.new_database
async def test_a_page_reads_blocks_for_its_own_runs_only_whatever_the_filter_and_the_plan(
    ledger: Ledger, connection: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "EXAMINED", EXAMINED)
    await ledger.submit("seldom")
    await ledger.submit("review")
    await ledger.submit("parse")
    await connection.execute("ALTER TABLE ledger.run_state SET (autovacuum_enabled = off)")
    try:
        await connection.execute(FILL, PROJECT, MANY, HELD)
        await connection.execute(TAGS)
        await connection.execute("VACUUM (ANALYZE) ledger.run_state, ledger.run_tag")
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}")
            for given in (*RARE, APART):
                for is_forward in (False, True):
                    chosen = replace(RunFilter.checked(**given), is_forward=is_forward)
                    blocks = await read_blocks(connection, chosen)
                    looked = LOOKED if given == APART else 0
                    assert blocks < BLOCKS + looked, (given, is_forward, mode)
    finally:
        await connection.execute("DELETE FROM ledger.run_state WHERE hash = '\\x00'")
        await connection.execute("DELETE FROM ledger.run_tag WHERE tag IN ('half', 'old', 'new')")


async def read_blocks(connection: asyncpg.Connection[Any], chosen: RunFilter) -> int:
    """Count the blocks that a page reads, of the indexes and of the tables."""
    query, forward = query_of(chosen), chosen.is_forward
    statement = await searching.prepared(connection, PROJECT, query, forward=forward)
    statements = [statement.page(PAGE, content=True)]
    if statement.is_checked:
        statements.append(statement.frontier())
    if chosen.tags and chosen.states:
        by_tag = searching.Statement(PROJECT, query, None, forward=forward, by_tag=True)
        statements.append(by_tag.are_few())
    blocks = 0
    for text, *values in statements:
        rows = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", *values)
        plan = json.loads(rows[0][0])[0]["Plan"]
        blocks += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return blocks
