"""The migrations, run by Alembic on the connection of an upgrade."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runfold.ledger.postgres import revisions

if TYPE_CHECKING:  # only an upgrade needs them, and they take a second to import
    from alembic.config import Config
    from sqlalchemy import Connection


def prepared(script: str) -> Callable[[Connection], None]:
    """Return what runs the migrations that a database lacks, then the script.

    It also records the oldest code. What takes a second, the imports, is done here.
    """
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config()
    config.attributes["script"] = script
    newest = ScriptDirectory.from_config(config).get_revision(revisions.head())
    comment = revisions.oldest_code_comment(newest.revision, newest.module.oldest_code)

    def migrate(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revisions.head())
        execute_script(connection, comment)

    return migrate


def only_functions_follow(revision: str) -> bool:
    """Whether every revision after this one leaves the tables alone: its `upgrade` is empty."""
    from alembic.script import ScriptDirectory

    directory = ScriptDirectory.from_config(_config())
    following = directory.iterate_revisions(revisions.head(), revision)
    return all(_is_empty(step.module.upgrade) for step in following)


def _is_empty(function: Any) -> bool:
    """Whether a function has no names in it, and so can do nothing."""
    return not function.__code__.co_names


def execute_script(connection: Connection, script: str) -> None:
    """Execute several statements by the driver's own call; colons and percent signs stay."""
    driver = connection.connection.dbapi_connection
    driver.run_async(lambda asyncpg: asyncpg.execute(script))  # type: ignore[union-attr]


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(revisions.migrations()).replace("%", "%%"))
    return config
