"""Lists of runs as JSON, without content: a read of content is recorded for each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from runfold.console.shared.plain import jsonable
from runfold.ledger.run import Run

CONTENT: Final = frozenset({"input", "output", "error_detail"})


def without_content(value: object) -> Any:
    """Return a value as `jsonable` does, but each run in it without its content."""
    match value:
        case Run():
            return {name: each for name, each in jsonable(value).items() if name not in CONTENT}
        case Mapping():
            return {str(key): without_content(inner) for key, inner in value.items()}
        case list() | tuple():
            return [without_content(inner) for inner in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {
                field.name: without_content(getattr(value, field.name)) for field in fields(value)
            }
        case _:
            return jsonable(value)
