"""The handlers of the user's module; an error in the module is shown with its traceback."""

from __future__ import annotations

from runfold.console.cli.kit.user_traceback import broken_module_shown
from runfold.workers.handlers import Handlers
from runfold.workers.process.loading import load


def user_handlers(handlers: str, *, as_json: bool) -> Handlers:
    """Import `MODULE[:NAME]` and return its handlers; raises InvalidValue or ModuleBroken."""
    with broken_module_shown(as_json=as_json):
        return load(handlers)
