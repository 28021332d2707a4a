"""The check of evidence, without database or network; nothing in it is believed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from runfold.ledger.errors import InvalidValue
from runfold.ledger.proof.bundle import (
    FORMAT,
    BundleUnreadable,
    Checked,
    check_evidence,
    opened,
    same,
    unknown,
)
from runfold.ledger.proof.chain import Finding

INDEX: Final = "bundle.json"
RUNS: Final = "runs"
MAX_BYTES: Final = 512 * 1024 * 1024
"""The largest file that is read."""
MAX_RUNS: Final = 10_000

PROVED: Final = ("project", "kind", "state", "events", "head")
"""What the index says of a run, and its events prove."""
_MEMBERS: Final = (
    "format", "version", "project", "exported_at", "exported_by", "runfold", "runs", "proofs",
)  # fmt: skip
_ENTRY: Final = ("run_id", *PROVED, "json_sha256", "html_sha256")


@dataclass(slots=True)
class Verdict:
    """The result of the check of a bundle."""

    runs: list[Checked] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """What this code does not know, and so did not check."""

    @property
    def ok(self) -> bool:
        """Whether the check found nothing wrong."""
        return not self.findings and not any(run.findings for run in self.runs)


def check_bundle(path: Path) -> Verdict:
    """Return the verdict on a bundle, or on the JSON of one run.

    Of a bundle, its files are checked against its index, and each run's evidence. Raises
    InvalidValue for what is neither, or whose version is unknown.
    """
    is_file = os.path.isfile(path)  # Path.is_file raises for a name that is too long
    return _check_file(path) if is_file else _check_folder(path)


def _check_file(file: Path) -> Verdict:
    try:
        checked = check_evidence(_read(file))
    except BundleUnreadable as error:
        raise InvalidValue("bundle", str(file), str(error)) from error
    verdict = Verdict([checked])
    _not_checked(file.name, checked.unchecked, verdict)
    return verdict


def _check_folder(folder: Path) -> Verdict:
    try:
        index = opened(_read(folder / INDEX), FORMAT)
        listed = {UUID(run["run_id"]): run for run in index["runs"]}
        if len(listed) > MAX_RUNS:
            raise BundleUnreadable(f"has more than {MAX_RUNS:,} runs")  # noqa: TRY301  as the others
    except (BundleUnreadable, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidValue("bundle", str(folder), f"{INDEX} {error}") from error
    verdict = Verdict()
    _not_checked(INDEX, unknown(index, _MEMBERS), verdict)
    if len(listed) < len(index["runs"]):
        verdict.findings.append(Finding(None, None, "bundle", "the index lists a run twice"))
    for run_id, entry in listed.items():
        _not_checked(f"{INDEX}, run {run_id}", unknown(entry, _ENTRY), verdict)
        _check_run(folder, run_id, {**entry, "project": index["project"]}, verdict)
    for name in _unlisted(folder, listed):
        verdict.findings.append(Finding(None, None, "bundle", f"{name} is not in the index"))
    return verdict


def _not_checked(where: str, members: Sequence[str], verdict: Verdict) -> None:
    verdict.unchecked += [f"{where}: {each}, which this version cannot check" for each in members]


def _check_run(folder: Path, run_id: UUID, entry: dict[str, Any], verdict: Verdict) -> None:
    def wrong(detail: str) -> None:
        verdict.findings.append(Finding(run_id, None, "bundle", detail))

    for ending in ("html", "json"):
        name = f"{RUNS}/{run_id}.{ending}"
        try:
            content = _read(folder / name)
        except BundleUnreadable as error:
            wrong(f"{name} {error}")
            continue
        if sha256(content).hexdigest() != entry.get(f"{ending}_sha256"):
            wrong(f"{name} is not the file that was exported")
        if ending == "html":
            continue
        try:
            checked = check_evidence(content)
        except BundleUnreadable as error:
            wrong(f"{name} {error}")
            continue
        verdict.runs.append(checked)
        _not_checked(name, checked.unchecked, verdict)
        if checked.run_id != run_id:
            wrong(f"{name} is of run {checked.run_id}")
        for fact in PROVED:
            shown, proved = entry.get(fact), getattr(checked, fact)
            if not same(shown, proved):
                wrong(f"{fact} is {shown} in the index and {proved} in {name}")


def _unlisted(folder: Path, listed: dict[UUID, Any]) -> Iterator[str]:
    known = {f"{RUNS}/{run_id}.{ending}" for run_id in listed for ending in ("html", "json")}
    paths = (*folder.glob("*"), *(folder / RUNS).glob("*"))
    names = {str(path.relative_to(folder)) for path in paths}
    yield from sorted(names - known - {INDEX, RUNS})


def _read(path: Path) -> bytes:
    """Return a regular file's bytes: a link or a device may lead anywhere, and have no end."""
    try:
        if path.is_symlink() or not path.is_file():
            raise BundleUnreadable("is missing, or no regular file")
        if path.stat().st_size > MAX_BYTES:
            raise BundleUnreadable(f"has more than {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise BundleUnreadable(f"cannot be read ({error.strerror})") from error
