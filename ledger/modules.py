"""A module of the user's program, imported by its name."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import PurePath
from types import ModuleType

from runfold.ledger.errors import ConfigurationError, InvalidValue


class ModuleBroken(ConfigurationError):
    """A module of the user's raised while it was imported; the cause has its traceback."""

    traceback: str
    """As a command has shown it."""

    def __init__(self, module: str, error: Exception) -> None:
        super().__init__(f"{module} cannot be imported: {type(error).__name__}: {error}")


def import_module(option: str, name: str) -> ModuleType:
    """Import a module of this name, installed or in the current folder.

    `option`: what named it, for the error. Raises InvalidValue where there is none or it ends the
    program, ModuleBroken from whatever else it raises.
    """
    if name.endswith(".py"):
        path = PurePath(name).with_suffix("")
        module = path.name if path.is_absolute() else ".".join(path.parts).lstrip(".")
        raise InvalidValue(option, name, f"is a file: name the module, as in {module!r}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise InvalidValue(option, name, "is not a module's name, such as 'app' or 'shop.orders'")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except SystemExit as error:
        remedy = f"the module ends the program (exit {error.code}) when it is imported"
        raise InvalidValue(option, name, remedy) from error
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            remedy = f"there is no module {error.name!r} in {os.getcwd()} or installed"
            raise InvalidValue(option, name, remedy) from None
        raise ModuleBroken(name, error) from error
