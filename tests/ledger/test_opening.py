"""Opening a ledger: a database, a project or a setting that cannot be is named, and left alone."""

from __future__ import annotations

import re
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidValue,
    NewerSchema,
    NotMigrated,
    UnsupportedServer,
)
from runfold.ledger.postgres import compatibility as database_module


async def opened(url: str, project: str | None = "test", **options: Any) -> None:
    """Open a ledger and close it."""
    async with Ledger.open(url, project, **options):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody@127.0.0.1:1/nothing",
        "postgresql://nobody@/nothing?host=/nonexistent",
        "postgresql://nobody:secret@127.0.0.1:1/nothing",
    ],
)
async def test_a_database_that_is_down_is_unavailable_and_its_password_is_not_shown(
    url: str,
) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        await opened(url)

    assert "nothing" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "mysql://x/y", "nonsense", "http://example.org", "postgresql+psycopg2://x/y"]
)
async def test_an_address_of_no_postgres_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that no built-in server can hide the mistake.
    monkeypatch.setenv("RUNFOLD_ENV", "production")

    with pytest.raises((InvalidValue, DatabaseUnavailable, ConfigurationError)):
        await opened(url)


async def test_a_database_that_does_not_exist_is_unavailable(database: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        await opened(database.replace("/test_", "/no_such_"))


async def test_a_database_that_is_not_migrated_says_how_to_and_is_left_alone(
    empty_database: str,
) -> None:
    with pytest.raises(NotMigrated, match="runfold db upgrade"):
        await opened(empty_database)

    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("SELECT to_regnamespace('ledger')") is None
    await connection.close()


async def test_a_version_table_without_a_row_is_no_schema(unverified_database: str) -> None:
    connection = await asyncpg.connect(unverified_database)
    await connection.execute("DELETE FROM ledger.alembic_version")
    await connection.close()

    with pytest.raises(NotMigrated, match="runfold db upgrade"):
        await opened(unverified_database)


async def test_a_database_that_was_migrated_by_newer_code_is_left_alone(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("UPDATE ledger.alembic_version SET version_num = '9999'")

    with pytest.raises(NewerSchema, match="9999") as caught:
        await opened(database)

    assert caught.value.found == "9999"
    assert "newer runfold" in str(caught.value)


async def test_a_server_that_is_too_old_is_refused(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "OLDEST_SERVER", 99)

    with pytest.raises(UnsupportedServer, match="99 or newer"):
        await opened(database)


async def test_a_project_that_cannot_be_is_refused(database: str) -> None:
    for project in ("", "a\x00", "x" * 201, "line\nbreak"):
        for create in (False, True):
            with pytest.raises(InvalidValue):
                await opened(database, project, create_project=create)


async def test_a_project_of_another_spelling_can_neither_be_made_nor_be_there(
    database: str,
) -> None:
    for project in ("Upper", "-x", "a b", "ä", "x" * 64, "'; DROP TABLE ledger.event; --"):
        for create in (False, True):
            with pytest.raises(InvalidValue, match="lower-case"):
                await opened(database, project, create_project=create)


SETTINGS = [
    ("LEASE_TTL_SECONDS", "0"),
    ("LEASE_TTL_SECONDS", "nan"),
    ("LEASE_TTL_SECONDS", "inf"),
    ("HEARTBEAT_SECONDS", "60"),
    ("HEARTBEAT_SECONDS", "nan"),
    ("REAPER_SECONDS", "nan"),
    ("REAPER_SECONDS", "inf"),
    ("PAYLOAD_LIMIT_BYTES", "-1"),
    ("POOL_SIZE", "0"),
    ("POOL_SIZE", "many"),
    ("ENV", "prod"),
    ("ACTOR", ""),
    ("ACTOR", "ann "),
    ("ACTOR", "a\nb"),
    ("ACTOR", "x" * 201),
]


async def test_a_setting_that_makes_no_sense_is_named(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SETTINGS:
        with monkeypatch.context() as only_here:
            only_here.setenv(f"RUNFOLD_{name}", value)
            said = f"RUNFOLD_{name} {value[:100]!r}: "
            with pytest.raises(ConfigurationError, match=f"{re.escape(said)}|three heartbeats"):
                await opened(database)


async def test_production_refuses_the_built_in_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNFOLD_ENV", "production")

    with pytest.raises(ConfigurationError, match="RUNFOLD_URL"):
        async with Ledger.open(project="x"):
            pass
