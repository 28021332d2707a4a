"""Runs the migrations on the connection that `ledger.schema.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from runfold.ledger.postgres.schema import SCHEMA, install

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, version_table_schema=SCHEMA, transaction_per_migration=False
)
with context.begin_transaction():
    context.run_migrations()
install(connection)
