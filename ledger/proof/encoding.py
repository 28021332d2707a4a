"""The bytes that are hashed, the same as in `ledger/sql/values/event_hash.sql` (pure).

docs/reference/encoding.md is the specification. A change of the encoding is a new tag; test
vectors freeze version 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

EVENT_TAG: Final = "runfold/event/v1"
PAYLOAD_TAG: Final = b"runfold/payload/v1\n"
SALT_BYTES: Final = 32
LEAF: Final = b"\x00"  # RFC 6962: a leaf can never be mistaken for a node, which starts with 0x01
# PostgreSQL's own epoch, so that SQL need not convert.
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)

FIELDS: Final[tuple[tuple[str, str], ...]] = (
    ("project_id", "text"),
    ("run_id", "uuid"),
    ("version", "int"),
    ("recorded_at", "time"),
    ("type", "text"),
    ("schema_version", "int"),
    ("actor", "text"),
    ("state", "text"),
    ("name", "text"),
    ("kind", "text"),
    ("priority", "int"),
    ("max_attempts", "int"),
    ("deadline", "time"),
    ("tags", "list"),
    ("attempt", "int"),
    ("worker_id", "text"),
    ("token", "int"),
    ("lease_until", "time"),
    ("available_at", "time"),
    ("late_ms", "int"),
    ("wait_until", "time"),
    ("wait_outcome", "text"),
    ("cost_usd", "money"),
    ("step_count", "int"),
    ("error_code", "text"),
    ("output_sha256", "bytes"),
    ("compensates", "int"),
    ("key", "text"),
    ("payload_hash", "bytes"),
    ("credential", "text"),
    ("role", "text"),
    ("other_person", "flag"),
    ("shown_sha256", "text"),
    ("request", "int"),
    ("meaning", "text"),
    ("based_on", "int"),
    ("approvals", "int"),
    ("approved", "int"),
)
"""The hashed columns of table `event`, in the order of encoding, with how each is written."""


def event_hash(previous: bytes, event: Mapping[str, Any]) -> bytes:
    """Return 32 bytes that commit to an event's facts, its payload's hash and all before it.

    `previous` is the hash of the run's event before, empty for the first.
    """
    return sha256(LEAF + encode(previous, event).encode()).digest()


def encode(previous: bytes, event: Mapping[str, Any]) -> str:
    """Return the text that is hashed: the previous hash, then a line for each fact not null."""
    return lines(EVENT_TAG, FIELDS, previous, event)


def lines(
    tag: str, fields: Sequence[tuple[str, str]], previous: bytes, values: Mapping[str, Any]
) -> str:
    """Return a tag, the previous hash, and a line for each of the fields that is not null."""
    written = [f"{tag}\n", f"previous:{previous.hex()}\n"]
    for name, how in fields:
        value = values.get(name)
        if value is not None:
            written.append(f"{name}:{_written(how, value)}\n")
    return "".join(written)


def _written(how: str, value: Any) -> str:  # noqa: PLR0911  one return for each form
    match how:
        case "text":
            return f"{len(value)}:{value}"
        # The driver's infinities, which PostgreSQL writes as the largest and smallest.
        case "time" if value.tzinfo is None:
            return "7fffffffffffffff" if value == datetime.max else "8000000000000000"  # noqa: DTZ901  compared
        case "time":
            microseconds: int = (value - _EPOCH) // timedelta(microseconds=1)
            return microseconds.to_bytes(8, "big", signed=True).hex()
        case "money":
            return f"{Decimal(value):.6f}"
        case "bytes":
            return bytes(value).hex()
        case "flag":
            return "true" if value else "false"
        case "list":
            return json.dumps(list(value), ensure_ascii=False, separators=(",", ":"))
        case _:
            return str(value)


def commits_to(committed: bytes | None, salt: bytes | None, body: str) -> bool:
    """Whether a payload's hash is that of the stored text under its salt, of exactly 32 bytes.

    A salt of another length could have taken bytes from the text.
    """
    return salt is not None and len(salt) == SALT_BYTES and payload_hash(salt, body) == committed


def payload_hash(salt: bytes, body: str) -> bytes:
    """Return the hash of a payload's stored text under its salt, which hides the text."""
    return sha256(PAYLOAD_TAG + salt + body.encode()).digest()
