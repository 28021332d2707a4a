"""Every route of the application, and which right it asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from runfold.console.web import app

TABLE: Final = """
GET    /v1/approvals                                      read
POST   /v1/bulk                                           submit & read
POST   /v1/bulk/preview                                   read
POST   /v1/claims                                         work
GET    /v1/events                                         read
GET    /v1/health                                         open
HEAD   /v1/health                                         open
POST   /v1/heartbeats                                     work
GET    /v1/integrity/head                                 audit
POST   /v1/integrity/verify                               audit
GET    /v1/kinds                                          read
GET    /v1/kinds/{}/history                               read
POST   /v1/kinds/{}/limit                                 admin
POST   /v1/kinds/{}/pause                                 admin
POST   /v1/kinds/{}/resume                                admin
POST   /v1/mcp                                            read | submit
GET    /v1/metrics                                        *read
GET    /v1/openapi.json                                   open
HEAD   /v1/openapi.json                                   open
GET    /v1/problems                                       open
GET    /v1/problems/{}                                    open
GET    /v1/projections                                    read
GET    /v1/ready                                          open
HEAD   /v1/ready                                          open
GET    /v1/runs                                           read
POST   /v1/runs                                           submit
POST   /v1/runs/batch                                     submit
POST   /v1/runs/lines                                     submit
GET    /v1/runs/{}                                        read
POST   /v1/runs/{}/answer                                 submit
POST   /v1/runs/{}/answer-tool                            work
POST   /v1/runs/{}/ask-approval                           work
POST   /v1/runs/{}/ask-tool                               work
POST   /v1/runs/{}/cancel                                 submit
POST   /v1/runs/{}/complete                               work
POST   /v1/runs/{}/decision                               decide
GET    /v1/runs/{}/diff                                   read
POST   /v1/runs/{}/fail                                   work
GET    /v1/runs/{}/head                                   read
GET    /v1/runs/{}/history                                read
POST   /v1/runs/{}/notes                                  submit
GET    /v1/runs/{}/proof                                  audit
POST   /v1/runs/{}/release                                work
POST   /v1/runs/{}/rerun                                  submit & read
POST   /v1/runs/{}/retry                                  work
POST   /v1/runs/{}/signals                                submit
POST   /v1/runs/{}/snooze                                 decide
GET    /v1/runs/{}/state                                  read
POST   /v1/runs/{}/steps                                  work
GET    /v1/runs/{}/verify                                 read
GET    /v1/schedules                                      read
DELETE /v1/schedules/{}                                   schedule
PUT    /v1/schedules/{}                                   schedule
POST   /v1/schedules/{}/pause                             schedule
POST   /v1/schedules/{}/resume                            schedule
POST   /v1/schedules/{}/run                               schedule
GET    /v1/webhooks                                       audit | admin
POST   /v1/webhooks                                       admin
GET    /v1/webhooks/deliveries/{}/attempts                audit | admin
POST   /v1/webhooks/deliveries/{}/resend                  admin
DELETE /v1/webhooks/{}                                    admin
GET    /v1/webhooks/{}/deliveries                         audit | admin
POST   /v1/webhooks/{}/pause                              admin
POST   /v1/webhooks/{}/resume                             admin
GET    /p/{} .json                                        read
GET    /p/{}/approvals .json .csv                         read
GET    /p/{}/approvals/{}/{} .json                        read
POST   /p/{}/approvals/{}/{}                              decide
POST   /p/{}/approvals/{}/{}/snooze                        decide
GET    /p/{}/archive .json .csv                           *read | audit
POST   /p/{}/archive                                      *admin
GET    /p/{}/audit .json .csv                             audit
GET    /p/{}/audit/all .json .csv                         *audit
GET    /p/{}/bulk .json                                   submit & read
POST   /p/{}/bulk                                         submit & read
GET    /p/{}/bulk/{} .json                                read
POST   /p/{}/bulk/{}/abort                                submit
GET    /p/{}/cost .json .csv                              read
GET    /p/{}/integrity .json                              read
GET    /p/{}/kinds .json .csv                             read
POST   /p/{}/kinds                                        admin
GET    /p/{}/live                                         read
GET    /p/{}/projections .json .csv                       read
POST   /p/{}/projections                                  *admin
GET    /p/{}/reads .json .csv                             audit
GET    /p/{}/runs .json .csv                              read
GET    /p/{}/runs/{} .json                                read
POST   /p/{}/runs/{}/cancel                               submit
GET    /p/{}/runs/{}/chain.json                           read
GET    /p/{}/runs/{}/events/{} .json                      read
GET    /p/{}/runs/{}/raw .json                            read
GET    /p/{}/runs/{}/state .json                          read
GET    /p/{}/runs/{}/tree .json                           read
POST   /p/{}/schedules                                    schedule
POST   /p/{}/views                                        read
GET    /p/{}/webhooks .json .csv                          audit | admin
POST   /p/{}/webhooks                                     admin
GET    /p/{}/webhooks/{} .json .csv                       audit | admin
POST   /p/{}/webhooks/{}                                  admin
GET    /p/{}/whatif .json                                 read
GET    /p/{}/workers .json .csv                           read
GET    /                                                  open
GET    /assets/{}                                         open
GET    /sign-in                                           open
POST   /sign-in                                           open
GET    /sign-in/callback                                  open
GET    /sign-in/provider                                  open
POST   /sign-out                                          open
POST   /view                                              open
"""
"""Every method of every route, the endings of its other forms, and which right it asks for.

All of several with &, one of them with |, those with * in all projects. What is open asks for none:
it tells of no project.
"""


def _rules() -> Iterator[tuple[str, str]]:
    for line in TABLE.strip().splitlines():
        method, path, *rest = line.split()
        endings = [word for word in rest if word.startswith(".")]
        for ending in ("", *endings):
            yield f"{method} {path}{ending}", " ".join(rest[len(endings) :])


RULES: Final = dict(_rules())


def routes() -> Iterator[tuple[str, str]]:
    """Yield the method and the path of every route that the application has."""
    pending: list[tuple[str, Any]] = [("", app(None))]
    while pending:
        prefix, part = pending.pop()
        for route in part.routes:
            if hasattr(route, "original_router"):
                pending.append((prefix + route.include_context.prefix, route.original_router))
            else:
                yield from ((method, prefix + route.path) for method in route.methods)


def name_of(method: str, path: str) -> str:
    """Return the name of a route in RULES."""
    return f"{method} {re.sub('{[^}]*}', '{}', path)}"
