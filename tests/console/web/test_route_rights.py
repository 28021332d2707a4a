"""Every route against every right, in the own project, another and none: from the router itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import httpx
import pytest

from runfold.console.shared.bulk import bulk_of
from runfold.console.web import app, running_bulks
from runfold.console.web.options import Options
from runfold.ledger import Ledger, State, access, api_tokens
from runfold.projections.declared.installing import install
from runfold.projections.models.counts import RUN_COUNTS
from runfold.workers.duties.webhooks.deliverer import Terms
from runfold.workers.duties.webhooks.posting import Poster
from runfold.workers.duties.webhooks.sender import WebhookSender
from tests.support.routes import RULES, name_of, routes
from tests.support.runs import waiting
from tests.support.web import sign_in

REFUSED_ALONE: Final = {"GET /v1/events", "GET /p/{}/live", "POST /v1/mcp"}
"""Only refusals are asked for: two answer for as long as the caller listens, one loads an SDK."""
ENDINGS: Final = (".json", ".csv")
ALL: Final = frozenset(access.RIGHTS)
DENIED: Final = {401, 403}


class Asked:
    """The application, asked by callers of any rights."""

    def __init__(self, ledger: Ledger, stack: AsyncExitStack, words: dict[str, str]) -> None:
        self._ledger, self._stack, self._words = ledger, stack, words
        options = Options(requests_a_second=10_000, strangers_a_second=10_000)
        self._served = app(ledger, options)
        self._callers: dict[tuple[frozenset[str], bool], httpx.AsyncClient] = {}

    async def begin(self) -> None:
        """Start the application, with a bulk that goes on until it is stopped."""
        await self._stack.enter_async_context(self._served.router.lifespan_context(self._served))
        chosen = await bulk_of(self._ledger, "cancel", "kind:none")
        bulk = self._served.state.bulks.begin(self._words["key"], self._ledger, chosen, "why")
        self._stack.callback(bulk.task.cancel)

    async def caller(self, rights: frozenset[str], *, everywhere: bool) -> httpx.AsyncClient:
        """Return a client with a token, and a session, of these rights."""
        known = self._callers.get((rights, everywhere))
        if known is None:
            credential, secret = await api_tokens.make_token(self._ledger.project, "test")
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
        headers = {"Runfold-Project": project}
        if path.endswith(("/decision", "/snooze")):
            headers["If-Match"] = '"1"'
        told = await client.request(method, filled, headers=headers, **body)
        text = re.sub('data-now="[^"]*"', "", told.text)
        return told.status_code, text.replace(project, "P")


@pytest.fixture
async def asked(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Asked]:
    """The application over a project with one of everything, and another project."""
    monkeypatch.setattr(running_bulks, "batch", lambda *_, **__: asyncio.Event().wait())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Ledger.open(database, "zz-theirs", create_project=True))
        webhook, _ = await ledger.webhooks.add("https://x.example")
        lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
        await ledger.schedule("nightly", "parse", cron="0 3 * * *")
        await WebhookSender(ledger, Terms(Poster(seconds=0.01))).once()
        [delivery, *_] = await ledger.webhooks.deliveries(webhook)
        await install(ledger.pool, RUN_COUNTS)
        words = {
            "run_id": str(lease.run_id), "version": "3", "kind": "parse", "name": "nightly",
            "webhook_id": webhook, "delivery_id": delivery.delivery_id,
            "key": str(lease.run_id), "code": "x",
        }  # fmt: skip
        asking = Asked(ledger, stack, words)
        await asking.begin()
        yield asking


def test_every_method_of_every_route_has_a_rule() -> None:
    assert {name_of(*route) for route in routes()} == set(RULES)


@pytest.mark.slow
async def test_every_route_asks_for_its_rights_in_the_project_it_is_asked_about(
    asked: Asked, subtests: pytest.Subtests
) -> None:
    """Whoever lacks one is refused with every other right; whoever has them alone is not.

    With every right in one project, another answers as one that does not exist, and what is about
    all projects says that the right is lacking there.
    """
    for route in sorted(routes()):
        rule = RULES[name_of(*route)]
        if rule == "open":
            continue
        everywhere, needed = rule.startswith("*"), frozenset(re.findall(r"\w+", rule))
        enough = [needed] if "&" in rule else [frozenset({right}) for right in needed]
        lacking = [ALL - {right} for right in needed] if "&" in rule else [ALL - needed]
        with subtests.test(" ".join(route)):
            there = await asked.answer(route, ALL, "zz-theirs", everywhere=False)
            names_project = not (everywhere and route[1].startswith("/v1/"))
            assert there[0] == (404 if names_project else 403)
            for rights in lacking:
                refused = await asked.answer(route, rights, "test", everywhere=everywhere)
                assert refused[0] == 403, (rights, refused)
            if route[1].endswith(ENDINGS):
                continue  # these are given what the page shows
            assert there == await asked.answer(route, ALL, "zz-nowhere", everywhere=False)
            if everywhere:
                here = await asked.answer(route, ALL, "test", everywhere=False)
                assert here[0] == 403
                assert "in all projects" in here[1]
            if name_of(*route) not in REFUSED_ALONE:
                for rights in enough:
                    given = await asked.answer(route, rights, "test", everywhere=everywhere)
                    assert given[0] not in DENIED, (rights, given)
                    assert "does not exist, or is not yours" not in given[1]


async def test_a_page_offers_the_forms_that_its_viewer_may_send_and_no_others(
    asked: Asked, subtests: pytest.Subtests
) -> None:
    offered = set()
    for method, path in sorted(routes()):
        name = name_of(method, path)
        rule = RULES[name]
        is_page = method == "GET" and path.startswith("/p/") and name not in REFUSED_ALONE
        if not is_page or path.endswith(ENDINGS):
            continue
        forms = forms_of(
            path, (await asked.answer((method, path), ALL, "test", everywhere=True))[1]
        )
        offered |= forms
        needed = frozenset(re.findall(r"\w+", rule))
        viewers = [needed] if "&" in rule else [frozenset({right}) for right in sorted(needed)]
        wider = {viewer | {right} for viewer in viewers for right in access.RIGHTS if forms}
        of_all = any(RULES[form].startswith("*") for form in forms)
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
        "POST /p/{}/approvals/{}/{}", "POST /p/{}/approvals/{}/{}/snooze", "POST /p/{}/archive",
        "POST /p/{}/kinds", "POST /p/{}/projections", "POST /p/{}/runs/{}/cancel",
        "POST /p/{}/bulk/{}/abort",
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
    return {name for name in found if RULES[name] != "open"}


def may_send(form: str, rights: frozenset[str], *, everywhere: bool) -> bool:
    """Whether a caller of these rights may send a form to its route."""
    rule = RULES[form]
    needed = frozenset(re.findall(r"\w+", rule))
    enough = needed <= rights if "&" in rule else bool(needed & rights)
    return enough and (everywhere or not rule.startswith("*"))
