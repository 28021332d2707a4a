"""Sign-in by a token or a password, the session it begins, and how that ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest

from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.ledger import Ledger, State, api_tokens, sessions, users
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.sessions import SESSION_PREFIX
from tests.support.logins import with_login
from tests.support.runs import claimed
from tests.support.waiting import BOUND
from tests.support.web import calling, sign_in, token

PASSWORD = "correct horse battery"  # noqa: S105  of the tests alone
ENDED = "/sign-in?to=/p/test"


@pytest.fixture
async def stranger(ledger: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token, of a server that asks for one."""
    async with calling(app(ledger)) as client:
        yield client


@pytest.fixture(autouse=True)
def cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the keys of passwords with little work."""
    for module in (users, sessions):
        monkeypatch.setattr(module, "METHOD", "argon2id t=1 m=64 p=1")


async def ann(ledger: Ledger, *rights: str) -> None:
    """Add the user ann."""
    assert await users.add(ledger.project, "ann", password=PASSWORD)
    if rights:
        await ledger.grant_access("user:ann", rights)


async def enter(client: httpx.AsyncClient, name: str, password: str) -> httpx.Response:
    """Try to sign in by a password."""
    return await client.post("/sign-in", data={"user": name, "password": password})


async def test_the_cookie_holds_no_token_and_the_database_no_secret(
    stranger: httpx.AsyncClient, ledger: Ledger, connection: asyncpg.Connection
) -> None:
    _, secret = await token(ledger, ["read"])
    await sign_in(stranger, secret)

    cookie = stranger.cookies["runfold_session"]
    assert secret not in cookie
    assert (await stranger.get("/p/test")).status_code == 200
    kept = str(await connection.fetch("SELECT s::text FROM ledger.web_session AS s"))
    assert cookie not in kept
    as_bearer = {"Authorization": f"Bearer {cookie}"}
    stranger.cookies.clear()
    assert (await stranger.get("/v1/runs", headers=as_bearer)).status_code == 401
    stranger.cookies.set("runfold_session", secret)
    assert (await stranger.get("/p/test")).headers["location"] == ENDED


async def test_a_sign_in_that_the_browser_would_forget_is_refused_and_says_why(
    stranger: httpx.AsyncClient, ledger: Ledger
) -> None:
    """Over plain HTTP a browser drops the cookie, and asks to sign in again and again."""
    await ann(ledger, "read")
    data, host = {"user": "ann", "password": PASSWORD}, {"Host": "console.example"}

    plain = await stranger.post(
        "/sign-in", data=data, headers={**host, "Origin": "http://console.example"}
    )
    assert (plain.status_code, "set-cookie" in plain.headers) == (403, False)
    assert "came over http" in plain.text
    assert await sessions.sessions(ledger.project) == []
    proxied = {**host, "Origin": "https://console.example"}
    assert (await stranger.post("/sign-in", data=data, headers=proxied)).status_code == 303


async def test_each_sign_in_begins_another_session_and_signing_out_ends_it_on_the_server(
    stranger: httpx.AsyncClient, ledger: Ledger
) -> None:
    _, secret = await token(ledger, ["read"])
    await sign_in(stranger, secret)
    first = stranger.cookies["runfold_session"]
    await sign_in(stranger, secret)
    second = stranger.cookies["runfold_session"]
    assert first != second
    assert len(await sessions.sessions(ledger.project)) == 1

    await stranger.post("/sign-out")
    for stolen in (first, second):
        stranger.cookies.set("runfold_session", stolen)
        assert (await stranger.get("/p/test")).headers["location"] == ENDED
        stranger.cookies.clear()


ENDINGS = (
    "SET expires_at = clock_timestamp()",
    "SET last_used_at = clock_timestamp() - interval '121 minutes'",
    "SET ended_at = clock_timestamp()",
    "SET credential = 'token:none'",
)


async def test_a_session_past_its_end_lets_nobody_in(
    stranger: httpx.AsyncClient,
    ledger: Ledger,
    connection: asyncpg.Connection,
    subtests: pytest.Subtests,
) -> None:
    for ending in ENDINGS:
        with subtests.test(ending):
            _, secret = await token(ledger, ["read"])
            await sign_in(stranger, secret)
            assert (await stranger.get("/p/test")).status_code == 200
            await connection.execute(f"UPDATE ledger.web_session {ending}")
            assert (await stranger.get("/p/test")).headers["location"] == ENDED


async def test_a_revoked_token_or_a_disabled_user_ends_its_sessions_at_once(
    stranger: httpx.AsyncClient, ledger: Ledger
) -> None:
    credential, secret = await token(ledger, ["read"])
    await sign_in(stranger, secret)
    assert (await stranger.get("/p/test")).status_code == 200
    await api_tokens.revoke_token(ledger.project, credential)
    assert (await stranger.get("/p/test")).headers["location"] == ENDED

    await ann(ledger, "read")
    changes: tuple[Callable[[], Awaitable[bool]], ...] = (
        lambda: users.set_password(ledger.project, "ann", PASSWORD),
        lambda: users.disable(ledger.project, "ann"),
    )
    for change in changes:
        assert (await enter(stranger, "ann", PASSWORD)).status_code == 303
        assert (await stranger.get("/p/test")).status_code == 200
        assert await change()
        assert (await stranger.get("/p/test")).headers["location"] == ENDED
    assert (await enter(stranger, "ann", PASSWORD)).status_code == 403
    assert await users.enable(ledger.project, "ann")
    assert (await enter(stranger, "ann", PASSWORD)).status_code == 303


async def test_what_a_user_does_is_on_record_as_theirs_and_needs_their_rights(
    stranger: httpx.AsyncClient, ledger: Ledger
) -> None:
    run = await ledger.submit("page")
    await ann(ledger, "read")
    await enter(stranger, "ann", PASSWORD)
    path = f"/p/test/runs/{run.run_id}"
    assert (await stranger.post(f"{path}/cancel")).status_code in {403, 404, 405}
    await ledger.grant_access("user:ann", ["read", "submit"])
    form = {"action": "cancel", "query": "kind:page", "q": "kind:page", "reason": "why"}
    form |= {"moment": "2030-01-01T00:00Z", "key": "0123456789abcdef"}
    assert (await stranger.post("/p/test/bulk", data=form)).status_code == 303
    async with asyncio.timeout(BOUND):
        while (await ledger.get(run.run_id)).state is not State.CANCELLED:
            await stranger.get("/p/test")
    last = (await ledger.history(run.run_id))[-1]
    assert (last.credential, last.actor) == ("user:ann", "user:ann")


STRANGERS = (
    ("ann", "wrong horse battery"), ("bob", PASSWORD), ("ann", ""), ("", ""), ("a\x00", "b"),
)  # fmt: skip


async def test_a_wrong_name_or_password_looks_the_same(
    stranger: httpx.AsyncClient, ledger: Ledger, subtests: pytest.Subtests
) -> None:
    await ann(ledger)
    for name, password in STRANGERS:
        with subtests.test(name=name, password=password):
            refused = await enter(stranger, name, password)
            assert refused.status_code == 403
            assert "Not let in" in refused.text
            assert "set-cookie" not in refused.headers


async def test_tries_are_bounded_for_a_client_and_by_the_database_for_a_user(
    ledger: Ledger,
) -> None:
    await ann(ledger)
    served = app(ledger)
    async with calling(served) as client:
        served.state.callers.tries._clock = lambda: 0.0  # noqa: SLF001  however long they take
        answers = [(await enter(client, "ann", "x" * 12)).status_code for _ in range(12)]
    assert answers == [403] * 10 + [429] * 2
    assert await sessions.by_password(ledger.pool, "ann", PASSWORD) is None
    [user] = await users.users(ledger.project)
    assert user.failed_tries == 10


async def test_a_key_is_asked_for_though_nobody_has_the_name(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    key_of = users.key_of

    def counted(password: str, method: str, salt: bytes) -> bytes:
        made.append(method)
        return key_of(password, method, salt)

    monkeypatch.setattr(sessions, "key_of", counted)
    await ann(ledger)
    for name in ("ann", "nobody"):
        assert await sessions.by_password(ledger.pool, name, "x" * 12) is None
    assert made[0] == made[1]


async def test_a_session_needs_the_key_whoever_asks_the_database(
    ledger: Ledger, database: str
) -> None:
    await ann(ledger)
    async with with_login(database, "runfold_worker", rights=("read", "admin")) as url:
        connection = await asyncpg.connect(driver_url(url))
        try:
            await refused_by(connection)
        finally:
            await connection.close()


async def test_a_sign_in_that_meets_another_of_the_same_user_is_let_in(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ann(ledger)
    others: list[Any] = []

    async def met(pool: Any, statement: str, *given: Any) -> Any:
        answer = await fetch(pool, statement, *given)
        if "sign_in_by_password" in statement and not others:
            others.append(await fetch(pool, statement, "ann", b"another", b"d" * 32))
        return answer

    monkeypatch.setattr(sessions, "fetch", met)
    assert await sessions.by_password(ledger.pool, "ann", PASSWORD) is not None
    assert len(others) == 1


async def test_sign_ins_of_one_user_at_the_same_time_are_all_let_in(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try is on record before it is answered, and a user has one at a time on record."""
    await ann(ledger)
    start = asyncio.Barrier(5)

    async def together(pool: Any, statement: str, *given: Any) -> Any:
        if "password_method" in statement:
            await start.wait()
        return await fetch(pool, statement, *given)

    monkeypatch.setattr(sessions, "fetch", together)
    begun = [sessions.by_password(ledger.pool, "ann", PASSWORD) for _ in range(5)]
    assert None not in await asyncio.gather(*begun)


async def refused_by(connection: asyncpg.Connection) -> None:
    """Try to get a session without the password, or what takes the right admin everywhere."""
    tried = "SELECT ledger.sign_in_by_password('ann', sha256('x'), sha256('y'))"
    for _ in range(2):
        assert await connection.fetchval(tried) is None
    assert await connection.fetchval(tried.replace("sha256('x')", "NULL")) is None
    for statement in (
        "SELECT ledger.sign_in_by_provider('https://x', 'ann', sha256('y'))",
        "SELECT ledger.change_user('a', 'ann', 'disable', NULL, NULL, NULL, NULL, NULL, NULL)",
        "SELECT ledger.end_session(NULL, 'x')",
        "SELECT * FROM ledger.user_password",
    ):
        with pytest.raises(asyncpg.PostgresError):
            await connection.fetch(statement)


async def test_two_users_are_two_people_and_one_user_in_two_sessions_is_one(
    stranger: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger)
    await ledger.ask_approval(lease, "Pay?", approvals=2)
    version = (await ledger.get(lease.run_id)).version
    path = f"/p/test/approvals/{lease.run_id}/{version}"
    for name in ("ann", "bob"):
        assert await users.add(ledger.project, name, password=PASSWORD)
        await ledger.grant_access(f"user:{name}", ["read", "decide"])

    answers = []
    for name in ("ann", "ann", "bob"):
        await enter(stranger, name, PASSWORD)
        answer = await stranger.post(path, data={"decision": "approve"})
        answers.append(answer.status_code)
    await enter(stranger, "ann", PASSWORD)
    as_other = await stranger.post(path, data={"decision": "approve", "person": "user:bob"})

    assert answers[0] == answers[2] == 303
    assert answers[1] in {403, 409}
    assert as_other.status_code in {403, 409}
    events = [e for e in await ledger.history(lease.run_id) if e.type.startswith("approval.")]
    assert [e.credential for e in events[1:]] == ["user:ann", "user:bob"]


async def test_no_other_host_of_the_domain_gives_a_browser_its_session(
    ledger: Ledger,
) -> None:
    _, secret = await token(ledger, ["read"])
    async with calling(app(ledger)) as client:
        client.base_url = httpx.URL("https://runs.example")
        client.headers["origin"] = "https://runs.example"
        await sign_in(client, secret)
        [name] = client.cookies
        client.cookies.set("runfold_session", "of another host", domain=".example")
        shown = await client.get("/p/test/runs")
        out = await client.post("/sign-out")

    assert (name, shown.status_code) == ("__Host-runfold_session", 200)
    [forgotten] = out.headers.get_list("set-cookie")  # a browser minds the rules of the prefix
    assert forgotten.startswith("__Host-runfold_session=")
    assert {"Max-Age=0", "Path=/", "Secure"} <= set(forgotten.split("; "))
    assert "Domain" not in forgotten


async def test_a_session_that_has_ended_locks_nobody_out_of_an_open_console(
    ledger: Ledger,
) -> None:
    """As when another console on this machine has left its cookie: cookies know no ports."""
    async with calling(app(ledger, Options(open=True))) as browser:
        browser.cookies.set(
            "runfold_session", f"{SESSION_PREFIX}of_another", domain="localhost.local"
        )
        led = await browser.get("/p/test/runs")
        asked = await browser.get(led.headers["location"])
        assert 'action="/sign-out"' in asked.text.partition("</main>")[0]
        out = await browser.post("/sign-out")
        assert out.headers["location"] == "/"
        assert (await browser.get("/p/test/runs")).status_code == 200


async def test_without_a_session_no_form_does_anything(
    stranger: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger)
    await ledger.ask_approval(lease, "Pay?")
    version = (await ledger.get(lease.run_id)).version
    path = f"/p/test/approvals/{lease.run_id}/{version}"
    answer = await stranger.post(path, data={"decision": "approve"})
    assert answer.headers["location"].startswith("/sign-in?to=")
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert (await ledger.get(lease.run_id)).version == version

    run = f"/p/test/runs/{lease.run_id}"
    for referer, to in (
        (f"http://localhost{run}?beats=1", f"{run}%3Fbeats%3D1"),
        ("//x/y", "/"),
        ("http://[", "/"),
    ):
        answer = await stranger.post(f"{run}/cancel", headers={"referer": referer})
        assert answer.headers["location"] == f"/sign-in?to={to}"  # where the form is
    assert (await ledger.get(lease.run_id)).version == version
    foreign = {"origin": "https://evil.example"}
    for form in ("/sign-in", "/sign-out", "/view", path):
        assert (await stranger.post(form, headers=foreign)).status_code == 403
