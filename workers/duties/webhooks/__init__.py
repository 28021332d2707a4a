"""The duty that delivers events to webhooks; see docs/decisions/0069."""

from __future__ import annotations

from importlib.util import find_spec


def is_installed() -> bool:
    """Whether the extra `webhooks` is installed, without which nothing is sent."""
    return all(find_spec(name) is not None for name in ("httpcore", "standardwebhooks"))
