"""The web: an HTTP API and pages over one ledger's database, as an ASGI application.

It needs the extra `web`, whose packages only `app` imports.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from runfold.ledger.errors import ConfigurationError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from runfold.console.web.options import Options
    from runfold.ledger import Ledger


def app(ledger: Ledger | None = None, options: Options | None = None) -> FastAPI:
    """Return the application of an open ledger; without one, it opens a ledger of its own.

    Without `options`, callers need an API token. Raises ConfigurationError without the extra.
    """
    require()
    from runfold.console.web.application import make  # noqa: PLC0415  it needs the extra

    return make(ledger, options)


def require() -> None:
    """Raise ConfigurationError if the extra is not installed."""
    if find_spec("fastapi") is None:
        raise ConfigurationError(
            "the HTTP API and the pages are served with FastAPI: install runfold[web]"
        )
