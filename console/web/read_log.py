"""The record of reads: who read the content of which run, and by which route."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from fastapi import Request

from runfold.ledger import Ledger, payload_reads

MAX_READS: Final = 10_000
"""How many reads of the last minute are remembered, so that they are not sent again."""
_METHODS: Final = frozenset({"GET", "HEAD"})


class ReadLog:
    """Records reads in the database before they are answered: each once a minute."""

    def __init__(self) -> None:
        self._noted: OrderedDict[tuple[str, str, str, UUID], int] = OrderedDict()

    async def note(self, request: Request, ledger: Ledger) -> None:
        """Record a request whose path names a run; lists that show content call `note_runs`.

        A request that cannot be recorded is not answered.
        """
        named = request.path_params.get("run_id")
        if request.method not in _METHODS or named is None:
            return
        try:
            run_id = UUID(named)
        except ValueError:
            return  # the route refuses it
        await self.note_runs(request, ledger, [run_id])

    async def note_runs(self, request: Request, ledger: Ledger, run_ids: Iterable[UUID]) -> None:
        """Record that the answer to a request shows the content of these runs."""
        route, minute = _route(request), int(time.time() // 60)
        place = (ledger.project_id, ledger.project.speaker or "", route)
        new = [run_id for run_id in run_ids if self._noted.get((*place, run_id)) != minute]
        if not new:
            return
        await payload_reads.note_reads(ledger.project, new, route)
        for run_id in new:
            self._noted[(*place, run_id)] = minute
            self._noted.move_to_end((*place, run_id))
        while len(self._noted) > MAX_READS:
            self._noted.popitem(last=False)


def reads_of(request: Request) -> ReadLog:
    """Return the record of reads of the server that answers a request."""
    log: ReadLog = request.app.state.callers.reads
    return log


def _route(request: Request) -> str:
    """Return the path with its parameters by name, such as `/v1/runs/{run_id}`."""
    names = {
        f"{value}{form}": f"{{{name}}}{form}"
        for name, value in request.path_params.items()
        for form in ("", ".json", ".csv")
    }
    return "/".join(names.get(part, part) for part in request.scope["path"].split("/"))
