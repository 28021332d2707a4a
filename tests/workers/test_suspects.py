"""A suspect works alone, and afterwards nobody is kept from work."""

from __future__ import annotations

import asyncio

import pytest

from runfold.workers.leases.suspects import Gate


@pytest.mark.parametrize("fails", [False, True])
async def test_a_suspect_begins_when_no_other_run_is_held_and_opens_the_gate_again(
    *, fails: bool
) -> None:
    held = 3
    gate = Gate(lambda: held)
    seen: list[tuple[int, bool]] = []

    async def work() -> None:
        seen.append((held, gate.is_closed))
        if fails:
            raise RuntimeError

    alone = asyncio.create_task(gate.alone(work))
    for held in (3, 2):  # noqa: B007  which the gate asks for
        gate.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (seen, gate.is_closed) == ([], True)
    held = 1
    gate.look()
    await asyncio.wait({alone})

    assert (seen, gate.is_closed) == ([(1, True)], False)
    assert isinstance(alone.exception(), RuntimeError) is fails
