"""The objects of schema `ledger`, as this code defines them or the catalogs have them (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class Function:
    """A function by its body, its settings, and its traits: its language, STABLE, STRICT ..."""

    body: str
    settings: frozenset[str]
    traits: frozenset[str]


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege of a role on a table, a function or a schema; schemas are named `schema x`."""

    object: str
    role: str
    privilege: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger, whether it always fires, and whether it runs a function of the schema."""

    table: str
    name: str
    enabled: str
    part: bool
    ours: bool
    definition: str


@dataclass(frozen=True, slots=True)
class Owner:
    """An object's owner, and the owner that it should have: the schema's."""

    kind: str
    name: str
    owner: str
    expected: str


@dataclass(frozen=True, slots=True)
class InstalledGrant:
    """A privilege that somebody but the owner has; whether they may pass it on."""

    grant: Grant
    passed_on: bool
    part: bool
    """Whether it is on a partition, addressed by itself."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of row level security."""

    relation: str
    policy: str
    command: str
    role: str
    rule: str | None
    permissive: str = "PERMISSIVE"
    with_check: str | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """The objects of schema `ledger`, as the catalogs have them."""

    functions: Sequence[tuple[str, str, Function]]
    """The name, the signature and the function."""
    views: Mapping[str, tuple[str, str | None]]
    """The definition and the options by the view's name."""
    triggers: Sequence[Trigger]
    owners: Sequence[Owner]
    grants: Sequence[InstalledGrant]
    secured: frozenset[str]
    """The tables with row level security, without partitions."""
    policies: frozenset[Policy]
    added: Sequence[str]
    """Rules, and row level security that binds the owner: this code has none."""

    def fingerprint(self) -> str:
        """Name what is installed; months that come and go make no difference."""
        parts = [
            *(
                (signature, function.body, sorted(function.settings), sorted(function.traits))
                for _, signature, function in self.functions
            ),
            *self.views.items(),
            *((t.definition, t.enabled) for t in self.triggers if not t.part),
            *((o.kind, o.name, o.owner) for o in self.owners if not _comes_and_goes(o.name)),
            *((g.grant, g.passed_on) for g in self.grants if not g.part),
            *sorted(self.secured),
            *sorted(map(repr, self.policies)),
            *self.added,
        ]
        text = "\n".join(map(repr, parts))
        return "installed sha256:" + sha256(text.encode()).hexdigest()


def _comes_and_goes(name: str) -> bool:
    """Whether a relation is a month, or a table of projections or of a rebuild."""
    return name.startswith(("event_2", "projection.", "rebuild_"))


def setting(text: str) -> str:
    """Return a setting in one form, without blanks and quotes."""
    return re.sub(r"[\s'\"]", "", text)


def trigger_form(definition: str) -> str:
    """Return a trigger's definition in one form, whether the server wrote it or a file has it."""
    text = re.sub(r"::text|[()]", "", definition.removeprefix("CREATE "))
    text = re.sub(
        r"(?<=(?:BEFORE|.AFTER) )(.+?)(?= ON )",
        lambda events: " OR ".join(sorted(events[0].split(" OR "))),
        text,
        count=1,
    )
    if "FOR EACH" not in text:
        text = text.replace("EXECUTE", "FOR EACH STATEMENT EXECUTE", 1)
    return " ".join(text.split())
