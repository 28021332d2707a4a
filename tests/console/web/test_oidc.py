"""Sign-in by an identity provider, end to end: a provider that answers by HTTP, and its lies."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from pydantic import SecretStr
from structlog.testing import capture_logs

from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.ledger import Ledger, sessions, users
from runfold.ledger.errors import ConfigurationError
from runfold.ledger.settings import Settings
from tests.support.identity_provider import (
    CLIENT,
    CLIENT_SECRET,
    IdentityProvider,
    new_key,
    serving,
)
from tests.support.logins import with_login
from tests.support.runs import claimed
from tests.support.web import calling

REDIRECT = "http://localhost/sign-in/callback"


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return new_key()


@pytest.fixture
def provider(key: RSAPrivateKey) -> Iterator[IdentityProvider]:
    with serving(key) as made:
        yield made


@pytest.fixture
async def browser(ledger: Ledger, provider: IdentityProvider) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of a server that knows the provider, which knows Ann."""
    known = (provider.issuer, provider.subject)
    assert await users.add(ledger.project, "ann", provider=known)
    await ledger.grant_access("user:ann", ["read", "decide"])
    async with calling(server(ledger, provider)) as client:
        yield client


def server(ledger: Ledger, provider: IdentityProvider) -> FastAPI:
    """Return a server on the ledger's login that knows the provider."""
    settings = ledger.settings.model_copy(
        update={
            "oidc_issuer": provider.issuer,
            "oidc_client_id": CLIENT,
            "oidc_client_secret": SecretStr(CLIENT_SECRET),
            "oidc_redirect": REDIRECT,
        }
    )
    own = Ledger(ledger.pool, ledger.project_id, settings, ledger.url)
    return app(own, Options(strangers_a_second=200))


async def leave(browser: httpx.AsyncClient, to: str = "/p/test/runs") -> str:
    """Begin a sign-in; return the provider's address."""
    left = await browser.get("/sign-in/provider", params={"to": to})
    assert left.status_code == 303, left.text
    return left.headers["location"]


async def enter(browser: httpx.AsyncClient, provider: IdentityProvider) -> httpx.Response:
    """Sign in as far as the provider lets one."""
    return await browser.get(provider.authorize(await leave(browser)))


async def test_a_sign_in_leads_on_and_a_decision_is_on_record_as_the_users(
    browser: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger
) -> None:
    assert "/sign-in/provider?to=/p/test" in (await browser.get("/sign-in?to=/p/test")).text
    left = await browser.get("/sign-in/provider?to=/p/test/runs")
    kept = left.headers["set-cookie"]
    assert all(part in kept for part in ("HttpOnly", "SameSite=lax", "Path=/;", "600"))
    address = left.headers["location"]
    entered = await browser.get(provider.authorize(address))

    assert entered.status_code == 200
    assert '<meta http-equiv="refresh" content="0; url=/p/test/runs">' in entered.text
    cookies = entered.headers.get_list("set-cookie")
    assert any("runfold_session=" in each and "SameSite=strict" in each for each in cookies)
    assert "runfold_flow" not in browser.cookies
    lease = await claimed(ledger)
    await ledger.ask_approval(lease, "Pay?")
    version = (await ledger.get(lease.run_id)).version
    path = f"/p/test/approvals/{lease.run_id}/{version}"
    assert (await browser.post(path, data={"decision": "approve"})).status_code == 303
    last = (await ledger.history(lease.run_id))[-1]
    assert (last.type, last.credential) == ("approval.granted", "user:ann")


async def test_the_answer_needs_the_browser_and_the_state_of_one_sign_in(
    browser: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger
) -> None:
    first = provider.authorize(await leave(browser))
    own = provider.authorize(await leave(browser))  # another tab: its cookie is the one that holds
    cookie = browser.cookies["runfold_flow"]
    coded, _, state = own.partition("&state")
    for wrong in (
        first, own + "x", coded, f"{REDIRECT}?error=x%00", f"{own}&error=access_denied",
        f"{own}&iss=https://another.example", f"{REDIRECT}?code=&state{state}",
    ):  # fmt: skip
        browser.cookies.set("runfold_flow", cookie, domain="localhost.local")
        refused = await browser.get(wrong)
        assert refused.status_code == 403
        assert "begin again" in refused.text
    for forged in ("", cookie[:-2], cookie.rpartition(".")[0] + ".", "x" * 9_000):
        browser.cookies.clear()
        answer = await browser.get(own, headers={"Cookie": f"runfold_flow={forged}"})
        assert answer.status_code == 403
    assert await sessions.sessions(ledger.project) == []

    held = {"Cookie": f"runfold_flow={cookie}"}
    assert (await browser.get(own, headers=held)).status_code == 200
    browser.cookies.clear()
    replayed = await browser.get(own, headers=held)
    assert replayed.status_code == 403
    assert len(await sessions.sessions(ledger.project)) == 1


WRONG_CLAIMS: tuple[dict[str, Any], ...] = (
    {"nonce": "another"},
    {"nonce": 7},
    {"nonce": None},
    {"aud": "another"},
    {"aud": [CLIENT, "another"]},
    {"azp": "another"},
    {"iss": "https://another.example"},
    {"exp": 1_700_000_000},
    {"iat": int(time.time()) + 3_600},
    {"iat": int(time.time()) - 3_600},
    {"iat": str(int(time.time()))},
    {"sub": 7},
)


async def test_an_id_token_with_a_wrong_claim_lets_nobody_in(
    browser: httpx.AsyncClient,
    provider: IdentityProvider,
    ledger: Ledger,
    subtests: pytest.Subtests,
) -> None:
    for claims in WRONG_CLAIMS:
        with subtests.test(f"{claims}"):
            provider.claims = claims

            assert (await enter(browser, provider)).status_code == 403
            assert await sessions.sessions(ledger.project) == []


async def test_a_token_for_several_audiences_holds_if_we_are_the_party(
    browser: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    provider.claims = {"aud": [CLIENT, "another"], "azp": CLIENT}

    assert (await enter(browser, provider)).status_code == 200


async def test_only_the_providers_own_signature_counts(
    browser: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger, key: RSAPrivateKey
) -> None:
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for signed in (
        (None, "none"),
        (public, "HS256"),
        (CLIENT_SECRET.encode(), "HS256"),
        (key, "RS512"),
        (new_key(), "RS256"),
    ):
        provider.signed = signed
        assert (await enter(browser, provider)).status_code == 403, signed
    assert await sessions.sessions(ledger.project) == []


async def test_keys_can_be_rotated_and_an_old_one_counts_no_more(
    browser: httpx.AsyncClient, provider: IdentityProvider, key: RSAPrivateKey
) -> None:
    assert (await enter(browser, provider)).status_code == 200
    for other, kid in ((new_key(), "second"), (generate_private_key(SECP256R1()), "third")):
        provider.key, provider.kid = other, kid
        assert (await enter(browser, provider)).status_code == 200, kid
    provider.signed = (key, "RS256")
    assert (await enter(browser, provider)).status_code == 403


async def test_an_unknown_subject_and_a_disabled_user_are_told_whom_to_name(
    browser: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger
) -> None:
    assert (await enter(browser, provider)).status_code == 200
    assert (await browser.get("/p/test")).status_code == 200
    await users.disable(ledger.project, "ann")
    assert (await browser.get("/p/test")).status_code == 303
    disabled = await enter(browser, provider)
    assert disabled.status_code == 403

    provider.claims = {"sub": "<b>nobody"}
    unknown = await enter(browser, provider)
    assert unknown.status_code == 403
    assert provider.issuer in unknown.text
    assert "&lt;b&gt;nobody" in unknown.text
    provider.claims = {"sub": "x" * 1_000}
    assert (await enter(browser, provider)).status_code == 403
    assert await sessions.sessions(ledger.project) == []


async def test_a_provider_that_is_down_or_lies_is_an_error_page_without_secrets(
    browser: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    for described in (
        {"token_endpoint_auth_methods_supported": 7},
        {"issuer": "https://another.example"},
        {"token_endpoint": "http://provider.example/token"},
        {"jwks_uri": None},
        {"padding": "x" * 300_000},
    ):
        provider.described = described
        assert (await browser.get("/sign-in/provider")).status_code == 502, described
    provider.described, provider.redirects = {"token_endpoint": "http://127.0.0.1:1/"}, True
    assert (await browser.get("/sign-in/provider")).status_code == 502
    provider.redirects = False
    back = provider.authorize(await leave(browser))
    with capture_logs() as logs:
        down = await browser.get(back)
    assert down.status_code == 502
    assert [each["reason"] for each in logs] == ["it does not answer (ConnectError)"]
    for told in (down.text, str(logs)):
        assert CLIENT_SECRET not in told
        assert back.partition("code=")[2][:20] not in told


async def test_a_provider_that_gives_no_id_token_lets_nobody_in(
    browser: httpx.AsyncClient, provider: IdentityProvider, subtests: pytest.Subtests
) -> None:
    for exchanged, reason in (
        (b"{}", "its answer has no ID token"), (b'{"id_token": 5}', "its answer has no ID token"),
        (b'{"id_token": "eyJraWQiOiAiMSJ9.e30.AAAA"}', "its ID token is not valid (KeyError)"),
        (b'["id_token"]', "its answer is not a JSON object"), (b"<html>", "its answer is not JSON"),
    ):  # fmt: skip
        with subtests.test(f"{exchanged!r}"):
            provider.exchanged = exchanged
            with capture_logs() as logs:
                answer = await enter(browser, provider)

            assert answer.status_code == (403 if "not valid" in reason else 502)
            assert [each["reason"] for each in logs] == [reason]


async def test_a_server_whose_login_is_no_administrator_cannot_vouch_for_anybody(
    browser: httpx.AsyncClient, provider: IdentityProvider, ledger: Ledger, database: str
) -> None:
    async with (
        with_login(database, "runfold_worker", rights=("read", "admin")) as url,
        Ledger.open(url, "test") as weak,
        calling(server(weak, provider)) as client,
    ):
        with capture_logs() as logs:
            assert (await enter(client, provider)).status_code == 502
    assert [each["reason"] for each in logs] == [
        "the server's login lacks the right admin in all projects"
    ]
    assert await sessions.sessions(ledger.project) == []


async def test_strangers_have_a_rate_and_a_server_without_a_provider_has_no_such_page(
    ledger: Ledger,
) -> None:
    async with calling(app(ledger, Options(strangers_a_second=1))) as plain:
        assert "/sign-in/provider" not in (await plain.get("/sign-in")).text
        found = [(await plain.get("/sign-in/provider")).status_code for _ in range(2)]
        found += [(await plain.get(REDIRECT)).status_code for _ in range(20)]
    assert found[:2] == [404, 404]
    assert 429 in found


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"ISSUER": "http://provider.example"}, "https"),
        ({"ISSUER": "https://a:b@provider.example"}, "https"),
        ({"REDIRECT": "https://console.example/"}, "/sign-in/callback"),
        ({"CLIENT_SECRET": ""}, "RUNFOLD_OIDC_CLIENT_SECRET"),
    ],
)
def test_a_provider_by_half_is_a_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], told: str
) -> None:
    right = {
        "ISSUER": "https://provider.example",
        "CLIENT_ID": CLIENT,
        "CLIENT_SECRET": CLIENT_SECRET,
        "REDIRECT": "https://console.example/sign-in/callback",
    }
    for name, value in (right | wrong).items():
        monkeypatch.setenv(f"RUNFOLD_OIDC_{name}", value)
    with pytest.raises(ConfigurationError, match=told) as refused:
        Settings.load()
    assert CLIENT_SECRET not in str(refused.value)
