"""A run in full: its facts a line each, then its input and output."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from rich.text import Text

from runfold.console.cli.kit.output import Output
from runfold.console.shared.approval_requests import ApprovalRequest
from runfold.console.shared.plain import (
    clean,
    compact,
    jsonable,
    moment,
    money,
    number_of,
    pretty,
    relative,
)
from runfold.console.shared.request_lines import request_lines
from runfold.console.shared.rerun import rerun_of
from runfold.ledger import Run

_DETAIL: Final = 500
"""Characters shown of an error's detail; `--json` has all of it."""


def write_run(out: Output, run: Run, request: ApprovalRequest | None = None) -> None:
    """Print a run with its input and output, and the approval that it waits for."""
    if out.as_json:
        out.json(run if request is None else {**jsonable(run), "request": jsonable(request)})
        return
    lines = header(run)
    if request is not None:
        lines = [line for line in lines if line[0] not in {"waits", "approved"}] + list(
            request_lines(request)
        )
    for name, value in lines:
        out.entry(Text(f"{name:<9} "), value)
    contents = [("input", run.input), ("output", run.output)]
    if request is not None:
        contents.append(("content to decide", request.show))
    for name, content in contents:
        if content is not None:
            out.line(name)
            out.block(pretty(content))
    trace = traceback_of(run.error_detail)
    if trace is not None:
        out.line("traceback")
        out.block(trace, indent="  ")


def traceback_of(error_detail: Any) -> str | None:
    """Return the traceback in the detail of a handler's error; None if there is none."""
    trace = error_detail.get("traceback") if isinstance(error_detail, dict) else None
    return trace.rstrip("\n") if isinstance(trace, str) else None


def header(run: Run) -> list[tuple[str, str]]:
    """Return the names and values worth a line, without the content."""
    lines = [
        ("run", str(run.run_id)),
        ("kind", clean(run.kind)),
        ("state", f"{run.state}{' (parked)' if run.is_parked else ''}, version {run.version}"),
        ("attempt", f"{run.attempt_count} of {run.max_attempts}"),
        ("priority", str(run.priority)),
        ("submitted", _when(run.created_at)),
        ("started", _when(run.started_at)),
        ("ended", _when(run.completed_at)),
        ("changed", _when(run.updated_at) if run.completed_at is None else ""),
        ("claimable", f"from {_when(run.available_at)}" if run.available_at else ""),
        ("lease", _lease(run)),
        ("waits", f"until {_when(run.wait_until)}" if run.wait_until else ""),
        ("approved", f"{run.approved} of {run.approvals}" if run.approvals else ""),
        ("deadline", _when(run.deadline)),
        (
            "cancel",
            f"requested {_when(run.cancel_requested_at)}" if run.cancel_requested_at else "",
        ),
        ("failure", _failure(run)),
        ("cost", f"{money(run.cost_usd)}, {number_of(run.step_count, 'step')}"),
        ("tags", ", ".join(clean(tag) for tag in run.tags)),
        ("key", clean(run.key or "")),
        ("rerun of", clean(rerun_of(run.key) or "")),
        (
            "sha256",
            f"{run.output_sha256} (of an output kept elsewhere)" if run.output_sha256 else "",
        ),
        ("hash", run.hash.hex()),
    ]
    return [(name, value) for name, value in lines if value]


def _when(value: datetime | None) -> str:
    return f"{moment(value)} ({relative(value)})" if value is not None else ""


def _lease(run: Run) -> str:
    if run.token is None or run.lease_until is None:
        return ""
    return f"{clean(run.worker_id)} under token {run.token}, until {_when(run.lease_until)}"


def _failure(run: Run) -> str:
    return "  ".join(part for part in (clean(run.error_code or ""), _detail(run)) if part)


def _detail(run: Run) -> str:
    detail = run.error_detail
    if detail is None:
        return ""
    if traceback_of(detail) is None:
        return compact(detail, _DETAIL)
    return clean(f"{detail.get('type')}: {detail.get('message')}")
