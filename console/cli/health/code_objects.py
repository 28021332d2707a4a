"""What this code installs in schema `ledger`, read from its SQL files: for comparing (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from runfold.ledger.postgres import schema

_FUNCTION: Final = re.compile(
    r"^CREATE OR REPLACE FUNCTION ledger\.(\w+)(.*?)\bAS (\$\w*\$)(.*?)\3", re.DOTALL | re.MULTILINE
)
_ANY_FUNCTION: Final = re.compile(r"\bFUNCTION ledger\.(\w+)")
_SETTING: Final = re.compile(r"^SET (\w+) (?:=|TO) (.+?)$", re.MULTILINE)
_VIEW: Final = re.compile(
    r"^CREATE OR REPLACE VIEW ledger\.(\w+)(.*?);\s*$", re.DOTALL | re.MULTILINE
)
_TRIGGER: Final = re.compile(
    r"^ALTER TABLE ledger\.(\w+) ENABLE ALWAYS TRIGGER (\w+);", re.MULTILINE
)
_GRANT: Final = re.compile(
    r"^GRANT ([A-Z, ]+?)\s+ON (FUNCTION )?(.+?)\s+TO (.+?);", re.DOTALL | re.MULTILINE
)
_COMMENT: Final = re.compile(r"--[^\n]*")


@dataclass(frozen=True, slots=True)
class Function:
    """A function by its body, its settings, and whether it runs as its owner."""

    body: str
    settings: frozenset[str]
    definer: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege of a role on a table or function of schema `ledger`."""

    object: str
    role: str
    privilege: str


@cache
def _files() -> tuple[str, ...]:
    return tuple(map(schema.sql, schema.OBJECTS))


@cache
def functions() -> Mapping[str, Function]:
    """Return every function that a file defines in full, by its name."""
    return {
        name: Function(body, _settings(head), "SECURITY DEFINER" in head)
        for text in _files()
        for name, head, _, body in _FUNCTION.findall(text)
    }


@cache
def function_names() -> frozenset[str]:
    """Return the name of every function that a file names, however it defines it."""
    return frozenset(name for text in _files() for name in _ANY_FUNCTION.findall(text))


def _settings(head: str) -> frozenset[str]:
    return frozenset(setting(f"{name}={value}") for name, value in _SETTING.findall(head))


def setting(text: str) -> str:
    """Return a setting in one form, without blanks and quotes."""
    return re.sub(r"[\s'\"]", "", text)


@cache
def views() -> Mapping[str, str]:
    """Return what follows the name of each view in its definition, by the view's name."""
    return {name: rest for text in _files() for name, rest in _VIEW.findall(text)}


@cache
def triggers() -> frozenset[tuple[str, str]]:
    """Return the triggers that must always fire: table and name."""
    return frozenset(pair for text in _files() for pair in _TRIGGER.findall(text))


@cache
def grants() -> frozenset[Grant]:
    """Return the privileges that the roles have."""
    return frozenset(_grants(_COMMENT.sub("", schema.sql("guards/grants"))))


def _grants(text: str) -> Iterator[Grant]:
    for privileges, _, objects, roles in _GRANT.findall(text):
        for name in _words(objects):
            if name.startswith("ledger."):
                for role in _words(roles):
                    for privilege in _words(privileges):
                        yield Grant(name.removeprefix("ledger."), role, privilege)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]
