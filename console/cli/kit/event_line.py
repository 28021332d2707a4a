"""One event on one line: version, hash, time, type, actor and the facts that matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rich.text import Text

from runfold.console.cli.kit.output import COLOURS
from runfold.console.shared.plain import clean, compact, moment, money, number_of
from runfold.ledger.events import Event

_TROUBLE: Final = frozenset(
    {
        "lease.expired",
        "run.retried",
        "write.refused",
        "step.failed",
        "tool.failed",
        "approval.expired",
        "approval.lapsed",
    }
)
_DIM: Final = frozenset({"lease.heartbeat"})

WORDS_LIMIT: Final = 2_000
"""Characters shown of a prompt, a reason or a note, which a reader wants in full."""

_FACTS: Final[tuple[tuple[str, Callable[[Any], str]], ...]] = (
    ("kind", lambda value: f"kind {clean(value)}"),
    ("name", clean),
    ("attempt", lambda value: f"attempt {value}"),
    ("worker_id", lambda value: f"by {clean(value)}"),
    ("token", lambda value: f"token {value}"),
    ("lease_until", lambda value: f"until {moment(value)[11:]}"),
    ("late_ms", lambda value: f"{value} ms late"),
    ("compensates", lambda value: f"compensates #{value}"),
    ("available_at", lambda value: f"claimable from {moment(value)[11:]}"),
    ("approvals", clean),
    ("wait_until", lambda value: f"undecided ends {moment(value)}"),
    ("wait_outcome", lambda value: f"as {clean(value)}"),
    ("deadline", lambda value: f"deadline {moment(value)}"),
    ("priority", lambda value: f"priority {value}" if value else ""),
    ("tags", lambda value: "tags " + ",".join(map(clean, value)) if value else ""),
    ("key", lambda value: f"key {clean(value)}"),
    ("error_code", clean),
    ("error_detail", compact),
    ("cost_usd", money),
    ("step_count", lambda value: f"{'+' if value > 0 else ''}{number_of(value, 'step')}"),
    ("prompt", lambda value: compact(value, WORDS_LIMIT)),
    ("reason", lambda value: compact(value, WORDS_LIMIT)),
    ("text", lambda value: compact(value, WORDS_LIMIT)),
    ("value", compact),
    ("parent", lambda value: f"for {clean(value)}"),
    ("erased", lambda value: "payload erased" if value else ""),
)


def facts(event: Event) -> str:
    """Return the facts of an event that are worth a place on its line."""
    values = {name: getattr(event, name, None) for name in (*type(event).model_fields, "facts")}
    values.update(values.pop("facts", None) or {})  # an event of a type unknown to this code
    if (event.key or "").startswith(str(event.run_id)):
        del values["key"]  # a worker's own key of a step
    if values.get("worker_id") == event.actor:
        del values["worker_id"]
    since = values.get("available_at")
    if since is not None and event.recorded_at is not None and since <= event.recorded_at:
        del values["available_at"]  # claimable at once, as usual
    if values.get("approvals") is not None:
        values["approvals"] = f"{values['approved']} of {values['approvals']} approved"
    parts = [f"→ {event.state}"] if event.state is not None else []
    parts += [write(values[name]) for name, write in _FACTS if values.get(name) is not None]
    return "  ".join(part for part in parts if part)


def head(event: Event) -> Text:
    """Return the beginning of an event's line, coloured by the event's meaning."""
    when = moment(event.recorded_at) if event.recorded_at is not None else "-"
    text = Text(f"#{event.version:<4} ", style="bold")
    text.append(f"{event.hash.hex()[:8]} ", style="dim")
    text.append(f"{when}  ", style="not bold")
    text.append(f"{clean(event.type):<18} ", style=f"not bold {_colour(event)}")
    text.append(f"{clean(event.actor):<12} ", style="not bold blue")
    return text


def _colour(event: Event) -> str:
    if event.type in _TROUBLE:
        return "red"
    if event.type in _DIM:
        return "dim"
    return COLOURS.get(event.state or "", "")
