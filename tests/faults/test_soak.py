"""A short soak; `make soak` makes a long one."""

from __future__ import annotations

import random

import pytest

from tests.faults.soak.whole import soak

pytestmark = pytest.mark.slow

MOVES = 60


async def test_whatever_happens_every_run_ends_as_its_history_explains(
    unverified_database: str,
) -> None:
    seed = random.randrange(1_000_000)  # noqa: S311  moves, not secrets
    print(f"seed {seed}: python -m tests.faults.soak --seed {seed} --moves {MOVES}")
    # It verifies while its archive is there.
    print(await soak(unverified_database, seed, MOVES))
