"""The results: a table in Markdown, the raw figures as JSON, and plots where they can be drawn."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from benchmarks.peers import environments

COLUMNS: Final = 98
PLOT: Final = Path(__file__).with_name("plot.py")
Results = dict[str, Any]


def flat(figures: Results, before: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of a round, by its path."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        elif isinstance(value, int | float):
            yield f"{before}{name}", float(value)


def medians(results: Results) -> dict[str, dict[str, float]]:
    """Return for each measure the median over the rounds, by system."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, rounds in results["figures"].items():
        for figures in rounds:
            for measure, value in flat(figures):
                found.setdefault(measure, {}).setdefault(name, []).append(value)
    for name, figures in results.get("crash", {}).items():
        for measure, value in flat(figures, "crash."):
            found.setdefault(measure, {}).setdefault(name, []).append(value)
    return {
        measure: {name: statistics.median(values) for name, values in by_name.items()}
        for measure, by_name in found.items()
    }


def reasons(results: Results) -> Iterator[str]:
    """Yield what could not be measured, and why."""
    for name, rounds in results["figures"].items():
        for figures in rounds:
            for part, value in figures.items():
                if part == "skipped":
                    yield f"{name}: {value}"
                elif isinstance(value, dict) and "failed" in value:
                    yield f"{name}, {part}: {value['failed']}"
    for name, value in results.get("crash", {}).items():
        if "failed" in value:
            yield f"{name}, crash: {value['failed']}"


def table(results: Results) -> str:
    """Return the medians as a table, with what could not be measured below it."""
    names = list(results["figures"])
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for measure, values in medians(results).items():
        cells = (_shown(values[name]) if name in values else "-" for name in names)
        lines.append(f"| {measure.replace('_', ' ')} | {' | '.join(cells)} |")
    lines.append("")
    for reason in dict.fromkeys(reasons(results)):
        lines.extend(wrap(f"- {reason}", COLUMNS, subsequent_indent="  "))
    return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.4g}"


def written(results: Results, folder: Path) -> list[Path]:
    """Write the raw figures and the plots; return where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / f"{results['date']}.json"
    raw.write_text(json.dumps(results, indent=1) + "\n")
    plot = folder / f"{results['date']}.svg"
    if (problem := environments.install("plot")) is not None:
        print(f"no plot: {problem}")
        return [raw]
    curve = results.get("cost", {}).get("curve", [])
    given = json.dumps(
        {"medians": medians(results), "names": list(results["figures"]), "curve": curve}
    )
    drawn = subprocess.run(  # noqa: S603  our own script
        [environments.python_of("plot"), PLOT, plot], input=given, text=True, check=False
    )
    return [raw, plot] if drawn.returncode == 0 else [raw]
