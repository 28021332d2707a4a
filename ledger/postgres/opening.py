"""From settings to a database that can be used: the embedded one or yours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runfold.ledger.errors import ConfigurationError, InvalidValue, UnknownProject
from runfold.ledger.postgres import revisions, schema
from runfold.ledger.postgres.compatibility import check, server_of
from runfold.ledger.postgres.connections import Pool, fetch, open_pool
from runfold.ledger.postgres.urls import driver_url, parse
from runfold.ledger.settings import Settings

if TYPE_CHECKING:
    from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres

DEFAULT_PROJECT: Final = "default"
_PROJECT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_CREATE: Final = (
    "INSERT INTO ledger.project (project_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING 1"
)
SPEAKER: Final = "SELECT ledger.speaker() AS speaker"
_OF_PROJECT: Final = "FROM ledger.project WHERE project_id = $1"


@dataclass(frozen=True, slots=True)
class Database:
    """A usable database: its pool, its URL, and whether it is the embedded one."""

    pool: Pool
    url: str
    embedded: bool

    async def speaker_in(self, project_id: str, *, create: bool) -> str | None:
        """Name the credential, a login or `token:<id>`; None for the owner's login.

        Raises UnknownProject unless the project exists or may be made, InvalidValue for a name that
        no project can have.
        """
        self._check(project_id)
        if create or (self.embedded and project_id == DEFAULT_PROJECT):
            rows = await fetch(self.pool, f"WITH made AS ({_CREATE}) {SPEAKER}", project_id)
        else:
            rows = await fetch(self.pool, f"{SPEAKER} {_OF_PROJECT}", project_id)
        if not rows:
            raise UnknownProject(project_id)
        speaker: str | None = rows[0]["speaker"]
        return speaker

    async def create_project(self, project_id: str) -> bool:
        """Make a project; return whether it is new. Raises InvalidValue for an impossible name."""
        self._check(project_id)
        return bool(await fetch(self.pool, _CREATE, project_id))

    @staticmethod
    def _check(project_id: str) -> None:
        if not _PROJECT.fullmatch(project_id):
            raise InvalidValue(
                "project",
                project_id,
                "use 1 to 63 lower-case letters, digits, - and _, starting with a letter or digit",
            )

    async def projects(self) -> list[str]:
        """Name every project."""
        return [
            row["project_id"]
            for row in await fetch(self.pool, "SELECT project_id FROM ledger.project ORDER BY 1")
        ]


@asynccontextmanager
async def opened(
    url: str | None, settings: Settings, *, project: str = "", checked: bool = True
) -> AsyncIterator[Database]:
    """Open the database at `url`, at RUNFOLD_URL, or the built-in one, started and migrated.

    An empty URL is refused: a variable of the shell was not set. Raises InvalidValue for the URL,
    DatabaseUnavailable, UnsupportedServer, NotMigrated, NewerSchema, ConfigurationError or
    EmbeddedPostgresError.
    """
    chosen_url = url
    if chosen_url is None and settings.url is not None:
        chosen_url = settings.url.get_secret_value()
    if chosen_url is not None:
        parse(chosen_url)
    with ExitStack() as stack:
        target = chosen_url or stack.enter_context(_embedded(settings)).url()
        pool = await open_pool(
            target,
            settings.pool_size,
            project=project,
            prepared=settings.prepared_statements,
            deadline=settings.statement_seconds,
        )
        try:
            if chosen_url is None:
                await upgrade_if_older(pool, target)
            if checked:
                await check(pool, revisions.known())
            yield Database(pool, driver_url(target), embedded=chosen_url is None)
        finally:
            await _closed(pool)


def _embedded(settings: Settings) -> EmbeddedPostgres:
    if settings.env == "production":
        raise ConfigurationError(
            "RUNFOLD_ENV=production refuses the built-in PostgreSQL: "
            "set RUNFOLD_URL (or --url) to a server of your own"
        )
    # Imported late: it needs psutil, which a client of another server does not.
    from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres, default_home

    return EmbeddedPostgres(settings.home or default_home())


async def upgrade_if_older(pool: Pool, url: str) -> None:
    """Bring the schema to this program's, unless a newer program made it. Raises LedgerError."""
    revision = (await server_of(pool)).revision
    if revision is None or revision in revisions.known():
        installed = await pool.fetchval(
            "SELECT obj_description(to_regnamespace('ledger'), 'pg_namespace')"
        )
        if revision != revisions.head() or installed != schema.digest():
            await schema.upgrade(url)


async def _closed(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), timeout=5)
    except TimeoutError:
        pool.terminate()
