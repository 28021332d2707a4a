"""Publishes results: writes them from the raw figures into the page on performance."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from benchmarks.peers import environments
from benchmarks.peers.report import COLUMNS, table

PAGE: Final = environments.ROOT / "docs" / "explanation" / "performance.md"
BEGIN: Final = "<!-- results: written by `make bench-peers` -->"
END: Final = "<!-- end of results -->"


def publish(results: dict[str, Any], raw: Path, page: Path = PAGE) -> Path:
    """Write the results between the marks of the page, and return the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    folder = Path(os.path.relpath(raw.parent.resolve(), page.parent.resolve()))
    page.write_text(f"{before}{BEGIN}\n\n{section(results, folder / raw.name)}\n{END}{after}")
    return page


def section(results: dict[str, Any], raw: Path) -> str:
    """Return the text about one measurement, of which the raw figures lie there."""
    plot = raw.with_suffix(".svg")
    versions = {
        f"{package} {version}"
        for pins in results["versions"].values()
        for package, version in pins.items()
        if package not in {"uvloop", "asyncpg"}
    }
    lines = [
        f"Measured on {results['date']} in {results['minutes']} minutes: {results['server']},",
        f"Python {results['python']}, {results['cores']} cores,",
        f"rounds: {results['rounds']}, jobs a part: {results['size']['jobs']:,},",
        f"load of the machine before: {results['load_before'][0]}.",
        f"Medians of the rounds: [raw figures]({raw}),",
        f"[plot]({plot}).",
        "",
        *wrap(f"Versions: {', '.join(sorted(versions))}.", COLUMNS),
        "",
        table(results),
        "",
        "Alone:",
        "",
        "| measure | figure |",
        "|---|---|",
        *(
            f"| {name.replace('_', ' ')} | {value} |"
            for part in ("folding", "holding")
            for name, value in _flat(results.get(part, {}), f"{part}: ")
        ),
        "",
    ]
    return "\n".join(lines)


def _flat(figures: Any, before: str) -> list[tuple[str, Any]]:
    if isinstance(figures, dict):
        pairs = [(str(name), value) for name, value in figures.items()]
    elif isinstance(figures, list):
        pairs = [(str(place), value) for place, value in enumerate(figures, 1)]
    else:
        return [(before.rstrip(": "), figures)]
    return [row for name, value in pairs for row in _flat(value, f"{before}{name}: ")]
