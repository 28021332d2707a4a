"""Draws the medians; run in an environment that has matplotlib."""

import json
import sys

import matplotlib as mpl  # type: ignore[import-not-found, unused-ignore]  # of an environment of its own

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "runfold"
from matplotlib import pyplot as plt  # type: ignore[import-not-found, unused-ignore]  # noqa: E402  as above

TITLES = {
    "single_submits_per_second": "single submits a second, 32 callers",
    "lifecycle.bulk_submits_per_second": "bulk submits a second",
    "drain_10_slots_per_second": "drained a second, 10 slots",
    "drain_500_slots_per_second": "drained a second, 500 slots",
    "drain_two_processes_per_second": "drained a second, two processes",
    "pick_up_20_ms.p99": "pick-up, one each 20 ms: p99 in ms (logarithmic)",
    "held_snapshot.ratio": "drained under a held snapshot / free",
}
OURS, OTHERS = "#0b5fa5", "#9aa5b1"

given = json.load(sys.stdin)
figure, places = plt.subplots(4, 2, figsize=(11, 12))
for place, (measure, title) in zip(places.flat, TITLES.items(), strict=False):
    values = given["medians"].get(measure, {})
    names = [name for name in given["names"] if name in values][::-1]
    colours = [OURS if name == "runfold" else OTHERS for name in names]
    bars = place.barh(names, [values[name] for name in names], color=colours)
    place.bar_label(
        bars,
        [f"{values[name]:,.{0 if values[name] >= 100 else 2}f}" for name in names],
        padding=3,
        fontsize=8,
    )
    place.margins(x=0.15)
    if names and title.endswith("(logarithmic)"):
        place.set_xscale("log")
    place.set_title(title, fontsize=10)
last = places.flat[-1]
curve = given["curve"]
for part, colour in (("worker_us", OURS), ("server_us", OTHERS)):
    shown = [one for one in curve if one[part] is not None]
    last.plot(
        [one["slots"] for one in shown], [one[part] for one in shown], "o-", color=colour,
        label=part.removesuffix("_us"),
    )  # fmt: skip
if curve:
    last.set_xscale("log")
    last.set_yscale("log")
    last.legend(fontsize=8)
last.set_title("runfold: µs of processor time a run, by slots", fontsize=10)
figure.tight_layout()
figure.savefig(sys.argv[1], metadata={"Date": None})
