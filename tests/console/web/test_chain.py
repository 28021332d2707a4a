"""What the check in the browser is given: every fact that is hashed, salts for auditors alone."""

from __future__ import annotations

import httpx

from runfold.console.web import app
from runfold.ledger import Ledger
from runfold.ledger.proof.bundle import check_evidence
from tests.support.logins import with_login
from tests.support.runs import claimed
from tests.support.web import calling, sign_in, token


async def test_the_chain_of_a_run_checks_and_comes_in_windows(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger, input={"a": 1})
    await ledger.complete(lease, output={"b": 2})
    path = f"/p/test/runs/{lease.run_id}/chain.json"
    checked = check_evidence((await web.get(path)).text)
    window = (await web.get(f"{path}?from=1&limit=1")).json()
    beyond = (await web.get(f"{path}?from=3")).json()

    assert (checked.events, checked.payloads, list(checked.findings)) == (3, 2, [])
    assert ([each["version"] for each in window["events"]], window["more"]) == ([2], True)
    assert (beyond["events"], beyond["more"]) == ([], False)


async def test_no_salt_leaves_the_ledger_without_the_right_to_audit(ledger: Ledger) -> None:
    lease = await claimed(ledger, input={"a": 1})
    path = f"/p/test/runs/{lease.run_id}/chain.json"
    seen = []
    for rights in (["read"], ["read", "audit"]):
        _, secret = await token(ledger, rights)
        async with calling(app(ledger)) as client:
            await sign_in(client, secret)
            seen.append((await client.get(path)).json()["events"][0])

    without, opened = seen
    assert without["payload_hash"] == opened["payload_hash"]
    assert not {"salt", "body"} & set(without)
    assert {"salt", "body"} <= set(opened)


async def test_a_server_whose_login_may_not_read_salts_serves_the_chain(
    ledger: Ledger, database: str
) -> None:
    lease = await claimed(ledger, input={"a": 1})
    path = f"/p/test/runs/{lease.run_id}/chain.json"
    _, reads = await token(ledger, ["read"])
    _, audits = await token(ledger, ["read", "audit"])
    async with (
        with_login(database, "runfold_worker", rights=["read"]) as url,
        Ledger.open(url, "test") as narrow,
        calling(app(narrow)) as reader,
        calling(app(narrow)) as auditor,
    ):
        await sign_in(reader, reads)
        await sign_in(auditor, audits)
        answers = [(await each.get(path)).json() for each in (reader, auditor)]

    assert [[event["version"] for event in each["events"]] for each in answers] == [[1, 2]] * 2
