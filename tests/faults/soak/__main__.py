"""A randomised soak: `python -m tests.faults.soak --minutes 30 --seed 7`, or with `--moves 2000`.

Workers are killed, frozen and cut off, the server restarts, snapshots are held and a month is
archived while runs come and go. Without a seed one is drawn and printed. The same seed makes the
same moves; timing is left to the machine, so the same moves need not meet the same instants.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from pathlib import Path

from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from tests.faults.soak.whole import soak


def main() -> None:
    """Soak a server of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--moves", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311  moves, not secrets
    options = parser.parse_args()
    moves = options.moves or (0 if options.minutes else 2_000)
    print(f"seed {options.seed}, {moves} moves, {options.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="runfold-soak-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "home") as server:
            print(asyncio.run(soak(server.url(), options.seed, moves, options.minutes, server)))


if __name__ == "__main__":
    main()
