"""Writes the reference page of the command line from its declarations: `make reference`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from runfold.console.cli.kit.exits import MEANINGS
from runfold.console.cli.kit.global_options import PANEL
from runfold.console.cli.main import Program, app

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
INTRODUCTION = """\
# Command line

Generated from the program by `make reference`; `runfold COMMAND --help` says the same. Each
command takes the options of every command before its name or after it.
"""


def page() -> str:
    """Return the page: every command with its words, arguments and options."""
    program = typer.main.get_command(app)
    assert isinstance(program, Program)
    parts = [INTRODUCTION, _shared(program), _exit_codes()]
    panel = None
    for entry in program.entries:
        if entry.panel != panel:
            panel = entry.panel
            parts.append(f"## {panel}\n")
        parts += _command(program.load(entry.name), f"runfold {entry.name}")
    return "\n".join(parts)


def _command(command: Any, path: str) -> Iterator[str]:
    yield f"{'#' * (1 + len(path.split()))} `{path}`\n"
    yield _prose(command.help)
    if subcommands := getattr(command, "commands", None):
        for name, subcommand in subcommands.items():
            yield from _command(subcommand, f"{path} {name}")
        return
    if command.epilog:
        yield f"{command.epilog}\n"
    own = [parameter for parameter in command.params if _is_own(parameter)]
    words = [_word(parameter) for parameter in own if parameter.param_type_name == "argument"]
    yield f"```text\n{' '.join([path, '[OPTIONS]', *words])}\n```\n"
    if own:
        yield "\n".join(_item(parameter) for parameter in own) + "\n"


def _is_own(parameter: Any) -> bool:
    panel = getattr(parameter, "rich_help_panel", None)
    return not getattr(parameter, "hidden", False) and panel != PANEL


def _word(argument: Any) -> str:
    word = re.sub(r"[].[]", "", argument.metavar or argument.name.upper())
    repeated = "..." if argument.nargs == -1 else ""
    return f"{word}{repeated}" if argument.required else f"[{word}{repeated}]"


def _item(parameter: Any) -> str:
    name = _word(parameter) if parameter.param_type_name == "argument" else _option(parameter)
    return wrapped(f"- `{name}`: {parameter.help or ''}", "  ")


def _option(option: Any) -> str:
    names = ", ".join((*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {option.metavar or option.type.name.upper()}"


def _shared(program: Any) -> str:
    shared = [parameter for parameter in program.params if not _is_own(parameter)]
    return f"## {PANEL}\n\n" + "\n".join(_item(parameter) for parameter in shared) + "\n"


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["## Exit codes\n", "| code | meaning |", "|---|---|", *rows, ""])


def _prose(text: str | None) -> str:
    paragraphs = re.split(r"\n\s*\n", (text or "").strip())
    return "\n\n".join(wrapped(paragraph) for paragraph in paragraphs) + "\n"


def wrapped(text: str, indent: str = "") -> str:
    """Return a paragraph in lines of 100 columns; all but the first have the indent."""
    return textwrap.fill(
        " ".join(text.split()), 100, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page())
