"""Secrets that come by the HTTP API and the pages: neither stored nor shown nor logged."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from structlog.testing import capture_logs

from runfold.console.web import app
from runfold.ledger import Ledger, api_tokens, payload_reads, users
from runfold.ledger.redaction import scrubbed
from runfold.projections.telemetry import metrics
from tests.support.web import calling, sign_in, token
from tests.workers.test_secrets import _found_in_tables, _server_log

CANARY = f"canary{secrets.token_hex(8)}"
TEXT = f"see https://ann:{CANARY}@host/ and password={CANARY}"
CONTENT = {"password": CANARY, "text": TEXT}
HTML = {"Accept": "text/html"}
RIGHTS = ("submit", "work", "read", "decide", "schedule", "admin", "audit")


async def _sent(client: Any, decider: str) -> list[Any]:
    """Send the canary wherever content or a text is taken; return the answers."""
    told: list[Any] = []

    async def post(
        path: str, body: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> Any:
        answer = await client.post(f"/v1{path}", json=body, headers=headers)
        assert answer.status_code == status, (path, answer.text)
        told.append((answer.text, dict(answer.headers)))
        return answer.json()

    run = await post("/runs", {"kind": "a", "input": CONTENT}, 201)
    batch = [{"kind": "b", "input": CONTENT}, {"kind": "c", "input": TEXT}]
    await post("/runs/batch", {"runs": batch}, 201)
    path = f"/runs/{run['run_id']}"
    await post(f"{path}/notes", {"text": TEXT}, 201)
    await post(f"{path}/signals", {"name": "go", "value": CONTENT})
    claims = await post("/claims", {"worker_id": "test:w", "limit": 3})
    held: dict[str, dict[str, Any]] = {
        one["kind"]: {
            "token": one["token"],
            "worker_id": "test:w",
            "path": f"/runs/{one['run_id']}",
        }
        for one in claims["leases"]
    }

    def under(kind: str, **members: Any) -> dict[str, Any]:
        return {"token": held[kind]["token"], "worker_id": "test:w", **members}

    await post(f"{path}/complete", under("a", output=CONTENT))
    await post(
        held["b"]["path"] + "/fail", under("b", error_code="E-APP-001", error_detail=CONTENT)
    )
    shown = {"prompt": TEXT, "show": CONTENT}
    asked = await post(held["c"]["path"] + "/ask-approval", under("c", **shown))
    await post(
        held["c"]["path"] + "/decision",
        {"decision": "approve", "reason": TEXT, "output": CONTENT, "actor": "bob"},
        headers={"If-Match": f'"{asked["version"]}"', "Authorization": f"Bearer {decider}"},
    )
    await post(held["c"]["path"] + "/cancel", {"reason": TEXT})
    await post("/kinds/a/pause", {"reason": TEXT})
    answer = await client.put(
        "/v1/schedules/nightly", json={"kind": "a", "input": CONTENT, "cron": "0 3 * * *"}
    )
    told.append(answer.text)
    await post("/schedules/nightly/pause", {"reason": TEXT})
    return told


async def _refused(client: Any) -> list[Any]:
    """Send the canary where it is wrong: headers, queries and bodies; return the answers."""
    answers = [
        await client.get("/v1/runs", headers={"Authorization": f"Bearer runfold_{CANARY}"}),
        await client.get("/v1/runs", headers={"Authorization": f"Basic {CANARY}"}),
        await client.get(
            "/v1/runs", headers={"Cookie": f"runfold_session=runfold_session_{CANARY}"}
        ),
        await client.get("/v1/runs", params={"q": f"password={CANARY}"}),
        await client.get("/v1/runs", params={"limit": f"password={CANARY}"}),
        await client.post("/v1/runs", content=f'{{"password": "{CANARY}"'.encode()),
        await client.post("/v1/runs", json={"password": CANARY}),
        await client.post("/v1/runs", json={"kind": f"https://u:{CANARY}@h" * 20}),
        await client.post("/v1/webhooks", json={"url": f"https://u:{CANARY}@example.com"}),
        await client.post("/sign-in", data={"token": CANARY}),
        await client.post("/sign-in", data={"name": "ann", "password": CANARY}),
    ]
    assert len([one for one in answers if one.status_code >= 400]) >= 9
    return [(one.text, dict(one.headers)) for one in answers]


async def _wrong_pages(client: Any) -> list[Any]:
    """Ask for pages, and send forms, with the canary where it is wrong; return the answers."""
    answers = []
    for page in ("/runs", "/runs/x", "/runs/x/history", "/nothing", "/approvals", "/kinds"):
        asked = {"limit": f"https://u:{CANARY}@h/", "older": f"password={CANARY}"}
        answers.append(await client.get(f"/p/test{page}", params=asked, headers=HTML))
        wrong = {"password": CANARY, "version": f"password={CANARY}"}
        answers.append(await client.post(f"/p/test{page}", data=wrong, headers=HTML))
    assert {400, 404, 405} & {one.status_code for one in answers}
    return [_beside_its_address(one) for one in answers]


def _beside_its_address(page: Any) -> str:
    """All of a page but its own address, to which a change of the theme comes back."""
    address = page.request.url.raw_path.decode().replace("&", "&amp;")
    return str((page.text.replace(f'name="to" value="{address}"', ""), dict(page.headers)))


async def _ordered(ledger: Ledger) -> None:
    """Give the canary as the reason of each order in the control history."""
    project = ledger.project
    await ledger.grant_role("finance", "ann", reason=TEXT)
    await ledger.grant_access("somebody", ["read"], reason=TEXT)
    await ledger.revoke_access("somebody", reason=TEXT)
    await ledger.limit_kind("a", 3, reason=TEXT)
    credential, _ = await api_tokens.make_token(project, "ci", reason=TEXT)
    await api_tokens.revoke_token(project, credential, reason=TEXT)
    await users.add(project, "ann", password="correct horse battery", reason=TEXT)  # noqa: S106
    await ledger.webhooks.add("https://example.com", reason=TEXT)
    await ledger.archive.hold("2020-01", actor="ann", reason=TEXT)


@pytest.mark.slow
async def test_a_canary_that_comes_by_the_api_is_found_nowhere(
    ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    _, secret = await token(ledger, RIGHTS, actors=["*"])
    _, decider = await token(ledger, ["decide"], actors=["*"])
    told: list[Any] = []
    with capture_logs() as lines:
        async with calling(app(ledger), secret) as client:
            told += await _sent(client, decider)
            told += await _refused(client)
            runs = [run.run_id for run in await ledger.runs()]
            for run_id in runs:
                for path in (f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/history"):
                    told.append((await client.get(path)).text)
            told.append((await client.get("/v1/metrics")).text)
            described = (await client.get("/v1/openapi.json")).text
            assert scrubbed(described) == described
            await sign_in(client, secret)
            told += await _wrong_pages(client)
            for path in ("", "/runs", "/audit", *(f"/runs/{run_id}" for run_id in runs)):
                told.append((await client.get(f"/p/test{path}")).text)
    await _ordered(ledger)
    told += [lines, *capfd.readouterr(), await metrics.look(ledger.pool)]
    told += await payload_reads.reads(ledger.project)

    assert [str(one)[:2000] for one in told if CANARY in str(one)] == []
    assert await _found_in_tables(ledger.pool, CANARY) == []
    assert CANARY not in await _server_log(ledger.pool)
