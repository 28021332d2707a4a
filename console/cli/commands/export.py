"""`runfold export`: evidence of runs as a folder, to be read and checked without a database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from runfold.console import web
from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session

AUDITOR: Final = (
    "the login needs the role runfold_auditor and the right audit: content is checked with its salt"
)
app: Final = program()


@command(app, "export", rights="audit", needs=AUDITOR)
async def export(
    session: Session,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, by id.")],
    *,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A folder to be made.")],
) -> None:
    """Write evidence of runs, to be read and checked offline.

    Each run is a page that opens in any browser, and its events as JSON; `runfold verify --bundle
    FOLDER` checks the events. They hold the runs' whole content. Needs the extra `web`.
    """
    web.require()
    from runfold.console.web import evidence  # noqa: PLC0415  it needs the extra

    async with session.ledger() as ledger:
        exported = [await find_run(ledger, text) for text in runs]
        index = await evidence.export(ledger, exported, to)
    if session.as_json:
        session.out.json(index)
        return
    for run in index["runs"]:
        session.out.line(f"{to}/runs/{run['run_id']}.html {run['state']} head {run['head']}")
