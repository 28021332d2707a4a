"""Which requests show the content of a run, and their record: who read it, by which route."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final
from uuid import UUID

from fastapi import Request

from runfold.ledger import Ledger, access

MAX_READS: Final = 10_000
"""How many reads of the last minute are remembered, so that they are not sent again."""
_METHODS: Final = frozenset({"GET", "HEAD"})


class ReadLog:
    """Records reads in the database before they are answered: each once a minute."""

    def __init__(self) -> None:
        self._noted: OrderedDict[tuple[str, str, str, str], int] = OrderedDict()

    async def note(self, request: Request, ledger: Ledger) -> None:
        """Record a request that names a run. Lists name none: they show no content.

        A request that cannot be recorded is not answered.
        """
        named = request.path_params.get("run_id")
        if request.method not in _METHODS or named is None:
            return
        try:
            run_id = UUID(named)
        except ValueError:
            return  # the route refuses it
        route = _route(request)
        reader = ledger.project.speaker or ""
        key, minute = (ledger.project_id, reader, str(run_id), route), int(time.time() // 60)
        if self._noted.get(key) == minute:
            return
        await access.note_read(ledger.project, run_id, route)
        self._noted[key] = minute
        self._noted.move_to_end(key)
        if len(self._noted) > MAX_READS:
            self._noted.popitem(last=False)


def _route(request: Request) -> str:
    """Return the path with its parameters by name, such as `/v1/runs/{run_id}`."""
    names = {str(value): f"{{{name}}}" for name, value in request.path_params.items()}
    return "/".join(names.get(part, part) for part in request.scope["path"].split("/"))
