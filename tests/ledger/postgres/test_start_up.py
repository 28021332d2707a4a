"""What starting costs: every command waits for what is imported."""

from __future__ import annotations

import subprocess
import sys


def test_the_ledger_is_imported_without_sqlalchemy_and_alembic() -> None:
    listed = (
        "import sys; from runfold import Ledger, Worker;"
        " print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", listed], capture_output=True, text=True, check=True
    )

    assert "asyncpg" in done.stdout.split()
    assert {"sqlalchemy", "alembic"}.isdisjoint(done.stdout.split())


def test_the_driver_prints_no_tracebacks_of_its_own_unless_the_program_wants_logs() -> None:
    logs = (
        "import logging; from runfold import Ledger; logging.getLogger('asyncpg.pool').error('a "
        "connection went away')"
    )
    quiet = subprocess.run([sys.executable, "-c", logs], capture_output=True, text=True, check=True)
    wanted = logs.replace("Ledger;", "Ledger; logging.basicConfig();")
    heard = subprocess.run(
        [sys.executable, "-c", wanted], capture_output=True, text=True, check=True
    )

    assert quiet.stderr == ""
    assert "a connection went away" in heard.stderr
