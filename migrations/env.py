"""Runs the migrations on the connection that `ledger.schema.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from runfold.ledger.postgres.migrating import execute_script
from runfold.ledger.postgres.schema import SCHEMA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, version_table_schema=SCHEMA, transaction_per_migration=False
)
with context.begin_transaction():
    context.run_migrations()
execute_script(connection, context.config.attributes["script"])
