"""The demo's work: find, parse and measure Python files, and call a real tool on each."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

MAX_LINES: Final = 3_000
MAX_BYTES: Final = 120_000
SKIPPED: Final = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
)
USD_PER_KIB: Final = Decimal("0.00001")
TOOL_SECONDS: Final = 10
Tool = tuple[tuple[str, ...], tuple[str, ...]]
TOOLS: Final[tuple[Tool, ...]] = (
    (("wc", "-l", "-w", "-c"), ("lines", "words", "bytes")),
    (("cksum",), ("crc", "bytes")),
)
"""Tools, the best first: the words of the call and the names of the answers; all are POSIX."""

_BLOCKS: Final = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.AsyncFor, ast.While,
    ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.Match, ast.ExceptHandler, ast.match_case,
)  # fmt: skip


class ToolUnavailable(Exception):
    """The tool is missing or did not answer."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What was found in a file."""

    bytes: int
    lines: int
    functions: int
    classes: int
    nesting: int
    """How many blocks the innermost statement lies in."""

    @property
    def is_large(self) -> bool:
        """Whether a person must look at the file."""
        return self.lines > MAX_LINES or self.bytes > MAX_BYTES

    def shown(self) -> dict[str, Any]:
        """Return the measures as JSON."""
        return asdict(self)


def library() -> Path:
    """Return the folder of the installed standard library."""
    return Path(sysconfig.get_path("stdlib"))


def sources(limit: int) -> list[tuple[Path, int]]:
    """Return the `limit` largest Python files of the library with their sizes, in path order.

    Tests are left out.
    """
    root = library()
    files = [
        (path, path.stat().st_size)
        for path in root.rglob("*.py")
        if _is_wanted(path.relative_to(root))
    ]
    return sorted(sorted(files, key=lambda file: (-file[1], file[0]))[:limit])


def _is_wanted(path: Path) -> bool:
    return SKIPPED.isdisjoint(path.parts)


def measure(path: Path) -> Measures:
    """Parse a file and measure it; raises SyntaxError, ValueError or OSError."""
    text = path.read_bytes()
    tree = ast.parse(text, filename=str(path))
    functions = classes = nesting = 0
    for node, depth in _nodes(tree):
        functions += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        classes += isinstance(node, ast.ClassDef)
        nesting = max(nesting, depth)
    return Measures(len(text), text.count(b"\n"), functions, classes, nesting)


def _nodes(tree: ast.AST) -> Iterator[tuple[ast.AST, int]]:
    # Not by recursion: generated files nest deeper than the interpreter's stack.
    waiting = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        inner = depth + isinstance(node, _BLOCKS)
        waiting.extend((child, inner) for child in ast.iter_child_nodes(node))


def tool() -> Tool:
    """Return the best tool of this machine; raises ToolUnavailable if it has none."""
    for words, names in TOOLS:
        if shutil.which(words[0]):
            return words, names
    raise ToolUnavailable(f"none of {', '.join(words[0] for words, _ in TOOLS)} is installed")


def call_tool(words: Sequence[str], names: Sequence[str], path: Path) -> dict[str, int]:
    """Call the tool on a file, as a subprocess; raises ToolUnavailable."""
    try:
        # The words are constants; the path is an absolute one of the standard library.
        done = subprocess.run(  # noqa: S603  as above
            [*words, str(path)], capture_output=True, check=True, timeout=TOOL_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolUnavailable(f"{words[0]} {path}: {error}") from error
    return {name: int(number) for name, number in zip(names, done.stdout.split(), strict=False)}


def price(size: int) -> Decimal:
    """Return the assumed price of a call on a file of that size, in US dollars."""
    return (USD_PER_KIB * size / 1024).quantize(Decimal("0.000001"))
