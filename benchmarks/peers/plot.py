"""Draws the medians as bars; run in an environment that has matplotlib."""

import json
import sys

import matplotlib as mpl  # type: ignore[import-not-found, unused-ignore]  # of an environment of its own

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "runfold"
from matplotlib import pyplot as plt  # type: ignore[import-not-found, unused-ignore]  # noqa: E402  as above

TITLES = {
    "single_submits_per_second": "single submits a second",
    "lifecycle.bulk_submits_per_second": "bulk submits a second",
    "drain_500_slots_per_second": "drained a second, 500 slots",
    "drain_two_processes_per_second": "drained a second, two processes",
    "pick_up_20_ms.p99": "pick-up, one each 20 ms: p99 in ms",
    "held_snapshot.ratio": "drained under a held snapshot / free",
}

given = json.load(sys.stdin)
figure, places = plt.subplots(3, 2, figsize=(11, 9))
for place, (measure, title) in zip(places.flat, TITLES.items(), strict=True):
    values = given["medians"].get(measure, {})
    names = [name for name in given["names"] if name in values]
    colours = ["#0b5fa5" if name == "runfold" else "#9aa5b1" for name in names]
    place.barh(names[::-1], [values[name] for name in names][::-1], color=colours[::-1])
    place.set_title(title, fontsize=10)
figure.tight_layout()
figure.savefig(sys.argv[1], metadata={"Date": None})
