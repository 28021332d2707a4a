"""Every route against every right, in the own project, another and none: from the router itself."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import httpx
import pytest

from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.ledger import Ledger, State, access
from runfold.projections.declared.installing import install
from runfold.projections.models.counts import RUN_COUNTS
from tests.support.runs import waiting
from tests.support.web import sign_in

# What a route asks for: all of the sets, and of each one right. A route that is in no line fails.
RULES: Final[dict[str, str]] = {
    "GET /v1/*": "read",
    "POST /v1/runs": "submit", "POST /v1/runs/batch": "submit", "POST /v1/runs/lines": "submit",
    "POST /v1/runs/{}/cancel": "submit", "POST /v1/runs/{}/rerun": "submit & read",
    "POST /v1/runs/{}/signals": "submit", "POST /v1/runs/{}/answer": "submit",
    "POST /v1/runs/{}/notes": "submit",
    "POST /v1/bulk/preview": "read", "POST /v1/bulk": "submit & read",
    "POST /v1/claims": "work", "POST /v1/heartbeats": "work",
    **{
        f"POST /v1/runs/{{}}/{verb}": "work"
        for verb in (
            "complete", "fail", "retry", "release", "steps", "ask-tool", "answer-tool",
            "ask-approval",
        )
    },
    "POST /v1/runs/{}/snooze": "decide", "POST /v1/runs/{}/decision": "decide",
    "POST /v1/kinds/{}/pause": "admin", "POST /v1/kinds/{}/resume": "admin",
    "POST /v1/kinds/{}/limit": "admin",
    "PUT /v1/schedules/{}": "schedule", "DELETE /v1/schedules/{}": "schedule",
    "POST /v1/schedules/{}/pause": "schedule", "POST /v1/schedules/{}/resume": "schedule",
    "POST /v1/schedules/{}/run": "schedule",
    "GET /v1/webhooks": "audit | admin", "GET /v1/webhooks/{}/deliveries": "audit | admin",
    "GET /v1/webhooks/deliveries/{}/attempts": "audit | admin",
    "POST /v1/webhooks": "admin", "POST /v1/webhooks/{}/pause": "admin",
    "POST /v1/webhooks/{}/resume": "admin", "DELETE /v1/webhooks/{}": "admin",
    "POST /v1/webhooks/deliveries/{}/resend": "admin",
    "POST /v1/integrity/verify": "audit", "GET /v1/integrity/head": "audit",
    "GET /v1/runs/{}/proof": "audit", "GET /v1/metrics": "*read",
    "GET /p/{}*": "read",
    "GET /p/{}/audit": "audit", "GET /p/{}/reads": "audit", "GET /p/{}/audit/all": "*audit",
    "GET /p/{}/archive": "*read | audit", "POST /p/{}/archive": "*admin",
    "GET /p/{}/webhooks": "audit | admin", "GET /p/{}/webhooks/{}": "audit | admin",
    "POST /p/{}/webhooks": "admin", "POST /p/{}/webhooks/{}": "admin",
    "GET /p/{}/bulk": "read & submit", "POST /p/{}/bulk": "read & submit",
    "POST /p/{}/bulk/{}/abort": "submit", "POST /p/{}/views": "read",
    "POST /p/{}/runs/{}/cancel": "submit",
    "POST /p/{}/approvals/{}/{}": "decide", "POST /p/{}/approvals/{}/{}/later": "decide",
    "POST /p/{}/kinds": "admin", "POST /p/{}/schedules": "schedule",
    "POST /p/{}/projections": "*admin",
}  # fmt: skip
# They ask for no right: they tell of no project, or look at the caller by themselves.
OPEN: Final = {
    "GET /", "GET /assets/{}", "GET /sign-in", "POST /sign-in", "POST /sign-out", "POST /view",
    "GET /sign-in/provider", "GET /sign-in/callback", "GET /v1/health", "GET /v1/ready",
    "GET /v1/problems", "GET /v1/problems/{}", "GET /v1/openapi.json", "POST /v1/mcp",
}  # fmt: skip
ENDLESS: Final = {"GET /v1/events", "GET /p/{}/live"}
"""Answered for as long as the caller listens: only refusals are asked for."""


ALL: Final = frozenset(access.RIGHTS)
DENIED: Final = {401, 403}


def routes() -> Iterator[tuple[str, str]]:
    """Yield the method and the path of every route that the application has."""
    pending: list[tuple[str, Any]] = [("", app(None))]
    while pending:
        prefix, part = pending.pop()
        for route in part.routes:
            if hasattr(route, "original_router"):
                pending.append((prefix + route.include_context.prefix, route.original_router))
            else:
                yield from ((method, prefix + route.path) for method in route.methods - {"HEAD"})


def name_of(method: str, path: str) -> str:
    """Return the name of a route in RULES."""
    return f"{method} {re.sub('{[^}]*}', '{}', path).removesuffix('.json').removesuffix('.csv')}"


def rule_of(name: str) -> str | None:
    """Return what RULES ask of a route; None for one that is open; fail if neither names it."""
    if name in OPEN:
        return None
    general = "GET /v1/*" if name.startswith("GET /v1/") else "GET /p/{}*"
    if name not in RULES and not name.startswith(general.removesuffix("*")):
        pytest.fail(f"no rule says which right {name} asks for")
    return RULES.get(name) or RULES[general]


class Asked:
    """The application, asked by callers of any rights."""

    def __init__(self, ledger: Ledger, stack: AsyncExitStack, words: dict[str, str]) -> None:
        self._ledger, self._stack, self._words = ledger, stack, words
        options = Options(requests_a_second=10_000, strangers_a_second=10_000)
        self._served = app(ledger, options)
        self._callers: dict[tuple[frozenset[str], bool], httpx.AsyncClient] = {}

    async def begin(self) -> None:
        """Start the application."""
        await self._stack.enter_async_context(self._served.router.lifespan_context(self._served))

    async def caller(self, rights: frozenset[str], *, everywhere: bool) -> httpx.AsyncClient:
        """Return a client with a token, and a session, of these rights."""
        known = self._callers.get((rights, everywhere))
        if known is None:
            credential, secret = await access.make_token(self._ledger.project, "test")
            await self._ledger.grant_access(
                credential, sorted(rights), actors=["*"], everywhere=everywhere
            )
            transport = httpx.ASGITransport(self._served, raise_app_exceptions=False)
            known = httpx.AsyncClient(
                transport=transport,
                base_url="http://localhost",
                headers={"Authorization": f"Bearer {secret}"},
            )
            await self._stack.enter_async_context(known)
            await sign_in(known, secret)
            self._callers[rights, everywhere] = known
        return known

    async def answer(
        self, route: tuple[str, str], rights: frozenset[str], project: str, *, everywhere: bool
    ) -> tuple[int, str]:
        """Ask a route of a project; return the status and the text of the answer."""
        method, path = route
        filled = path.format_map({**self._words, "project": project})
        client = await self.caller(rights, everywhere=everywhere)
        body: dict[str, Any] = {} if method == "GET" else {"json": {}}
        if path.startswith("/p/") and body:
            body = {"data": {"unknown": "x"}}
        headers = {"Runfold-Project": project, "If-Match": '"1"'}
        told = await client.request(method, filled, headers=headers, **body)
        text = re.sub('data-now="[^"]*"', "", told.text)
        return told.status_code, text.replace(project, "P")


@pytest.fixture
async def asked(ledger: Ledger, database: str) -> AsyncIterator[Asked]:
    """The application over a project with one of everything, and another project."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Ledger.open(database, "zz-theirs", create_project=True))
        lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
        await ledger.schedule("nightly", "parse", cron="0 3 * * *")
        webhook, _ = await ledger.webhooks.add("https://example.com")
        await install(ledger.pool, RUN_COUNTS)
        words = {
            "run_id": str(lease.run_id), "version": "3", "kind": "parse", "name": "nightly",
            "webhook_id": webhook, "delivery_id": f"{webhook}_{lease.run_id}_1",
            "key": str(lease.run_id), "code": "x",
        }  # fmt: skip
        asking = Asked(ledger, stack, words)
        await asking.begin()
        yield asking


async def test_every_route_asks_for_its_rights_in_the_project_it_is_asked_about(
    asked: Asked, subtests: pytest.Subtests
) -> None:
    """Whoever lacks one is refused with every other right; whoever has them alone is not.

    With every right in one project, another answers as one that does not exist, and what is about
    all projects says that the right is lacking there.
    """
    tried = 0
    for route in sorted(set(routes())):
        rule = rule_of(name_of(*route))
        if rule is None or route[1].endswith((".json", ".csv")):
            continue  # these are the same functions
        tried += 1
        everywhere, needed = rule.startswith("*"), frozenset(re.findall(r"\w+", rule))
        enough = [needed] if "&" in rule else [frozenset({right}) for right in needed]
        lacking = [ALL - {right} for right in needed] if "&" in rule else [ALL - needed]
        with subtests.test(" ".join(route)):
            there = await asked.answer(route, ALL, "zz-theirs", everywhere=False)
            nowhere = await asked.answer(route, ALL, "zz-nowhere", everywhere=False)
            assert there == nowhere
            names_project = not (everywhere and route[1].startswith("/v1/"))
            assert there[0] == (404 if names_project else 403)
            for rights in lacking:
                refused = await asked.answer(route, rights, "test", everywhere=everywhere)
                assert refused[0] == 403, (rights, refused)
            if everywhere:
                here = await asked.answer(route, ALL, "test", everywhere=False)
                assert here[0] == 403
                assert "in all projects" in here[1]
            if name_of(*route) not in ENDLESS:
                for rights in enough:
                    given = await asked.answer(route, rights, "test", everywhere=everywhere)
                    assert given[0] not in DENIED, (rights, given)
                    assert "does not exist, or is not yours" not in given[1]
    assert tried > 90


async def test_a_page_offers_the_forms_that_its_viewer_may_send_and_no_others(
    asked: Asked, subtests: pytest.Subtests
) -> None:
    offered = set()
    for method, path in sorted(set(routes())):
        name = name_of(method, path)
        rule = rule_of(name)
        is_page = method == "GET" and path.startswith("/p/") and name not in ENDLESS
        if rule is None or not is_page or path.endswith((".json", ".csv")):
            continue
        forms = forms_of(
            path, (await asked.answer((method, path), ALL, "test", everywhere=True))[1]
        )
        offered |= forms
        needed = frozenset(re.findall(r"\w+", rule))
        viewers = [needed] if "&" in rule else [frozenset({right}) for right in sorted(needed)]
        wider = {viewer | {right} for viewer in viewers for right in access.RIGHTS if forms}
        of_all = any(str(rule_of(form)).startswith("*") for form in forms)
        for everywhere in (True,) if rule.startswith("*") else (False, True)[: 1 + of_all]:
            for rights in sorted(wider, key=sorted):
                where = "everywhere" if everywhere else "here"
                with subtests.test(f"{path} for {', '.join(sorted(rights))} {where}"):
                    shown = await asked.answer(
                        (method, path), rights, "test", everywhere=everywhere
                    )
                    allowed = {
                        form for form in forms if may_send(form, rights, everywhere=everywhere)
                    }
                    assert (shown[0], forms_of(path, shown[1])) == (200, allowed)
    assert offered == {
        "POST /p/{}/approvals/{}/{}", "POST /p/{}/approvals/{}/{}/later", "POST /p/{}/archive",
        "POST /p/{}/kinds", "POST /p/{}/projections", "POST /p/{}/runs/{}/cancel",
        "POST /p/{}/schedules", "POST /p/{}/webhooks", "POST /p/{}/webhooks/{}",
    }  # fmt: skip


def forms_of(path: str, page: str) -> set[str]:
    """Return the names of the routes to which a page's forms are sent."""
    tags = re.findall(r'<form[^>]*method="post"[^>]*>', page)
    actions = [re.search(r'action="([^"]*)"', tag) for tag in tags]
    posts = [known for method, known in routes() if method == "POST"]
    found = set()
    for action in actions:
        target = path if action is None else action[1]
        [name] = {
            name_of("POST", known)
            for known in posts
            if re.fullmatch(re.sub("{[^}]*}", "[^/]+", known), target)
        }
        found.add(name)
    return {name for name in found if rule_of(name) is not None}


def may_send(form: str, rights: frozenset[str], *, everywhere: bool) -> bool:
    """Whether a caller of these rights may send a form to its route."""
    rule = rule_of(form) or ""
    needed = frozenset(re.findall(r"\w+", rule))
    enough = needed <= rights if "&" in rule else bool(needed & rights)
    return enough and (everywhere or not rule.startswith("*"))
