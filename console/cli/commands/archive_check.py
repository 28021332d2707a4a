"""`runfold archive check`: check an exported file without a database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runfold.console.cli.kit.exits import INTEGRITY, OK
from runfold.console.cli.kit.options import command
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import jsonable, number_of
from runfold.ledger.archive.file import check_file, digest, opened


def check(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="An exported file.")
    ],
) -> int:
    """Check every hash in an exported file, without a database; prints the file's SHA-256."""
    with opened(file) as source:
        chain = check_file(source)
        size, sha256 = digest(source)
    facts = {"runs": chain.runs, "events": chain.events, "payloads": chain.payloads}
    if session.as_json:
        session.out.json(
            {
                "ok": not chain.findings,
                **facts,
                "size_bytes": size,
                "sha256": sha256.hex(),
                "findings": jsonable(chain.findings),
            }
        )
    else:
        for finding in chain.findings:
            session.out.line(
                f"bad: run {finding.run_id} #{finding.version} {finding.problem}: {finding.detail}"
            )
        counts = (
            f"{number_of(chain.runs, 'run')}, {number_of(chain.events, 'event')}, "
            f"{number_of(chain.payloads, 'payload')}"
        )
        session.out.line(f"{'FAILED' if chain.findings else 'ok'}: {counts}; sha256 {sha256.hex()}")
    return INTEGRITY if chain.findings else OK


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "check", rights="")(check)
