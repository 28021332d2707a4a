"""Evidence of runs as a folder: each run's page, static and offline, and its events as JSON."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final
from uuid import UUID

from markupsafe import Markup

from runfold.console.shared.bundles import INDEX, MAX_RUNS, RUNS
from runfold.console.web.pages.attempts import attempts
from runfold.console.web.pages.rendering import ASSETS, rendered
from runfold.console.web.pages.run import event_row
from runfold.console.web.pages.timeline import Fact, timeline
from runfold.ledger import Ledger
from runfold.ledger.archive import reading as archive
from runfold.ledger.errors import InvalidValue
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.proof.bundle import FORMAT, VERSION, evidence
from runfold.ledger.reading.feed import as_event
from runfold.ledger.reading.verify import EVENTS
from runfold.ledger.run import Run
from runfold.ledger.validation import check_int
from runfold.version import __version__

SHOWN: Final = 5_000
"""Events on a page; the JSON beside it has all."""
_LINK: Final = re.compile(r' href="([^"]*)"')
_EVENT: Final = re.compile(r".*/events/([0-9]+)")
_FACTS: Final = tuple(each.name for each in fields(Fact))


@dataclass(frozen=True, slots=True)
class _NoRelations:
    """No relatives: a bundle says nothing about runs that are not in it."""

    any: bool = False


async def export(ledger: Ledger, runs: Sequence[UUID], folder: Path) -> dict[str, Any]:
    """Write a bundle into a new folder, for its owner alone; return its index.

    The folder appears when the bundle is whole: an export that fails leaves none behind. Needs the
    right audit, because a bundle has the salts that content is checked with. Raises RunNotFound,
    AccessDenied, ArchiveUnusable, or InvalidValue for a folder that exists or cannot be made.
    """
    check_int("runs", len(runs), least=1, most=MAX_RUNS)
    with _made(folder) as unfinished:
        return await _bundle(ledger, runs, unfinished)


async def _bundle(ledger: Ledger, runs: Sequence[UUID], folder: Path) -> dict[str, Any]:
    at = datetime.now(UTC)
    listed = [await _run(ledger, run_id, folder, at) for run_id in dict.fromkeys(runs)]
    index = {
        "format": FORMAT,
        "version": VERSION,
        "project": ledger.project_id,
        "exported_at": at.isoformat(),
        "exported_by": ledger.actor,
        "runfold": __version__,
        "runs": listed,
        "proofs": [],
    }
    _write(folder / INDEX, json.dumps(index, indent=1).encode())
    return index


async def _run(ledger: Ledger, run_id: UUID, folder: Path, at: datetime) -> dict[str, Any]:
    now = await ledger.get(run_id)
    asked = (EVENTS, ledger.project_id, run_id, run_id)
    rows: Sequence[Mapping[str, Any]] = await fetch(ledger.pool, *asked)
    rows = rows or await archive.entries(ledger.pool, now)
    rows = rows or await fetch(ledger.pool, *asked)  # a rebuild attached it meanwhile
    proof = evidence(ledger.project_id, run_id, rows)
    events = json.dumps(proof, ensure_ascii=False, indent=1).encode()
    then = await ledger.state_at(run_id, rows[-1]["version"])
    page = page_of(ledger.project_id, then, rows, at).encode()
    _write(folder / RUNS / f"{run_id}.json", events)
    _write(folder / RUNS / f"{run_id}.html", page)
    return {
        "run_id": str(run_id),
        "kind": then.kind,
        "state": str(then.state),
        "events": len(rows),
        "head": proof["head"],
        "json_sha256": sha256(events).hexdigest(),
        "html_sha256": sha256(page).hexdigest(),
    }


def page_of(project: str, run: Run, rows: Sequence[Mapping[str, Any]], at: datetime) -> str:
    """Return the page of a run as one file: the style inside, no script, no link elsewhere."""
    facts = [Fact(**{name: row[name] for name in _FACTS}) for row in rows]
    shown = [event_row(as_event(row)) for row in rows[:SHOWN]]
    style = ASSETS["console.css"].decode()
    context = {
        "evidence": True, "project": project, "base": "", "actor": "", "run": run, "at": at,
        "attempts": attempts(facts, at), "relations": _NoRelations(), "events": shown,
        "after": 0, "more": None, "beats": True, "timeline": timeline(facts, at, None),
        "attempt": None, "cut": 0, "pending": None, "cancellable": False, "window": SHOWN,
        "left_out": len(rows) - len(shown), "head": bytes(rows[-1]["hash"]).hex(),
        "style": Markup(style),  # noqa: S704  the package's own file
        "style_hash": base64.b64encode(sha256(style.encode()).digest()).decode(),
    }  # fmt: skip
    return _LINK.sub(_kept, rendered("run.html", context))


def _kept(link: re.Match[str]) -> str:
    """Return a link within the page or to the JSON beside it; "" for any other."""
    target = link[1]
    if target.startswith("#") or re.fullmatch(r"[0-9a-f-]{36}\.json", target):
        return link[0]
    event = _EVENT.fullmatch(target)
    return f' href="#e{event[1]}"' if event else ""


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """Make a folder under a temporary name beside it, and rename it once it has its content."""
    if os.path.lexists(folder):
        raise InvalidValue("folder", str(folder), "cannot be made: it exists already")
    with _refused(folder):
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (unfinished / RUNS).mkdir(mode=0o700)
        yield unfinished
        with _refused(folder):
            unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


@contextmanager
def _refused(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidValue("folder", str(folder), f"cannot be made: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
