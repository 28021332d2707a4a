"""`runfold verify`: check the ledger's proofs and states."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from runfold.console.cli.kit.exits import INTEGRITY, OK
from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.progress import progress
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.session import Session
from runfold.console.shared.bundles import check_bundle
from runfold.console.shared.plain import jsonable, number_of
from runfold.console.shared.values import Misuse
from runfold.ledger import Ledger, verified
from runfold.ledger.errors import AccessDenied, DatabaseUnavailable, RunNotFound
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.postgres.errors import is_read_only
from runfold.ledger.proof.chain import MAX_FINDINGS
from runfold.ledger.reading.report import Report
from runfold.ledger.reading.verify import verify as check

app: Final = program()


@command(app, "verify", rights="read | audit")
async def verify(
    session: Session,
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Only this run; else every run of the project."),
    ] = None,
    *,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="PATH",
            help="Check exported evidence, offline: a folder, or the JSON of one run.",
        ),
    ] = None,
) -> int:
    """Check the ledger's proofs and states.

    The checks: versions, hash chains, legal moves, leases and decisions, payloads, idempotency
    keys, every state against its events, and archived months against their files. At most 100
    findings are shown. A check of the whole project is on record, for those with the right audit.
    """
    if bundle is not None:
        if run is not None:
            raise Misuse("RUN", "is not named with --bundle, which is checked as a whole")
        return _bundle(session.out, bundle)
    async with session.ledger() as ledger:
        run_id = None if run is None else await find_run(ledger, run)
        with progress("verifying", "events", shown=not session.as_json) as advance:
            began_at = await ledger_now(ledger.pool)
            report = await check(ledger.pool, ledger.project_id, run_id, progress=advance)
        if run_id is not None and not report.runs and report.ok:
            raise RunNotFound(run_id, ledger.project_id)
        if run_id is None:
            await _note(session, ledger, report, began_at)
    _write(session.out, report)
    return OK if report.ok else INTEGRITY


async def _note(session: Session, ledger: Ledger, report: Report, began_at: datetime) -> None:
    """Record the check of a project; a session that may not record it has checked all the same."""
    try:
        await verified.note(ledger.project, report, began_at)
    except (AccessDenied, DatabaseUnavailable) as error:
        if isinstance(error, DatabaseUnavailable) and not is_read_only(error):
            raise
        session.out.talk(f"this check is not on record: {error}")


def _bundle(out: Output, folder: Path) -> int:
    verdict = check_bundle(folder)
    findings = [*verdict.findings, *(finding for run in verdict.runs for finding in run.findings)]
    report = Report(
        runs=len(verdict.runs),
        events=sum(run.events for run in verdict.runs),
        payloads=sum(run.payloads for run in verdict.runs),
        erased=sum(run.erased for run in verdict.runs),
        findings=tuple(findings[:MAX_FINDINGS]),
        more=sum(run.more for run in verdict.runs) + len(findings[MAX_FINDINGS:]),
        unchecked=tuple(verdict.unchecked[:MAX_FINDINGS]),
    )
    if not out.as_json:
        for run in verdict.runs:
            out.line(f"run {run.run_id} head {run.head}")
    _write(out, report)
    return OK if verdict.ok else INTEGRITY


def _write(out: Output, report: Report) -> None:
    if out.as_json:
        out.json({"ok": report.ok, **jsonable(report)})
        return
    for finding in report.findings:
        at = f" #{finding.version}" if finding.version is not None else ""
        run = f"run {finding.run_id}{at} " if finding.run_id is not None else ""
        out.line(f"bad: {run}{finding.problem}: {finding.detail}")
    for part in report.unchecked:
        out.line(f"not checked: {part}")
    checked = (
        f"{number_of(report.runs, 'run')}, {number_of(report.events, 'event')}, "
        f"{number_of(report.payloads, 'payload')}, {report.erased:,} erased"
    )
    if report.ok:
        out.line(f"ok: {checked}")
    else:
        if report.more:
            out.line(f"and {report.more:,} more")
        out.line(f"FAILED: {number_of(len(report.findings) + report.more, 'finding')} in {checked}")
