"""What a person must see of a request before deciding, in lines of names and values."""

from __future__ import annotations

from collections.abc import Sequence

from runfold.console.shared.approval_requests import ApprovalRequest
from runfold.console.shared.plain import clean, moment, relative


def request_lines(request: ApprovalRequest) -> Sequence[tuple[str, str]]:
    """Return the names and values that a person must see before deciding, without the content."""
    lines = [
        ("request", f"{request.version}{f', {clean(request.name)}' if request.name else ''}"),
        ("prompt", clean(request.prompt or "")),
        ("asked", f"{moment(request.asked_at)} ({relative(request.asked_at)})"),
        ("submitter", clean(request.submitted_by)),
        ("decides", _decides(request)),
        ("approved", _approved(request)),
        ("undecided", _undecided(request)),
        ("shown", f"sha256 {clean(request.shown_sha256)}" if request.shown_sha256 else ""),
    ]
    return [(name, value) for name, value in lines if value]


def _decides(request: ApprovalRequest) -> str:
    member = f"a member of role {clean(request.role)}" if request.role else "anybody"
    return f"{member}, but not {clean(request.submitted_by)}" if request.other_person else member


def _approved(request: ApprovalRequest) -> str:
    if request.approvals == 1:
        return ""
    by = f", by {', '.join(map(clean, request.approved_by))}" if request.approved_by else ""
    return f"{progress(request)}{by}"


def progress(request: ApprovalRequest) -> str:
    """Return how many of how many persons have approved."""
    return f"{len(request.approved_by)} of {request.approvals}"


def _undecided(request: ApprovalRequest) -> str:
    if request.wait_until is None:
        return ""
    outcome = clean(request.wait_outcome or "cancelled")
    return f"{outcome} {moment(request.wait_until)} ({relative(request.wait_until)})"
