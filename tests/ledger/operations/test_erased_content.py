"""Content that was erased cannot be found by guessing: no digest of it is left without its salt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import DuplicateKey
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres.tables import metadata
from tests.support.databases import PROJECT
from tests.support.runs import claimed

PINS = [f"{number:03}" for number in range(400, 440)]
SECRET = "417"  # noqa: S105  what the test guesses


@pytest.fixture
async def open_ledger(unverified_database: str) -> AsyncIterator[Ledger]:
    """The ledger of a database whose content the test erases."""
    async with Ledger.open(unverified_database, PROJECT) as opened:
        yield opened


@pytest.fixture
async def owner(unverified_database: str) -> AsyncIterator[asyncpg.Connection]:
    """The owner's own connection."""
    opened = await asyncpg.connect(unverified_database)
    yield opened
    await opened.close()


async def erase(owner: asyncpg.Connection, run_id: UUID) -> None:
    """Erase all content of a run, as a legal request asks for."""
    await owner.execute("ALTER TABLE ledger.payload DISABLE TRIGGER ALL")
    await owner.execute("DELETE FROM ledger.payload WHERE run_id = $1", run_id)
    await owner.execute("ALTER TABLE ledger.payload ENABLE ALWAYS TRIGGER refuse_change")
    await owner.execute("UPDATE ledger.command SET salt = NULL WHERE run_id = $1", run_id)


ERASED = """
INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, compensates, hash)
SELECT e.project_id, e.run_id, e.version + 1, e.recorded_at, 'payload.erased', 'ann', 1,
  ledger.event_hash(e.hash, e.project_id, e.run_id, e.version + 1, e.recorded_at,
    'payload.erased', 'ann', compensates => 1)
FROM ledger.event AS e WHERE e.run_id = $1 ORDER BY e.version DESC LIMIT 1
"""


async def kept_digests(owner: asyncpg.Connection) -> set[bytes]:
    """Every value of every bytea column of the ledger."""
    digests: set[bytes] = set()
    for table in metadata.sorted_tables:
        for column in table.columns:
            if str(column.type) == "BYTEA" or "BLOB" in str(column.type):
                rows = await owner.fetch(f"SELECT {column.name} AS value FROM {table.fullname}")
                digests |= {bytes(row["value"]) for row in rows if row["value"] is not None}
    return digests


GUESS = """
WITH body (body) AS (VALUES ($1::text), ($2), ($3), ($4)), command (text) AS (
  SELECT body FROM body
  UNION ALL
  SELECT jsonb_build_array('parse', body, 0, NULL::numeric, 3, NULL::numeric, NULL::numeric,
    NULL::text)::text FROM body
  UNION ALL
  SELECT ledger.command_text($5, what, false, NULL, NULL, body, NULL, NULL, NULL, NULL, NULL)
  FROM unnest(ARRAY['completed', 'note.added']) AS w (what), body
)
SELECT sha256(convert_to(text, 'UTF8')) AS digest FROM command
UNION
SELECT ledger.payload_hash(salt, text) FROM command, unnest($6::bytea[]) AS s (salt)
"""


async def digests_of(
    owner: asyncpg.Connection, pin: str, run_id: UUID, salts: Iterable[bytes]
) -> set[bytes]:
    """What an attacker would look for who knows all but the secret, and these salts."""
    bodies = [f'{{"{name}":"{pin}"}}' for name in ("input", "output", "text")]
    rows = await owner.fetch(GUESS, f'"{pin}"', *bodies, run_id, [b"", *salts])
    return {row["digest"] for row in rows}


async def test_erased_content_is_found_by_no_guess(
    open_ledger: Ledger, owner: asyncpg.Connection
) -> None:
    lease = await claimed(open_ledger, input=SECRET, key="of the input")
    await open_ledger.append(lease, NoteAdded(text=SECRET), key="of the note")
    await open_ledger.transition(lease, State.COMPLETED, output=SECRET, key="of the output")
    bodies = {
        row["body"]
        for row in await owner.fetch("SELECT body::text FROM ledger.payload ORDER BY version")
    }
    assert bodies == {f'{{"{name}":"{SECRET}"}}' for name in ("input", "text", "output")}

    before = await kept_digests(owner)
    assert len(before & await digests_of(owner, SECRET, lease.run_id, before)) == 6

    await erase(owner, lease.run_id)

    kept = await kept_digests(owner)
    for pin in PINS:
        assert not kept & await digests_of(owner, pin, lease.run_id, kept)


async def test_a_key_whose_content_is_erased_answers_by_its_name(
    open_ledger: Ledger, owner: asyncpg.Connection
) -> None:
    lease = await claimed(open_ledger, input=SECRET, key="of the input")
    noted = await open_ledger.append(lease, NoteAdded(text=SECRET), key="of the note")
    with pytest.raises(DuplicateKey):
        await open_ledger.submit("parse", "other", key="of the input")
    with pytest.raises(DuplicateKey):
        await open_ledger.append(lease, NoteAdded(text="other"), key="of the note")

    await erase(owner, lease.run_id)

    again = await open_ledger.submit("parse", "other", key="of the input")
    noted_again = await open_ledger.append(lease, NoteAdded(text="other"), key="of the note")
    assert (again.run_id, noted_again) == (lease.run_id, noted)
    with pytest.raises(DuplicateKey):  # it named a submit
        await open_ledger.append(lease, NoteAdded(text="other"), key="of the input")


async def test_two_keys_of_the_same_content_have_different_digests(
    open_ledger: Ledger, owner: asyncpg.Connection
) -> None:
    await open_ledger.submit_many(
        [{"kind": "parse", "input": "a", "key": key} for key in ("one", "two")]
    )

    rows = await owner.fetch("SELECT salt, content_hash FROM ledger.command")

    assert len({row["salt"] for row in rows}) == len({row["content_hash"] for row in rows}) == 2
    assert {len(row["salt"]) for row in rows} == {32}


async def test_an_erased_content_whose_key_has_kept_its_salt_is_found(
    open_ledger: Ledger, owner: asyncpg.Connection
) -> None:
    lease = await claimed(open_ledger, input=SECRET, key="of the input")
    [salt] = [row["salt"] for row in await owner.fetch("SELECT salt FROM ledger.command")]

    await erase(owner, lease.run_id)
    await owner.execute(ERASED, lease.run_id)
    assert (await open_ledger.verify()).ok
    await owner.execute("UPDATE ledger.command SET salt = $1", salt)

    problems = [finding.detail for finding in (await open_ledger.verify()).findings]
    assert any("still has its salt" in problem for problem in problems)
