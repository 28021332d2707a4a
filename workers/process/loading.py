"""From `module:name` on a command line to handlers."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from runfold.ledger.errors import InvalidValue
from runfold.workers.handlers import Handlers


def load(text: str) -> Handlers:
    """Import the handlers of `module`, or of `name` in it; modules of the current folder are found.

    Raises InvalidValue; what the module itself raises comes out as it is.
    """
    module_name, colon, name = text.partition(":")
    if colon and not name:
        raise InvalidValue("handlers", text, "must look like module or module:name")
    target = _imported(text, module_name)
    for part in name.split(".") if name else ():
        if not hasattr(target, part):
            raise InvalidValue("handlers", text, f"{module_name} has no {part!r}")
        target = getattr(target, part)
    try:
        return Handlers(target)
    except InvalidValue as error:
        if error.value is not target:
            raise
        raise InvalidValue("handlers", text, error.remedy) from None


def _imported(text: str, module_name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InvalidValue(
            "handlers", text, f"there is no module {error.name!r} here or installed"
        ) from None
    except SystemExit as error:
        raise InvalidValue(
            "handlers", text, f"the module ends the program (exit {error.code}) when it is imported"
        ) from error
    except (ValueError, TypeError):
        raise InvalidValue("handlers", text, "must look like module or module:name") from None
