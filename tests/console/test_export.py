"""Evidence of runs: a page that opens offline, and a check that a stranger can repeat."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.console.cli.kit import exits
from runfold.console.cli.main import main
from runfold.console.web.evidence import export
from runfold.ledger import Ledger
from runfold.ledger.errors import AccessDenied, InvalidValue, RunNotFound
from tests.support.archiving import archived, ended
from tests.support.databases import PROJECT
from tests.support.logins import with_login
from tests.support.past_month import in_that_month
from tests.support.runs import claimed

EVIL = '</style></pre><script src="https://evil.example/x">1</script><img src=x onerror=a> href="x"'


async def exported(ledger: Ledger, folder: Path) -> str:
    """Export a run of every sort of fact; return its id."""
    lease = await claimed(ledger, input={"evil": EVIL}, tags=["t"], deadline=3600, key="k")
    [lease] = await ledger.heartbeat([lease])
    await ledger.complete(lease, output={"lines": EVIL}, cost_usd_delta=0.02, step_count_delta=1)
    index = await export(ledger, [lease.run_id], folder)
    assert index["proofs"] == []
    return str(lease.run_id)


def checked(folder: Path) -> int:
    """Check a bundle with nothing but its folder."""
    return main(
        ["--url", "postgresql://nobody@127.0.0.1:1/none", "verify", "--bundle", str(folder)]
    )


async def verify(folder: Path) -> int:
    """Check a bundle beside the test's loop."""
    return await asyncio.to_thread(checked, folder)


async def test_a_run_opens_as_its_page_without_a_network_and_is_checked_without_a_database(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await exported(ledger, tmp_path / "evidence")
    page = (tmp_path / "evidence/runs" / f"{run}.html").read_text()
    made = [tmp_path / "evidence", *(tmp_path / "evidence").rglob("*")]
    assert [each for each in made if each.stat().st_mode & 0o077] == []

    assert not re.findall(r"<(script|img|link|form|iframe|object)\b", page)
    assert all(
        re.fullmatch(rf"#[\w-]+|{run}\.json", link)
        for link in re.findall(r'<[^>]* href="(.*?)"', page)
    )
    assert "default-src 'none'" in page
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(style) > 1_000
    assert "run.completed" in page
    assert "timeline" in page
    assert "&lt;script" in page
    assert await verify(tmp_path / "evidence") == exits.OK
    told = capsys.readouterr().out
    last = (await ledger.history(run))[-1]
    assert last.hash is not None
    assert f"run {run} head {last.hash.hex()}" in told
    assert "1 run, 4 events" in told


def _rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, str], None]:
    """Return a tampering with a run's events that also mends the index."""

    def tamper(folder: Path, run: str) -> None:
        path = folder / "runs" / f"{run}.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
        index = json.loads((folder / "bundle.json").read_text())
        index["runs"][0]["json_sha256"] = sha256(path.read_bytes()).hexdigest()
        index["runs"][0]["head"] = document["head"]
        (folder / "bundle.json").write_text(json.dumps(index))

    return tamper


def _index(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, str], None]:
    """Return a tampering with the index alone."""

    def tamper(folder: Path, run: str) -> None:
        index = json.loads((folder / "bundle.json").read_text())
        change(index)
        (folder / "bundle.json").write_text(json.dumps(index))

    return tamper


def _event(number: int, **members: object) -> Callable[[Path, str], None]:
    """Return a tampering with members of an event."""
    return _rewritten(lambda d: d["events"][number].update(members))


def _replaced(old: str, new: str) -> Callable[[Path, str], None]:
    """Return a tampering with the text of a run's events that also mends the index."""

    def tamper(folder: Path, run: str) -> None:
        path = folder / "runs" / f"{run}.json"
        path.write_text(path.read_text().replace(old, new, 1))
        index = json.loads((folder / "bundle.json").read_text())
        index["runs"][0]["json_sha256"] = sha256(path.read_bytes()).hexdigest()
        (folder / "bundle.json").write_text(json.dumps(index))

    return tamper


def _taken_by_the_salt(document: dict[str, Any]) -> None:
    """Give the first byte of the content to the salt: the bytes that are hashed stay the same."""
    event = document["events"][0]
    event["salt"] += event["body"][0].encode().hex()
    event["body"] = event["body"][1:]


def _page(folder: Path, run: str) -> None:
    (folder / "runs" / f"{run}.html").write_text("all is well")


def _link(folder: Path, run: str) -> None:
    path = folder / "runs" / f"{run}.json"
    path.unlink()
    path.symlink_to("/dev/zero")


def _more(folder: Path, run: str) -> None:
    (folder / "runs/other.html").write_text("x")


def _beside(folder: Path, run: str) -> None:
    (folder / "read-me-first.html").write_text("x")


TAMPERED: dict[str, tuple[Callable[[Path, str], None], str]] = {
    "an actor": (_rewritten(lambda d: d["events"][1].update(actor="mallory")), "hash"),
    "content": (_rewritten(lambda d: d["events"][0].update(body='{"input": 1}')), "payload"),
    "no content": (_rewritten(lambda d: d["events"][0].pop("body")), "payload"),
    "a cut end": (_rewritten(lambda d: d["events"].pop()), "the head"),
    "a gap": (_rewritten(lambda d: d["events"].pop(1)), "gap"),
    "no events": (_rewritten(lambda d: d["events"].clear()), "the head"),
    "another project": (_rewritten(lambda d: d.update(project="other")), "another run or project"),
    "another run": (
        _rewritten(lambda d: d.update(run_id=str(UUID(int=1)))),
        f"is of run {UUID(int=1)}",
    ),
    "no type": (_rewritten(lambda d: d["events"][0].pop("type")), "has no type"),
    "a number as text": (
        _rewritten(lambda d: d["events"][0].update(version="1")),
        "not of type int",
    ),
    "a later version": (_rewritten(lambda d: d.update(version=2)), "this code knows 1"),
    "a state in the index": (
        _index(lambda d: d["runs"][0].update(state="failed")),
        "state is failed in the index and completed in",
    ),
    "a kind in the index": (_index(lambda d: d["runs"][0].update(kind="other")), "kind is other"),
    "a count in the index": (_index(lambda d: d["runs"][0].update(events=2)), "events is 2"),
    "a head in the index": (_index(lambda d: d["runs"][0].pop("head")), "head is None"),
    "the project in the index": (_index(lambda d: d.update(project="other")), "project is other"),
    "the page": (_page, "is not the file that was exported"),
    "a link": (_link, "no regular file"),
    "a page more": (_more, "runs/other.html is not in the index"),
    "a page beside": (_beside, "read-me-first.html is not in the index"),
    "a run listed twice": (_index(lambda d: d["runs"].append(d["runs"][0])), "a run twice"),
    "a version that is true": (_rewritten(lambda d: d.update(version=True)), "of version True"),
    "a count with a fraction": (_index(lambda d: d["runs"][0].update(events=3.0)), "events is 3.0"),
    "no proofs": (_rewritten(lambda d: d.pop("proofs")), "has no 'proofs'"),
    "a time at no time": (_event(2, recorded_at="infinity"), "recorded at no time"),
    "no head": (_rewritten(lambda d: d.update(head="")), "the head is not"),
    "no salt": (_rewritten(lambda d: d["events"][0].pop("salt")), "payload"),
    "content in the salt": (_rewritten(_taken_by_the_salt), "commits to"),
    "a salt in capitals": (
        _rewritten(lambda d: d["events"][0].update(salt=d["events"][0]["salt"].upper())),
        "'salt' is not written as",
    ),
    "a hash in parts": (
        _rewritten(lambda d: d["events"][0].update(hash=" " + d["events"][0]["hash"])),
        "'hash' is not written as",
    ),
    "a fact that no hash covers": (_event(1, reason="the chief"), "'reason' is no part of what"),
    "a null": (_event(1, error_code=None), "'error_code' is no part of what"),
    "an actor before the actor": (
        _replaced('"actor":', '"actor": "mallory", "actor":'),
        "an object has 'actor' twice",
    ),
    "tags of another form": (_event(0, tags={}), "'tags' is not written as"),
    "digits of a cost": (_event(2, cost_usd="0.0200004"), "'cost_usd' is not written as"),
    "a time that goes back": (
        _event(2, recorded_at="2020-01-01T00:00:00.000000+00:00"),
        "time: it",
    ),
    "a time of another form": (
        _replaced('+00:00",', 'Z",'),
        "'recorded_at' is not written as",
    ),
    "a mark before the text": (_replaced("{", "\ufeff{"), "is not JSON"),
    "no number": (_replaced('"priority": 0', '"priority": NaN'), "NaN is no number"),
}


async def test_what_was_changed_in_a_bundle_is_named(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = await claimed(ledger, input={"a": 1})
    await ledger.complete(lease, cost_usd_delta=0.02)
    for name, (tamper, finding) in TAMPERED.items():
        folder = tmp_path / name
        await export(ledger, [lease.run_id], folder)
        tamper(folder, str(lease.run_id))

        assert await verify(folder) == exits.INTEGRITY, name
        assert finding in capsys.readouterr().out, name


async def test_the_json_of_one_run_is_checked_alone(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await exported(ledger, tmp_path / "evidence")
    file = tmp_path / "evidence/runs" / f"{run}.json"
    assert await verify(file) == exits.OK
    assert f"run {run} head" in capsys.readouterr().out
    document = json.loads(file.read_text())
    document["events"][1]["actor"] = "mallory"
    file.write_text(json.dumps(document))
    assert await verify(file) == exits.INTEGRITY

    file.write_text("{}")
    assert await verify(file) == exits.USAGE


async def test_evidence_of_an_archived_run_is_that_of_the_run_before(
    ledger: Ledger, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    async with in_that_month(connection):
        run = await ended(ledger, deadline=3600)
    for name in ("before", "after"):
        await export(ledger, [run], tmp_path / name)
        if name == "before":
            await archived(ledger, tmp_path)

    first, then = ((tmp_path / n / "runs" / f"{run}.json").read_text() for n in ("before", "after"))
    assert then == first
    assert await verify(tmp_path / "after") == exits.OK


async def test_what_a_version_cannot_check_is_named(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = await exported(ledger, tmp_path / "evidence")
    _rewritten(lambda d: d.update(sealed=True))(tmp_path / "evidence", run)
    _index(lambda d: d.update(proofs=[{"format": "seal"}]))(tmp_path / "evidence", run)
    _index(lambda d: d["runs"][0].update(owner="ann"))(tmp_path / "evidence", run)

    assert await verify(tmp_path / "evidence") == exits.OK
    told = capsys.readouterr().out
    for part in ("bundle.json: proofs", f"run {run}: 'owner'", f"{run}.json: 'sealed'"):
        assert f"{part}, which this version cannot check" in told


@pytest.mark.parametrize("index", ["", "[]", "{}", "[" * 100_000, '{"format": "runfold-evidence"}'])
def test_a_folder_that_is_no_bundle_is_refused(
    index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(tmp_path / "nowhere") == exits.USAGE
    (tmp_path / "bundle.json").write_text(index)

    assert checked(tmp_path) == exits.USAGE
    assert "bundle.json" in capsys.readouterr().err


async def test_an_export_that_fails_leaves_nothing_behind(ledger: Ledger, tmp_path: Path) -> None:
    run = await ledger.submit("parse")
    missing = UUID("019a0000-0000-7000-8000-000000000000")

    with pytest.raises(RunNotFound):
        await export(ledger, [run.run_id, missing], tmp_path / "evidence")

    assert os.listdir(tmp_path) == []
    await export(ledger, [run.run_id], tmp_path / "evidence")
    assert os.listdir(tmp_path) == ["evidence"]


async def test_an_export_takes_the_right_audit_and_a_new_folder(
    ledger: Ledger, database: str, tmp_path: Path
) -> None:
    run = await ledger.submit("parse", {"a": 1})
    with pytest.raises(InvalidValue, match="cannot be made"):
        await export(ledger, [run.run_id], Path("/dev/null/x"))
    async with (
        with_login(database, "runfold_worker", rights=("read", "work")) as login,
        Ledger.open(login, PROJECT) as reader,
    ):
        with pytest.raises(AccessDenied):
            await export(reader, [run.run_id], tmp_path / "x")
    async with (
        with_login(database, "runfold_auditor", rights=("audit",)) as login,
        Ledger.open(login, PROJECT) as auditor,
    ):
        await export(auditor, [run.run_id], tmp_path / "y")
    assert await verify(tmp_path / "y") == exits.OK
