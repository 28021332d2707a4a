"""The control tables, each a fold of the control history, and the queries that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_LOWEST: Final = str(-(2**63))


@dataclass(frozen=True, slots=True)
class ControlTable:
    """A control table, as its trigger `record_control` records it."""

    name: str
    noun: str
    keys: tuple[str, ...]
    moving: tuple[str, ...] = ()
    """The columns that change without a recorded order."""

    @property
    def start(self) -> list[str]:
        """Return the keys with which reading begins."""
        return [_LOWEST if key in _NUMBERS else "" for key in self.keys]

    @property
    def is_appended(self) -> bool:
        """Whether no row is changed or removed once it is there: such rows are numbered."""
        return "number" in self.keys

    @property
    def pattern(self) -> str:
        """Return the regular expression of a subject; its groups are the keys."""
        groups = {"project_id": "([^:]*)", **dict.fromkeys(_NUMBERS, r"(\d{1,18})")}
        return f"^{self.noun}:{':'.join(groups.get(key, '(.*)') for key in self.keys)}$"

    def row(self) -> str:
        """Return the query of the row that an event of `page` is about."""
        keys = " AND ".join(
            f"entry.{key} = page.keys[{place}]{_cast(key)}"
            for place, key in enumerate(self.keys, 1)
        )
        return f"""(SELECT found.row::text FROM (SELECT {self._facts()} AS row
      FROM ledger.{self.name} AS entry WHERE {keys}) AS found
        WHERE {self._subject()} = page.subject)"""

    def rows(self, place: int) -> str:
        """Return the query of a page of rows from the keys $`place` on, of 1 + $1 rows."""
        keys = ", ".join(f"entry.{key}" for key in self.keys)
        start = ", ".join(
            f"(${place}::text[])[{at}]{_cast(key)}" for at, key in enumerate(self.keys, 1)
        )
        texts = ", ".join(f"entry.{key}::text" for key in self.keys)
        return f"""
  SELECT {place} AS place, found.keys, {self._subject()} AS subject, found.row
  FROM (SELECT {self._facts()} AS row, ARRAY[{texts}] AS keys FROM ledger.{self.name} AS entry
    WHERE ${place}::text[] IS NOT NULL AND ({keys}) >= ({start})
    ORDER BY {keys} LIMIT 1 + $1) AS found
"""

    def _facts(self) -> str:
        moving = ", ".join(f"'{name}'" for name in self.moving)
        return f"to_jsonb(entry) - ARRAY[{moving}]::text[]"

    def _subject(self) -> str:
        return f"'{self.noun}:' || " + " || ':' || ".join(
            f"(found.row ->> '{k}')" for k in self.keys
        )


_NUMBERS: Final = ("number", "generation")
"""The keys that are numbers; all others are texts."""


def _cast(key: str) -> str:
    return "::bigint" if key in _NUMBERS else ""


CONTROL_TABLES: Final = (
    ControlTable("project", "project", ("project_id",), ("channel",)),
    ControlTable("access_grant", "access", ("project_id", "credential")),
    ControlTable("api_token", "token", ("token_id",)),
    ControlTable("user_account", "user", ("name",)),
    ControlTable("kind_event", "kind", ("project_id", "kind", "number")),
    ControlTable("role_event", "role", ("project_id", "number")),
    ControlTable(
        "schedule", "schedule", ("project_id", "name"), ("next_at", "last_due", "updated_at")
    ),
    ControlTable("webhook", "webhook", ("webhook_id",), ("checkpoint",)),
    ControlTable("archive_event", "archive", ("project_id", "number")),
    ControlTable("feed_generation", "generation", ("generation",)),
)
"""The tables that are folds of the control history; a test holds them to the triggers."""
