"""Checks that each decision of a run is about its newest request, by as many others as it asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_APPROVED: Final = frozenset({"approval.signed", "approval.granted"})
_DECIDED: Final = _APPROVED | {"approval.rejected"}


class DecisionCheck:
    """Takes the events of one run in order, and says what is wrong with a decision."""

    def __init__(self) -> None:
        self._request: Mapping[str, Any] | None = None
        self._persons: list[bytes] = []
        self._submitter = self._worker = self._asker = b""

    def problem(self, event: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the next event; None if nothing, or if it is not a decision."""
        match event["type"]:
            case "run.submitted":
                self._submitter = _person(event["actor"])
            case "lease.acquired":
                self._worker = _person(event["worker_id"])
            case "approval.requested":
                self._request, self._persons = event, []
                self._asker = _person(event["actor"])
        if event["type"] not in _DECIDED or self._request is None:
            return None
        asked = self._request["version"]
        if event["request"] != asked:
            return f"it decides request {event['request']}, and the run waits for {asked}"
        if event["shown_sha256"] != self._request["shown_sha256"]:
            return f"it decides something else than request {asked} showed"
        others = {self._asker, self._worker}
        if self._request["other_person"]:
            others.add(self._submitter)
        if _person(event["actor"]) in others:
            return f"{event['actor']} asked, and another person must decide"
        return self._count(event) if event["type"] in _APPROVED else None

    def _count(self, event: Mapping[str, Any]) -> str | None:
        assert self._request is not None
        self._persons.append(_person(event["actor"]))
        needed, signed = self._request["approvals"] or 1, len(self._persons)
        if len(set(self._persons)) < signed:
            return f"{event['actor']} approves a second time"
        if (event["type"] == "approval.granted") != (signed == needed):
            return f"{signed} of {needed} persons have approved"
        if needed > 1 and (event["approvals"], event["approved"]) != (needed, signed):
            return f"it says that {event['approved']} of {event['approvals']} have approved"
        return None


def _person(name: object) -> bytes:
    """Return a name without the case of ASCII letters, which each server finds equal.

    It depends on the server which other names look alike to it, and were refused.
    """
    return str(name).encode(errors="surrogatepass").lower()
