"""A program whose commands are imported when they are called, so that its help stays fast."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer.core
import typer.main

from runfold.console.cli.kit.help import HelpCommand, HelpGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """A command by its module, with its line in the program's help."""

    name: str
    module: str
    help: str
    panel: str


class LazyGroup(HelpGroup):
    """The program: it knows each command's line, and imports a command's module to call it."""

    entries: ClassVar[tuple[Entry, ...]] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            entry.name: HelpCommand(entry.name, help=entry.help, rich_help_panel=entry.panel)
            for entry in self.entries
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name, the command itself and the words left for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, None if command is None else self.load(command.name or ""), rest

    def load(self, name: str) -> Any:
        """Import a command's module and return the command that it declares."""
        (entry,) = (entry for entry in self.entries if entry.name == name)
        command = typer.main.get_command(import_module(entry.module).app)
        command.name = name
        if not gc.isenabled():  # so the program's beginning left it
            gc.freeze()  # what is loaded stays: neither a collection nor the end walks it
            gc.enable()
        return command
