"""The tables of schema `ledger` for SQLAlchemy; a test holds them to `migrations/`."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Name the type in SQL."""
        return "xid8"


metadata: Final = MetaData(schema="ledger")
_TIME: Final = DateTime(timezone=True)
_MONEY: Final = Numeric(18, 6)

project: Final = Table(
    "project",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("created_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("channel", Text, nullable=False),
)

access_grant: Final = Table(
    "access_grant",
    metadata,
    Column("credential", String(200), primary_key=True),
    Column("project_id", Text, primary_key=True),
    Column("rights", ARRAY(Text), nullable=False),
    Column("actors", ARRAY(Text), nullable=False),
    Column("until", _TIME),
    Column("actor", String(200), nullable=False),
    Column("reason", Text),
)

api_token: Final = Table(
    "api_token",
    metadata,
    Column("token_id", String(40), primary_key=True),
    Column("sha256", LargeBinary, nullable=False),
    Column("name", String(200), nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("expires_at", _TIME, nullable=False),
    Column("revoked_at", _TIME),
    Column("actor", String(200), nullable=False),
    Column("reason", Text),
)

user_account: Final = Table(
    "user_account",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("issuer", String(500)),
    Column("subject", String(255)),
    Column("created_at", _TIME, nullable=False),
    Column("changed_at", _TIME, nullable=False),
    Column("disabled_at", _TIME),
    Column("actor", String(200), nullable=False),
    Column("reason", Text),
)

credential_use: Final = Table(
    "credential_use",
    metadata,
    Column("credential", String(200), primary_key=True),
    Column("login", String(200), primary_key=True),
    Column("last_used_at", _TIME),
    Column("failed_uses", Integer, nullable=False),
    Column("last_failed_at", _TIME),
    Column("try_sha256", LargeBinary),
    Column("try_txid", Xid8),
)

user_password: Final = Table(
    "user_password",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("method", String(60), nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("key_sha256", LargeBinary, nullable=False),
)

payload_read: Final = Table(
    "payload_read",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("read_at", _TIME, primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("credential", String(200), primary_key=True),
    Column("route", String(200), primary_key=True),
)

web_session: Final = Table(
    "web_session",
    metadata,
    Column("session_id", String(40), primary_key=True),
    Column("sha256", LargeBinary, nullable=False),
    Column("credential", String(200), nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("expires_at", _TIME, nullable=False),
    Column("last_used_at", _TIME, nullable=False),
    Column("ended_at", _TIME),
    Column("user_changed_at", _TIME),
)

control_event: Final = Table(
    "control_event",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("recorded_at", _TIME, nullable=False),
    Column("credential", String(200), nullable=False),
    Column("type", String(80), nullable=False),
    Column("subject", Text, nullable=False),
    Column("facts", Text),
    Column("actor", String(200), nullable=False),
    Column("reason", Text),
    Column("hash", LargeBinary, nullable=False),
)

control_head: Final = Table(
    "control_head",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

webhook: Final = Table(
    "webhook",
    metadata,
    Column("project_id", Text, nullable=False),
    Column("webhook_id", String(40), primary_key=True),
    Column("url", String(2000), nullable=False),
    Column("events", ARRAY(Text), nullable=False),
    Column("kinds", ARRAY(Text), nullable=False),
    Column("is_paused", Boolean, nullable=False),
    Column("checkpoint", Text, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("reason", Text),
)

webhook_secret: Final = Table(
    "webhook_secret",
    metadata,
    Column("webhook_id", String(40), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
)

delivery: Final = Table(
    "delivery",
    metadata,
    Column("project_id", Text, nullable=False),
    Column("webhook_id", String(40), primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("type", String(80), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("next_at", _TIME),
    Column("attempts", Integer, nullable=False),
    Column("delivered_at", _TIME),
    Column("follows", Boolean, nullable=False),
)

delivery_attempt: Final = Table(
    "delivery_attempt",
    metadata,
    Column("project_id", Text, nullable=False),
    Column("webhook_id", String(40), primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("attempted_at", _TIME, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("status", Integer),
    Column("error", Text),
)

kind: Final = Table(
    "kind",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("run_id", Uuid, primary_key=True),
)

run_tag: Final = Table(
    "run_tag",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("kind", String(200), primary_key=True),
    Column("run_id", Uuid, primary_key=True),
)

low_water: Final = Table(
    "low_water",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("leases_after", BigInteger, nullable=False),
    Column("older_leases", ARRAY(Uuid), nullable=False),
    Column("priorities", ARRAY(Integer), nullable=False),
    Column("runs", ARRAY(Uuid), nullable=False),
    Column("back_priorities", ARRAY(Integer), nullable=False),
    Column("dues", ARRAY(_TIME), nullable=False),
    Column("ends_from", _TIME, nullable=False),
    Column("cancels_after", BigInteger, nullable=False),
    Column("parked_after", BigInteger, nullable=False),
    Column("older_parked", ARRAY(Uuid), nullable=False),
    Column("open", ARRAY(Xid8), nullable=False),
    Column("seen_position", BigInteger, nullable=False),
    Column("seen_at", _TIME, nullable=False),
    Column("seen_clock", _TIME, nullable=False),
    Column("seen_txid", Xid8, nullable=False),
)

role_event: Final = Table(
    "role_event",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("recorded_at", _TIME, nullable=False),
    Column("type", Text, nullable=False),
    Column("role", String(200), nullable=False),
    Column("member", String(200), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("reason", Text),
)

archive_event: Final = Table(
    "archive_event",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("recorded_at", _TIME, nullable=False),
    Column("type", Text, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("reason", Text),
    Column("month", String(7), nullable=False),
    Column("run_id", Uuid),
    Column("first", Uuid),
    Column("beyond", Uuid),
    Column("runs", BigInteger),
    Column("events", BigInteger),
    Column("payloads", BigInteger),
    Column("generation", Integer),
    Column("last_position", BigInteger),
    Column("last_txid", Xid8),
    Column("size_bytes", BigInteger),
    Column("sha256", LargeBinary),
    Column("file", Text),
)

kind_event: Final = Table(
    "kind_event",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("kind", String(200), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("recorded_at", _TIME, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("type", Text, nullable=False),
    Column("max_running", Integer),
    Column("reason", Text),
)

kind_state: Final = Table(
    "kind_state",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("max_running", Integer),
    Column("updated_at", _TIME, nullable=False),
)

schedule: Final = Table(
    "schedule",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("kind", String(200), nullable=False),
    Column("input", Text),
    Column("cron", String(200), nullable=False),
    Column("timezone", String(200), nullable=False),
    Column("next_at", _TIME, nullable=False),
    Column("last_due", _TIME),
    Column("actor", String(200), nullable=False),
    Column("updated_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("release", _TIME),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("reason", String(2000)),
)

saved_view: Final = Table(
    "saved_view",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("query", String(1000), nullable=False),
    Column("actor", String(200), nullable=False),
)

view_event: Final = Table(
    "view_event",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("recorded_at", _TIME, nullable=False),
    Column("query", String(1000)),
    Column("actor", String(200), nullable=False),
    Column("credential", String(200), nullable=False),
)

snooze: Final = Table(
    "snooze",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("actor", String(200), primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("seen", Integer, nullable=False),
    Column("until", _TIME, nullable=False),
)

command: Final = Table(
    "command",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("content_hash", LargeBinary, nullable=False),
    Column("run_id", Uuid, nullable=False),
    Column("version", Integer, nullable=False),
    Column("salt", LargeBinary),
    Column("hash", LargeBinary),
)

event: Final = Table(
    "event",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column(
        "position",
        BigInteger,
        nullable=False,
        server_default=text("nextval('ledger.event_position')"),
    ),
    Column("txid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    Column("recorded_at", _TIME, nullable=False),
    Column("type", String(80), nullable=False),
    Column("schema_version", Integer, nullable=False, server_default=text("1")),
    Column("actor", String(200), nullable=False),
    Column("state", Text),
    Column("name", String(200)),
    Column("kind", String(200)),
    Column("priority", Integer),
    Column("max_attempts", Integer),
    Column("deadline", _TIME),
    Column("tags", ARRAY(Text)),
    Column("attempt", Integer),
    Column("worker_id", String(200)),
    Column("token", Integer),
    Column("lease_until", _TIME),
    Column("available_at", _TIME),
    Column("late_ms", Integer),
    Column("wait_until", _TIME),
    Column("wait_outcome", Text),
    Column("cost_usd", _MONEY),
    Column("step_count", Integer),
    Column("error_code", String(200)),
    Column("output_sha256", LargeBinary),
    Column("compensates", Integer),
    Column("key", String(200)),
    Column("payload_hash", LargeBinary),
    Column("credential", String(200)),
    Column("role", String(200)),
    Column("other_person", Boolean),
    Column("shown_sha256", String(64)),
    Column("request", Integer),
    Column("meaning", String(80)),
    Column("based_on", Integer),
    Column("approvals", Integer),
    Column("approved", Integer),
    Column("hash", LargeBinary, nullable=False),
)

payload: Final = Table(
    "payload",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("body", JSON, nullable=False),
)

rebuild: Final = Table(
    "rebuild",
    metadata,
    Column("rebuild_id", Integer, Identity(always=True), primary_key=True),
    Column("projection", Text, nullable=False),
    Column("project_id", Text),
    Column("until", _TIME),
    Column("definition", Text, nullable=False),
    Column("moment", Text),
    Column("started_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("finished_at", _TIME),
)

rebuild_range: Final = Table(
    "rebuild_range",
    metadata,
    Column("rebuild_id", Integer, primary_key=True),
    Column("first", Uuid, primary_key=True),
    Column("last", Uuid, nullable=False),
    Column("row_count", BigInteger),
    Column("event_count", BigInteger),
    Column("error", Text),
    Column("done_at", _TIME),
)

_STATE: Final[tuple[Column[Any], ...]] = (
    Column("project_id", Text, primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt_count", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("worker_id", Text),
    Column("token", Integer),
    Column("lease_credential", String(200)),
    Column("moved_position", BigInteger),
    Column("lease_until", _TIME),
    Column("heartbeat_at", _TIME),
    Column("available_at", _TIME),
    Column("started_at", _TIME),
    Column("completed_at", _TIME),
    Column("created_at", _TIME, nullable=False),
    Column("updated_at", _TIME, nullable=False),
    Column("deadline", _TIME),
    Column("wait_until", _TIME),
    Column("wait_outcome", Text),
    Column("approvals", Integer),
    Column("approved", Integer),
    Column("cancel_requested_at", _TIME),
    Column("cost_usd", _MONEY, nullable=False),
    Column("step_count", Integer, nullable=False),
    Column("error_code", Text),
    Column("outcome_version", Integer),
    Column("output_sha256", LargeBinary),
    Column("tags", ARRAY(Text), nullable=False),
    Column("key", Text),
)

_COPIED: Final = [column._copy() for column in _STATE]  # noqa: SLF001  no public copy
run_state: Final = Table("run_state", metadata, *_COPIED)

feed_generation: Final = Table(
    "feed_generation",
    metadata,
    Column("generation", Integer, primary_key=True),
    Column("start", Text, nullable=False),
    Column("end_position", BigInteger),
    Column("system_identifier", BigInteger, nullable=False),
    Column("started_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
)

projection: Final = Table(
    "projection",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("snapshot", Text, nullable=False),
    Column("target", Text),
    Column("position", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False, server_default=text("0")),
    Column("created_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("moved_at", _TIME),
    Column("paused_at", _TIME),
    Column("failed_at", _TIME),
    Column("error", Text),
    Column("error_project_id", Text),
    Column("error_run_id", Uuid),
    Column("error_version", Integer),
    Column("error_position", BigInteger),
)

projection_skip: Final = Table(
    "projection_skip",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("run_id", Uuid, nullable=False),
    Column("event_version", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("skipped_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
)

projection_aside: Final = Table(
    "projection_aside",
    metadata,
    Column("relation", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("project_id", Text, primary_key=True),
    Column("run_id", Uuid, primary_key=True),
    Column("first_position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False, server_default=text("0")),
    Column("event_version", Integer),
    Column("error", Text),
    Column("set_aside_at", _TIME, nullable=False, server_default=text("clock_timestamp()")),
    Column("retry_at", _TIME),
)

run: Final = Table(
    "run",
    MetaData(schema="ledger"),
    *(column._copy() for column in _STATE),  # noqa: SLF001  SQLAlchemy has no public copy
    Column("input", Text),
    Column("output", Text),
    Column("error_detail", Text),
)
"""The view of a run with its content; not in the metadata, because it is not a table."""

at_work: Final = Table(
    "at_work",
    metadata,
    Column("key", BigInteger, primary_key=True),
    Column("name", Text, nullable=False),
    Column("shared", Boolean, nullable=False),
    Column("pid", Integer, nullable=False),
)
