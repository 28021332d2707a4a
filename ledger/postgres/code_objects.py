"""What this code installs in schema `ledger`, read from its SQL files: for comparing (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import Final

from runfold.ledger.postgres import schema
from runfold.ledger.postgres.objects import Function, Grant, setting, trigger_form

_FUNCTION: Final = re.compile(
    r"^CREATE OR REPLACE FUNCTION ledger\.(\w+)(.*?)\bAS (\$\w*\$)(.*?)\3", re.DOTALL | re.MULTILINE
)
_ANY_FUNCTION: Final = re.compile(r"\bFUNCTION ledger\.(\w+)")
_SETTING: Final = re.compile(r"^SET (\w+) (?:=|TO) (.+?)$", re.MULTILINE)
_VIEW: Final = re.compile(
    r"^CREATE OR REPLACE VIEW ledger\.(\w+)(.*?);\s*$", re.DOTALL | re.MULTILINE
)
_TRIGGER: Final = re.compile(
    r"^CREATE OR REPLACE (TRIGGER (\w+) .+? ON ledger\.(\w+).+?);$", re.DOTALL | re.MULTILINE
)
_GRANT: Final = re.compile(
    r"^GRANT ([A-Z, ]+?)(?: \(([a-z0-9_,\s]+)\))?\s+ON (FUNCTION |SCHEMA )?(.+?)\s+TO (.+?);",
    re.DOTALL | re.MULTILINE,
)
_TRAIT: Final = re.compile(
    r"\b(IMMUTABLE|STABLE|STRICT|LEAKPROOF|PARALLEL SAFE|SECURITY DEFINER)\b|\bLANGUAGE (\w+)"
)
_COMMENT: Final = re.compile(r"--[^\n]*")


@cache
def _files() -> tuple[str, ...]:
    return tuple(map(schema.sql, schema.OBJECTS))


@cache
def functions() -> Mapping[str, Function]:
    """Return every function that a file defines in full, by its name."""
    return {
        name: Function(body, _settings(head), _traits(head))
        for text in _files()
        for name, head, _, body in _FUNCTION.findall(text)
    }


@cache
def function_names() -> frozenset[str]:
    """Return the name of every function that a file names, however it defines it."""
    return frozenset(name for text in _files() for name in _ANY_FUNCTION.findall(text))


def _settings(head: str) -> frozenset[str]:
    return frozenset(setting(f"{name}={value}") for name, value in _SETTING.findall(head))


def _traits(head: str) -> frozenset[str]:
    return frozenset(
        trait or language for trait, language in _TRAIT.findall(_COMMENT.sub("", head))
    )


@cache
def views() -> Mapping[str, str]:
    """Return what follows the name of each view in its definition, by the view's name."""
    return {name: rest for text in _files() for name, rest in _VIEW.findall(text)}


@cache
def triggers() -> Mapping[tuple[str, str], str]:
    """Return the triggers, which must always fire, by table and name: their definitions."""
    return {
        (table, name): trigger_form(definition)
        for text in _files()
        for definition, name, table in _TRIGGER.findall(text)
    }


@cache
def grants() -> frozenset[Grant]:
    """Return the privileges that the roles have."""
    return frozenset(_grants(_COMMENT.sub("", schema.sql("guards/grants"))))


def _grants(text: str) -> Iterator[Grant]:
    for privileges, columns, kind, objects, roles in _GRANT.findall(text):
        prefix = "schema " if kind == "SCHEMA " else ""
        suffixes = [f".{column}" for column in _words(columns)] if columns else [""]
        for name, suffix, role, privilege in product(
            _words(objects), suffixes, _words(roles), _words(privileges)
        ):
            yield Grant(prefix + name.removeprefix("ledger.") + suffix, role, privilege)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]
