"""`python3 -m tests.support.printed_sets` prints sets as a handler's call records them."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, RootModel

from runfold.workers.journal.json_values import as_json


@dataclass(frozen=True)
class Group:
    """A dataclass with a set."""

    members: frozenset[str]


class Model(BaseModel):
    """A model with a set, and a list of dataclasses with one."""

    names: set[str]
    groups: list[Group]


SETS = {
    "plain": {10, 2, 1, "bob", "ann", ("x", 1)},
    "nested": {frozenset("abc"), frozenset("de")},
    "model": Model(names=set("pqr"), groups=[Group(frozenset("yz"))]),
    "root": RootModel[set[str]](set("iou")),
}

if __name__ == "__main__":
    print(as_json("show", SETS))
