"""Templates, and how values look in them; nothing of a run can become markup or hide text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from jinja2 import DictLoader, Environment, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from runfold.console.shared.plain import (
    clean,
    compact,
    jsonable,
    money,
    number_of,
    pretty,
    relative,
    span,
)
from runfold.ledger.reading.query_words import quoted
from runfold.ledger.validation import CONTROL

_HERE: Final = Path(__file__).parent
EMPTY: Final = "-"
# Read at once, as the templates: an upgrade changes the files below a server that is still the old
# one, and browsers keep what it sends under the old edition for a year.
ASSETS: Final = {each.name: each.read_bytes() for each in sorted((_HERE / "assets").iterdir())}
EDITION: Final = sha256(b"".join(ASSETS.values())).hexdigest()[:12]
"""The part of the address of every asset that changes with their content."""
ICONS: Final = {
    "pending": "◷",
    "running": "▶",
    "waiting_tool": "⚙",
    "waiting_approval": "☝",
    "completed": "✔",
    "failed": "✖",
    "cancelled": "⊘",
    "timeout": "◔",
}
"""A sign for every state, so that colour never says it alone."""


def rendered(template: str, context: Mapping[str, Any]) -> str:
    """Return a template filled with values."""
    return _ENVIRONMENT.get_template(template).render(context)


def _shown(value: object) -> object:
    """Escape control and direction characters in every value that a template prints."""
    if value is None:
        return ""
    return value if isinstance(value, Markup) else clean(value, multiline=True)


def _sent(value: str) -> str | Markup:
    """Return the value of a field as it has to come back: a name may have a joiner without width.

    What no name can have is escaped, as everywhere.
    """
    return value if CONTROL.search(value) else Markup.escape(value)


@pass_context
def _moment(context: Context, value: datetime | None) -> str:
    """Return an instant in the viewer's zone, which it names."""
    if value is None:
        return EMPTY
    zone: tzinfo = context.get("zone") or UTC
    local = value.astimezone(zone)
    name = "Z" if zone is UTC else f" {local.tzname()}"
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03}{name}"


@pass_context
def _fact(context: Context, value: object) -> str:
    """Return a fact of an event on one line: a text without quotes, a time in the viewer's zone."""
    if isinstance(value, datetime):
        return _moment(context, value)
    plain = jsonable(value)
    return plain if isinstance(plain, str) else compact(plain)


def _span(value: timedelta | None) -> str:
    return EMPTY if value is None else span(value)


@pass_context
def _ago(context: Context, value: datetime | None) -> str | Markup:
    """Return how far an instant is from now; the script of the pages keeps it current."""
    if value is None:
        return EMPTY
    return Markup('<time class="ago" datetime="{}" title="{}">{}</time>').format(
        value.isoformat(), _moment(context, value), relative(value)
    )


def _state(value: object) -> Markup:
    name = str(value)
    icon = ICONS.get(name, "·")
    return Markup('<span class="state s-{}"><span aria-hidden="true">{}</span> {}</span>').format(
        name if name in ICONS else "none", icon, name.replace("_", " ")
    )


def _environment() -> Environment:
    templates = {
        each.name: each.read_text(encoding="utf-8") for each in (_HERE / "templates").iterdir()
    }
    environment = Environment(
        loader=DictLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "sent": _sent,
        "moment": _moment,
        "fact": _fact,
        "span": _span,
        "ago": _ago,
        "state": _state,
        "money": money,
        "number_of": number_of,
        "pretty": pretty,
        "compact": compact,
        "quoted": quoted,
    }
    environment.globals["evidence"] = False  # a page of the server, not of a bundle
    environment.globals["edition"] = EDITION
    return environment


_ENVIRONMENT: Final = _environment()
