"""Publishes results: writes them from the raw figures into the page on performance."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from benchmarks.peers import environments
from benchmarks.peers.aims import ratios
from benchmarks.peers.report import COLUMNS, medians, table

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
    parts = (
        _method(results, raw),
        ["### Ratios", "", *_ratios(results)],
        ["### Every figure", "", table(results)],
        ["### What each keeps, and gives up", "", *_traits(results)],
        ["### Cost by slots", "", *_costs(results)],
        ["### Folding and leases", "", *_alone(results)],
    )
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _method(results: dict[str, Any], raw: Path) -> list[str]:
    size, versions = results["size"], results["versions"].values()
    pins = {f"{package} {version}" for locked in versions for package, version in locked.items()}
    machine = f"{results.get('processor', '')} ({results['cores']} cores), {results['machine']}"
    text = (
        f"Measured on {results['date']} in {results['minutes']} minutes on {machine};"
        f" {results['server']}, Python {results['python']} (the systems: {_pythons(results)})."
        f" Load before: {results['load_before'][0]}. Rounds: {results['rounds']}; medians of them."
        f" Jobs of a drain: as many as take {size['seconds']:g} s, at most {size['jobs']:,}; a"
        f" snapshot is held for {size['held_seconds']:g} s. Raw figures:"
    )
    return [
        *wrap(text, COLUMNS), f"[{raw.name}]({raw}).", "",
        *wrap(f"Versions: {', '.join(sorted(pins))}.", COLUMNS), "",
        f"![Rates and waits of each system]({raw.with_suffix('.svg')})",
    ]  # fmt: skip


def _pythons(results: dict[str, Any]) -> str:
    return str(results.get("cost", {}).get("python", "see the raw figures"))


def _ratios(results: dict[str, Any]) -> Iterator[str]:
    yield "| Runfold's ratio | beside | is | aimed at |"
    yield "|---|---|---|---|"
    rows = list(ratios(medians(results)))
    folding = results.get("folding", {})
    for one in folding.get("rebuild", []):
        name = f"rebuild over {one['connections']}, of GROUP BY"
        aim = "≥ 0.86" if one["connections"] == 1 else "≥ 1.51"
        rows.append((name, "plain SQL", f"{one['ratio']}", aim))
    if "catch_up" in folding:
        ratio = str(folding["catch_up"].get("ratio", "not measured"))
        rows.append(("catch-up", "eventsourcing", ratio, "≥ 23"))
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _traits(results: dict[str, Any]) -> Iterator[str]:
    yield "| | keeps | gives up |"
    yield "|---|---|---|"
    for name, rounds in results["figures"].items():
        if "keeps" in rounds[0]:
            yield f"| {name} | {rounds[0]['keeps']} | {rounds[0]['gives_up']} |"


def _costs(results: dict[str, Any]) -> Iterator[str]:
    cost = results.get("cost", {})
    if "curve" not in cost:
        yield f"Not measured: {cost.get('failed', 'left out')}."
        return
    yield "Microseconds of processor time a run, handlers that do nothing, one worker process:"
    yield ""
    yield "| slots | runs a second | worker | server |"
    yield "|---|---|---|---|"
    for one in cost["curve"]:
        cells = (one["slots"], one["runs_per_second"], one["worker_us"], one["server_us"])
        yield f"| {' | '.join(f'{cell:,}' for cell in cells)} |"


def _alone(results: dict[str, Any]) -> Iterator[str]:
    yield "| measure | figure |"
    yield "|---|---|"
    for part in ("folding", "holding"):
        for name, value in _flat(results.get(part, {}), f"{part}: "):
            yield f"| {name.replace('_', ' ')} | {value} |"


def _flat(figures: Any, before: str) -> list[tuple[str, Any]]:
    if isinstance(figures, dict):
        pairs = [(str(name), value) for name, value in figures.items()]
    elif isinstance(figures, list):
        pairs = [(str(place), value) for place, value in enumerate(figures, 1)]
    else:
        return [(before.rstrip(": "), figures)]
    return [row for name, value in pairs for row in _flat(value, f"{before}{name}: ")]
