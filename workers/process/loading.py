"""From `module:name` on a command line to handlers."""

from __future__ import annotations

from typing import Any

from runfold.ledger.errors import InvalidValue
from runfold.ledger.modules import import_module
from runfold.workers.handlers import Handlers


def load(text: str) -> Handlers:
    """Import the handlers of `module`, or of `name` in it; modules of the current folder are found.

    Raises InvalidValue, or ModuleBroken for what the module itself raises.
    """
    module_name, colon, name = text.partition(":")
    if colon and not name:
        raise InvalidValue("handlers", text, "must look like module or module:name")
    target: Any = import_module("handlers", module_name)
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
