"""The migrations, run by Alembic on the connection of an upgrade."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runfold.ledger.postgres import revisions

if TYPE_CHECKING:  # only an upgrade needs them, and they take a second to import
    from alembic.config import Config
    from sqlalchemy import Connection


def migrate(connection: Connection, script: str) -> None:
    """Run the migrations that the database lacks, then the script, and record the oldest code."""
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config()
    config.attributes["connection"] = connection
    config.attributes["script"] = script
    command.upgrade(config, revisions.head())
    newest = ScriptDirectory.from_config(config).get_revision(revisions.head())
    comment = revisions.oldest_code_comment(newest.revision, newest.module.oldest_code)
    execute_script(connection, comment)


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
