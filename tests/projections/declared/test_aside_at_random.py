"""Runs set aside and taken up at random: in the end nothing is missing or counted twice."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import pytest

from runfold.ledger import Ledger
from runfold.projections import CatchUp, Projection, count, field, install, refold, set_aside, total
from runfold.projections.declared.interventions import retry, skip_event
from tests.support.projections import append

SIZED = Projection(
    "sized",
    key={"run_id": "run_id"},
    columns={"reads": count({"acme.read"}), "size": total(field("size", "int"), {"acme.read"})},
)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
async def test_what_is_set_aside_is_folded_exactly_once_in_the_end(
    ledger: Ledger, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  the same each time
    await install(ledger.pool, SIZED)
    runs = [(await ledger.submit("parse")).run_id for _ in range(6)]
    versions = dict.fromkeys(runs, 1)
    sound: dict[UUID, list[int]] = {run: [] for run in runs}
    bad: list[tuple[UUID, int]] = []

    async def write() -> None:
        for number in range(60):
            run = chance.choice(runs)
            versions[run] += 1
            if chance.random() < 0.1:
                await append(ledger, run, "acme.read", 1, '{"size":"many"}')
                bad.append((run, versions[run]))
            else:
                await append(ledger, run, "acme.read", 1, f'{{"size":{number}}}')
                sound[run].append(number)

    async def follow(batch: int) -> None:
        for _ in range(25):
            await CatchUp(ledger.pool, SIZED, batch=batch).to_the_end()
            if chance.random() < 0.3:
                await retry(ledger.pool, "sized", run_id=chance.choice(runs))
            await asyncio.sleep(0)

    await asyncio.gather(write(), *(follow(batch) for batch in (1, 4, 5_000)))
    rebuilt = await refold(ledger.pool, SIZED) if seed % 2 else None
    for run, version in bad:
        await skip_event(ledger.pool, SIZED, run, version, actor="ann", reason="a defect")
    await retry(ledger.pool, "sized")
    await asyncio.gather(*(CatchUp(ledger.pool, SIZED, batch=b).to_the_end() for b in (1, 100)))

    assert rebuilt is None or {one.run_id for one in rebuilt.bad} == {run for run, _ in bad}
    assert await set_aside(ledger.pool, "sized") == []
    rows = await ledger.pool.fetch("SELECT run_id, reads, size FROM projection.sized")
    assert {row["run_id"]: (row["reads"], row["size"]) for row in rows} == {
        run: (len(numbers), sum(numbers)) for run, numbers in sound.items() if numbers
    }
    assert (await refold(ledger.pool, SIZED)).wrong == 0
