"""What is aimed at: ratios of Runfold and its peers, each of figures of one measurement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Medians = Mapping[str, Mapping[str, float]]
LIMITS: Final = frozenset({"plain"})
"""No peers: they only mark limits."""
NATIVE: Final = frozenset({"awa"})
"""Peers whose worker is not written in Python."""


@dataclass(frozen=True, slots=True)
class Aim:
    """One ratio: what it is of, and from where on it is as wanted."""

    name: str
    measure: str
    wanted: float
    peers: Callable[[str], bool]
    is_more: bool = True
    """More is better."""


def _python(name: str) -> bool:
    return name not in LIMITS | NATIVE


def _any(name: str) -> bool:
    return name not in LIMITS


def aims(measures: Mapping[str, Any]) -> Iterator[Aim]:
    """Yield the aims whose measures there are."""
    yield Aim("single submits, of the best", "single_submits_per_second", 4, _any)
    bulk = "lifecycle.bulk_submits_per_second"
    yield Aim("bulk, of PGQueuer", bulk, 0.9, "pgqueuer".__eq__)
    for slots, wanted in ((10, 2), (50, 2), (500, 1.5)):
        measure = f"drain_{slots}_slots_per_second"
        yield Aim(f"drain, {slots} slots, of the best in Python", measure, wanted, _python)
    two, best = "drain_two_processes_per_second", "drain_500_slots_per_second"
    yield Aim("drain, two processes, of the best in Python", two, 1.5, _python)
    yield Aim("drain, 500 slots, of Awa", best, 2, "awa".__eq__)
    for measure in measures:
        if measure.startswith("pick_up_") and measure.endswith((".p50", ".p99")):
            name = measure.replace("pick_up_", "pick-up, one each ").replace("_ms.", " ms, ")
            yield Aim(f"{name}, of the best", measure, 1, _any, is_more=False)


def ratios(medians: Medians) -> Iterator[tuple[str, str, str, str]]:
    """Yield each aim with its ratio, the peer that it is of, and what is wanted."""
    for aim in aims(medians):
        values = medians.get(aim.measure, {})
        peers = {
            name: value for name, value in values.items() if name != "runfold" and aim.peers(name)
        }
        if peers and "runfold" in values:
            best = (max if aim.is_more else min)(peers, key=peers.__getitem__)
            ratio = f"{values['runfold'] / peers[best]:.2f}" if peers[best] else "-"
            yield aim.name, best, ratio, f"{'≥' if aim.is_more else '≤'} {aim.wanted:g}"
        else:
            yield aim.name, "-", "not measured", f"{'≥' if aim.is_more else '≤'} {aim.wanted:g}"
    for name, value in medians.get("held_snapshot.ratio", {}).items():
        if name == "runfold":
            yield "drain under a held snapshot, of free", "itself", f"{value:.2f}", "≥ 0.9"
