"""Evidence of a run as JSON: its events with all that their hashes commit to, and the check (pure).

docs/decisions/0070 has the format. What reads a bundle refuses a version that it does not know, and
names the members that it does not know as not checked. In an event nothing may be that its hash
does not cover: each is read and written again, and must be what it was.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from runfold.ledger.proof.chain import ChainCheck, Finding
from runfold.ledger.proof.encoding import FIELDS

FORMAT: Final = "runfold-evidence"
VERSION: Final = 1
_COLUMNS: Final = (*FIELDS, ("hash", "bytes"), ("salt", "bytes"), ("body", "text"))
_INFINITE: Final = {"infinity": datetime.max, "-infinity": datetime.min}  # noqa: DTZ901  the driver's
_MEMBERS: Final = ("format", "version", "project", "run_id", "head", "events", "proofs")
_BAD: Final = (KeyError, TypeError, ValueError, AttributeError, InvalidOperation, RecursionError)


class BundleUnreadable(Exception):
    """The input is not evidence, or is of a version that this code does not know."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check of one run found; `head` is the hash of its last event."""

    project: str
    run_id: UUID
    kind: str | None
    state: str | None
    """After the last event."""
    events: int
    payloads: int
    erased: int
    head: str
    findings: Sequence[Finding]
    more: int
    unchecked: Sequence[str] = ()
    """The members that this code does not know, and what it cannot check yet."""


def evidence(project: str, run_id: UUID, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the evidence of a run: rows of its events with salt and body, in order."""
    return {
        "format": f"{FORMAT}/run",
        "version": VERSION,
        "project": project,
        "run_id": str(run_id),
        "head": bytes(rows[-1]["hash"]).hex(),
        "events": [_written(row) for row in rows],
        "proofs": [],  # of seals and anchors, for a later version
    }


def check_evidence(text: str | bytes) -> Checked:
    """Check the evidence of a run: every hash, payload, version and move.

    Raises BundleUnreadable unless the text is evidence.
    """
    document = opened(text, f"{FORMAT}/run")
    if missing := [name for name in _MEMBERS if name not in document]:
        raise BundleUnreadable(f"has no {missing[0]!r}")
    try:
        project, run_id = document["project"], UUID(document["run_id"])
        head, given = document["head"], document["events"]
        rows = [_read(row) for row in given]
    except _BAD as error:
        raise BundleUnreadable(f"has a member of another form: {error}") from error
    chain = ChainCheck()
    strangers = []
    for row, written in zip(rows, given, strict=True):
        if odd := _odd(row, written):
            strangers.append(_finding(run_id, row["version"], odd))
        if row["project_id"] != project or row["run_id"] != run_id:
            strangers.append(_finding(run_id, row["version"], "is of another run or project"))
            continue
        try:
            chain.add(row)
        except _BAD as error:
            raise BundleUnreadable(f"event {row['version']} cannot be checked: {error}") from error
    chain.close()
    last = rows[-1]["hash"].hex() if rows else ""
    if not rows or last != head:
        strangers.append(_finding(run_id, None, "the head is not the hash of the last event"))
    states = [row["state"] for row in rows if row["state"] is not None]
    return Checked(
        project, run_id, rows[0]["kind"] if rows else None, states[-1] if states else None,
        chain.events, chain.payloads, chain.erased, last,
        (*strangers, *chain.findings), chain.more, unknown(document, _MEMBERS),
    )  # fmt: skip


def opened(text: str | bytes, format_: str) -> dict[str, Any]:
    """Return a document of a format and a version that this code knows.

    Raises BundleUnreadable.
    """
    try:
        document = json.loads(
            text if isinstance(text, str) else text.decode(),
            object_pairs_hook=_members,
            parse_constant=_no_number,
        )
    except _BAD as error:
        raise BundleUnreadable(f"is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != format_:
        raise BundleUnreadable(f"is not of the format {format_}")
    if not same(document.get("version"), VERSION):
        raise BundleUnreadable(
            f"is of version {document.get('version')!r}; this code knows {VERSION}: use a newer one"
        )
    return document


def unknown(document: Mapping[str, Any], known: Collection[str]) -> tuple[str, ...]:
    """Return what of a document nothing vouches for: unknown members, and proofs of any sort."""
    names = [repr(name) for name in document if name not in known]
    return (*names, *(["proofs"] if document.get("proofs") else []))


def same(shown: Any, proved: Any) -> bool:
    """Whether two values are the same in JSON, where 1, 1.0 and true are three."""
    return type(shown) is type(proved) and bool(shown == proved)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members: of two of one name, readers would take different ones."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"an object has {name!r} twice")
        members[name] = value
    return members


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _odd(row: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """Return what of an event's JSON is not as an export writes the event; None if all is."""
    written = _written(row)
    if unhashed := sorted(given.keys() - written.keys()):
        return f"{', '.join(map(repr, unhashed))} is no part of what its hash covers"
    if odd := [name for name in written if not same(given[name], written[name])]:
        return f"{', '.join(map(repr, odd))} is not written as an export writes it"
    return None


def _finding(run_id: UUID, version: int | None, detail: str) -> Finding:
    return Finding(run_id, version, "bundle", detail)


def _written(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an event that are not null, as JSON can hold them."""
    columns = {name: row[name] for name, _ in _COLUMNS if row[name] is not None}
    return {name: _as_json(value) for name, value in columns.items()}


def _as_json(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case datetime() if value.tzinfo is None:
            return "infinity" if value == datetime.max else "-infinity"  # noqa: DTZ901  compared
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        case Decimal():
            return f"{value:.6f}"
        case UUID():
            return str(value)
        case _:
            return value


def _read(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event as the checks take it: every column, null where the file has none."""
    event = {name: _as_column(name, how, row.get(name)) for name, how in _COLUMNS}
    for name in ("project_id", "run_id", "version", "recorded_at", "type", "actor", "hash"):
        if event[name] is None:
            raise ValueError(f"an event has no {name}")
    return event


def _as_column(name: str, how: str, value: Any) -> Any:
    try:
        return None if value is None else _column(how, value)
    except _BAD as error:
        raise ValueError(
            f"{name} of an event is {json.dumps(value)[:60]}: not of type {how}"
        ) from error


def _column(how: str, value: Any) -> Any:  # noqa: PLR0911  one return for each form
    match how:
        case "uuid":
            return UUID(value)
        case "time":
            return _INFINITE.get(value) or datetime.fromisoformat(value)
        case "money":
            return Decimal(value)
        case "bytes":
            return bytes.fromhex(value)
        case "int" | "flag":
            if isinstance(value, bool) != (how == "flag") or not isinstance(value, int):
                raise TypeError
            return value
        case "list":
            return [str(member) for member in value]
        case _:
            if not isinstance(value, str):
                raise TypeError
            return value
