"""Help pages in plain text: usage, options and commands in two columns, at any width."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import typer.core

_WIDEST: Final = 100
_NARROWEST: Final = 30
_FIRST_COLUMN: Final = 28
"""The widest a name may be to have its description on the same line."""

_TWO_COLUMNS: Final = 60
"""Below this width a description goes under its name."""

Row = tuple[str, str]


class HelpCommand(typer.core.TyperCommand):
    """A command whose help is plain text."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        formatter.write(page(self, ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the program's name in the usage line."""
        return _usage_pieces(self.get_params(ctx))


class HelpGroup(typer.core.TyperGroup):
    """A group of commands whose help is plain text."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        formatter.write(page(self, ctx))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  the signature is Typer's
        """Return the commands' names in the order in which they were declared."""
        return list(self.commands)


def page(command: Any, context: Any) -> str:
    """Return the help page of a command or group."""
    width = max(min(shutil.get_terminal_size().columns, _WIDEST), _NARROWEST)
    parts = [_hanging(command.get_usage(context), width)]
    parts += [textwrap.fill(paragraph, width) for paragraph in _paragraphs(command.help)]
    for title, rows in _sections(command, context):
        parts.append(f"{_bold(title + ':')}\n{_two_columns(rows, width)}")
    if command.epilog:
        parts.append(
            "\n".join(
                _bold(line) if line.endswith(":") else _hanging(line, width)
                for line in command.epilog.splitlines()
            )
        )
    return "\n\n".join(part for part in parts if part) + "\n"


def _paragraphs(text: str | None) -> Iterator[str]:
    """Yield the paragraphs of a text, each in one line."""
    for paragraph in (text or "").split("\n\n"):
        if line := " ".join(paragraph.split()):
            yield line


def _usage_pieces(parameters: Iterable[Any]) -> list[str]:
    return ["[OPTIONS]", *(_metavar(item) for item in parameters if _is_argument(item))]


def _sections(command: Any, context: Any) -> Iterable[tuple[str, list[Row]]]:
    parameters = [item for item in command.get_params(context) if not item.hidden]
    arguments = [(_metavar(item), item.help or "") for item in parameters if _is_argument(item)]
    if arguments:
        yield "Arguments", arguments
    if isinstance(command, HelpGroup):
        commands = [command.commands[name] for name in command.list_commands(context)]
        for panel in dict.fromkeys(_panel(item, "Commands") for item in commands):
            yield (
                panel,
                [
                    (item.name or "", next(_paragraphs(item.help), ""))
                    for item in commands
                    if _panel(item, "Commands") == panel
                ],
            )
    options = [item for item in parameters if not _is_argument(item)]
    for panel in sorted({_panel(item, "Options") for item in options}):
        yield panel, [_option_row(item) for item in options if _panel(item, "Options") == panel]


def _panel(described: Any, otherwise: str) -> str:
    return getattr(described, "rich_help_panel", None) or otherwise


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _metavar(parameter: Any) -> str:
    return parameter.metavar or str(parameter.name).upper()


def _option_row(option: Any) -> Row:
    names = ", ".join(sorted(option.opts, key=len))
    if option.secondary_opts:
        names += " / " + ", ".join(option.secondary_opts)
    if not option.is_flag:
        names += f" {_metavar(option)}"
    return names, (option.help or "") + _default(option)


def _default(option: Any) -> str:
    if option.required:
        return " [required]"
    default = option.default
    if option.is_flag or default is None or callable(default) or default == []:
        return ""
    return f" [default: {default}]"


def _two_columns(rows: Sequence[Row], width: int) -> str:
    fitting = [len(name) for name, _ in rows if len(name) <= _FIRST_COLUMN]
    column = max(fitting, default=0) + 4
    lines = []
    for name, text in rows:
        if width < _TWO_COLUMNS or len(name) > _FIRST_COLUMN:
            lines += [f"  {name}", *_filled(text, width, " " * min(column, 6))]
            continue
        first, *rest = textwrap.wrap(text, width - column) or [""]
        lines.append(f"  {name:<{column - 2}}{first}".rstrip())
        lines += [" " * column + line for line in rest]
    return "\n".join(lines)


def _filled(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


def _hanging(line: str, width: int) -> str:
    """Wrap a line; what follows its first line is indented by two columns more."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=indent, replace_whitespace=False))


def _bold(title: str) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return title
    return f"\x1b[1m{title}\x1b[0m"
