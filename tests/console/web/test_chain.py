"""What the check in the browser is given: every fact that is hashed, salts for auditors alone."""

from __future__ import annotations

import httpx

from runfold.console.web import app
from runfold.ledger import Ledger
from runfold.ledger.proof.bundle import check_evidence
from runfold.projections import CatchUp, install
from runfold.projections.models.counts import RUN_COUNTS
from tests.support.logins import with_login
from tests.support.runs import claimed
from tests.support.web import calling, sign_in, token, words_of


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


async def test_the_last_verify_of_a_project_is_on_record_with_what_it_covered(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    path = "/p/test/integrity"
    assert "No verify of the whole project is on record" in (await web.get(path)).text
    await install(ledger.pool, RUN_COUNTS)
    await claimed(ledger)
    assert (await web.post("/v1/integrity/verify")).json()["ok"] is True
    await claimed(ledger)
    await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()

    shown = (await web.get(f"{path}.json")).json()
    last = shown["last_verify"]
    assert (last["runs"], last["events"], last["findings"], shown["runs"]) == (1, 2, 0, 2)
    assert "1 run (the project has 2 now) with 2 events" in words_of(await web.get(path))
    [noted] = [e for e in await ledger.control_history() if e.type == "project.verified"]
    assert (noted.number, noted.actor) == (last["number"], last["actor"])
    _, secret = await token(ledger, ["read"])
    async with calling(app(ledger), secret) as reader:
        assert (await reader.post("/v1/integrity/verify")).status_code == 403
    assert len([e for e in await ledger.control_history() if e.type == noted.type]) == 1
