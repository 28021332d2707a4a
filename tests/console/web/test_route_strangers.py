"""Every route, asked by nobody, from a foreign page, and about what belongs to another project."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest

from runfold.console.shared.bulk import bulk_of
from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.ledger import Ledger, access, api_tokens
from runfold.workers.duties.webhooks.deliverer import Terms
from runfold.workers.duties.webhooks.posting import Poster
from runfold.workers.duties.webhooks.sender import WebhookSender
from tests.support.routes import RULES, name_of, routes
from tests.support.runs import claimed
from tests.support.web import calling, sign_in

FOREIGN: Final = {"Origin": "https://evil.example"}
LEASE: Final = {"token": 2, "worker_id": "w:1"}
WHY: Final = {"reason": "why"}
BODIES: Final[dict[str, dict[str, Any]]] = {
    "POST /v1/runs/{}/cancel": {}, "POST /v1/runs/{}/rerun": {}, "POST /v1/runs/{}/answer": {},
    "POST /v1/runs/{}/signals": {"name": "go"}, "POST /v1/runs/{}/notes": {"text": "x"},
    **{f"POST /v1/runs/{{}}/{verb}": LEASE for verb in ("complete", "retry", "release")},
    "POST /v1/runs/{}/fail": {**LEASE, "error_code": "E"},
    "POST /v1/runs/{}/steps": {**LEASE, "name": "s"},
    "POST /v1/runs/{}/ask-tool": {**LEASE, "name": "t"}, "POST /v1/runs/{}/answer-tool": LEASE,
    "POST /v1/runs/{}/ask-approval": {**LEASE, "prompt": "?"},
    "POST /v1/runs/{}/snooze": {"until": f"{datetime.now(UTC) + timedelta(hours=1):%FT%TZ}"},
    "POST /v1/runs/{}/decision": {"decision": "approve"},
    "POST /v1/kinds/{}/pause": WHY, "POST /v1/kinds/{}/resume": WHY,
    "POST /v1/kinds/{}/limit": {**WHY, "max_running": 1},
    "PUT /v1/schedules/{}": {"kind": "parse", "cron": "0 4 * * *"},
    **{f"POST /v1/schedules/{{}}/{verb}": WHY for verb in ("pause", "resume", "run")},
    "POST /v1/webhooks/{}/pause": {}, "POST /v1/webhooks/{}/resume": {},
    "POST /v1/webhooks/deliveries/{}/resend": {},
    "POST /p/{}/approvals/{}/{}": {"decision": "approve"},
    "POST /p/{}/approvals/{}/{}/snooze": {}, "POST /p/{}/bulk/{}/abort": {},
    "POST /p/{}/runs/{}/cancel": {},
    "POST /p/{}/webhooks/{}": {"change": "resend", "delivery": "{delivery_id}"},
    "POST /p/{}/kinds": {"kind": "{kind}", "change": "resume", **WHY},
    "POST /p/{}/schedules": {"name": "{name}", "change": "run", **WHY},
}  # fmt: skip
"""What is asked of a route about one thing."""
NONE_OF_IT: Final = {
    "GET /v1/kinds/{}/history", "GET /v1/webhooks/deliveries/{}/attempts", "PUT /v1/schedules/{}",
}  # fmt: skip
"""Answered with an empty list, or with what is made."""
QUERIES: Final = {"GET /v1/runs/{}/diff": "?start=1", "GET /v1/runs/{}/state": "?at=1"}
NOBODYS: Final = "01890000-0000-7000-8000-000000000000"
NOWHERE: Final = {
    "run_id": NOBODYS, "version": "3", "kind": "kind-of-nobody", "name": "of-nobody",
    "webhook_id": "wh_000000000000", "delivery_id": f"wh_000000000000_{NOBODYS}_1_00000000",
    "key": "bulk-of-nobody-1",
}  # fmt: skip
"""The names of what no project has."""


def filled(path: str, words: dict[str, str]) -> str:
    """Return a path about these things of the project `test`."""
    return path.format_map({"project": "test", "code": "x", **words})


async def test_nobody_and_no_foreign_page_is_given_more_than_what_is_open(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    async with calling(app(ledger, Options(strangers_a_second=10_000))) as stranger:
        for method, path in sorted(routes()):
            name, target = name_of(method, path), filled(path, NOWHERE)
            is_page = path.startswith("/p/") and not path.endswith((".json", ".csv", "/live"))
            with subtests.test(name):
                if RULES[name] != "open":
                    refused = await stranger.request(method, target)
                    assert refused.status_code == (303 if is_page else 401)
                    assert refused.headers.get("location", "/sign-in?").startswith("/sign-in?")
                if method not in {"GET", "HEAD"}:
                    refused = await stranger.request(method, target, headers=FOREIGN)
                    assert (refused.status_code, refused.json()["code"]) == (403, "foreign-origin")


async def test_what_belongs_to_another_project_is_as_what_does_not_exist(
    ledger: Ledger, database: str, subtests: pytest.Subtests
) -> None:
    """Whoever may do everything in one project neither moves nor senses what another one has."""
    credential, secret = await api_tokens.make_token(ledger.project, "test")
    await ledger.grant_access(credential, access.RIGHTS, actors=["*"])
    await ledger.submit("parse")
    served = app(ledger, Options(requests_a_second=10_000, strangers_a_second=10_000))
    async with (
        Ledger.open(database, "zz-theirs", create_project=True) as theirs,
        calling(served, secret) as client,
    ):
        await sign_in(client, secret)
        words, before = await one_of_everything(theirs), await all_of(theirs)
        served.state.bulks.begin(words["key"], theirs, await bulk_of(theirs, "cancel", "k"), "why")
        for method, path in sorted(routes()):
            name = name_of(method, path)
            is_of_one = not NOWHERE.keys().isdisjoint(re.findall("{([^}]*)}", path))
            if path.startswith("/assets") or not (is_of_one or name in BODIES):
                continue
            with subtests.test(name):
                found = await asked(client, method, path, words)
                assert found == await asked(client, method, path, NOWHERE)
                assert method == "GET" or name in BODIES or method == "DELETE"
                assert found[0] == (200 if name in NONE_OF_IT else 404), found
        assert await all_of(theirs) == before


async def one_of_everything(theirs: Ledger) -> dict[str, str]:
    """Make a run that waits for an approval, and more; return their names in paths."""
    webhook, _ = await theirs.webhooks.add("https://x.example")
    lease = await claimed(theirs)
    waits = await theirs.ask_approval(lease, "Pay?")
    await theirs.schedule("of-theirs", "parse", cron="0 3 * * *")
    await theirs.pause_kind("kind-of-theirs", ahead=True)
    await WebhookSender(theirs, Terms(Poster(seconds=0.01))).once()
    [delivery] = (await theirs.webhooks.deliveries(webhook))[:1]
    return {
        "run_id": str(lease.run_id), "version": str(waits.version), "kind": "kind-of-theirs",
        "name": "of-theirs", "webhook_id": webhook, "delivery_id": delivery.delivery_id,
        "key": "bulk-of-theirs-1",
    }  # fmt: skip


async def all_of(theirs: Ledger) -> tuple[Any, ...]:
    """Return what any order about them would change."""
    return (
        [await theirs.history(run.run_id) for run in await theirs.runs()],
        await theirs.schedules(), await theirs.kinds(), await theirs.webhooks.every(),
        [order.type for order in await theirs.control_history()],
    )  # fmt: skip


async def asked(
    client: httpx.AsyncClient, method: str, path: str, words: dict[str, str]
) -> tuple[int, str]:
    """Return the status and the text of an answer, without the words that were asked with."""
    body: dict[str, Any] = {}
    if method in {"POST", "PUT"}:
        said = BODIES[name_of(method, path)].items()
        body["data" if path.startswith("/p/") else "json"] = {
            field: value.format_map(words) if isinstance(value, str) else value
            for field, value in said
        }
    named = path.endswith(("/decision", "/snooze"))
    headers = {"If-Match": f'"{words["version"]}"'} if named else {}
    target = filled(path, words) + QUERIES.get(name_of(method, path), "")
    answer = await client.request(method, target, headers=headers, **body)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+", "T", answer.text)
    for word in sorted(words.values(), key=len, reverse=True):
        text = text.replace(word, "W")
    return answer.status_code, text
