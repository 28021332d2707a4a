"""Redaction: what is known as a secret by its name or shape, and what is let through."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from structlog.testing import capture_logs

from runfold.ledger import Ledger, names
from runfold.ledger.errors import ConfigurationError, DuplicateKey, InvalidValue
from runfold.ledger.events import ApprovalRequested
from runfold.ledger.operations.decide import shown_sha256
from runfold.ledger.payload import PayloadRules, encode_payload
from runfold.ledger.redaction import MARK, Redaction
from runfold.ledger.settings import Settings
from tests.support.databases import PROJECT

PRIVATE_KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0Z3VS5\n-----END RSA PRIVATE KEY-----"
)
SECRETS: dict[str, tuple[Any, Any]] = {
    "a name": ({"password": "hunter2", "user": "ann"}, {"password": MARK, "user": "ann"}),
    "the end of a name": ({"DB_PASSWORD": "hunter2"}, {"DB_PASSWORD": MARK}),
    "words run together": ({"clientSecret": "hunter2"}, {"clientSecret": MARK}),
    "another sign": ({"X-Api-Key": "hunter2"}, {"X-Api-Key": MARK}),
    "a number": ({"pwd": 4711}, {"pwd": MARK}),
    "an object": ({"authorization": {"bearer": "hunter2"}}, {"authorization": MARK}),
    "deep within": ([{"a": [{"token": "hunter2"}]}], [{"a": [{"token": MARK}]}]),
    "a type": ({"it": SecretStr("hunter2")}, {"it": MARK}),
    "a URL": ("postgresql://ann:hunter2@host/db", f"postgresql://ann:{MARK}@host/db"),
    "a header": ("Authorization: Bearer hunter2hunter2hunter2", f"Authorization: Bearer {MARK}"),
    "a key": (f"{PRIVATE_KEY}", f"-----BEGIN RSA PRIVATE KEY-----{MARK}"),
    "AWS": ("AKIAIOSFODNN7EXAMPLE", MARK),
    "an API token": (f"use runfold_0123456789ab_{'hunter2' * 6} now", f"use {MARK} now"),
    "a web token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.hunter2", MARK),
    "JSON in text": ('{"password": "hun\\"ter2", "n": 1}', f'{{"password": "{MARK}", "n": 1}}'),
    "a number in JSON in text": ('{"token":4711}', f'{{"token":"{MARK}"}}'),
    "JSON twice in text": (r"{\"secret\":\"hunter2\"}", rf"{{\"secret\":\"{MARK}\"}}"),
    "a mapping of Python": ("{'password': 'hunter2'}", f"{{'password': '{MARK}'}}"),
    "an assignment": ("x(password='hunter2', y=1)", f"x(password='{MARK}', y=1)"),
    "a connection string": ("host=h password=hunter2", f"host=h password={MARK}"),
    "a query": ("/a?page_token=p&access_token=hunter2&b", f"/a?page_token=p&access_token={MARK}&b"),
    "a name of a member": ({"AKIAIOSFODNN7EXAMPLE": 1}, {MARK: 1}),
}
HARMLESS: tuple[Any, ...] = (
    {"token": 12, "password": 1.5},
    {"tokens": 5, "prompt_tokens": 7, "next_page_token": "p", "max_tokens": 9},
    {"has_password": True, "password": None, "secret": "", "token": False},
    "enter your password: then go on; if token == 'x': pass",
    "https://host:8080/path@example and ann@example.com",
    "https://example.com/?q=a&page=2#token",
    {"sk-1": "risk-free", "basic": "basic auth", "note": "AKIA, eyJ and runfold_1"},
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_becomes_a_mark_and_the_rest_stays(name: str) -> None:
    value, expected = SECRETS[name]
    rules = PayloadRules(65_536, Redaction())

    stored = encode_payload({"input": value}, rules)

    assert stored is not None
    assert json.loads(stored) == {"input": expected}
    assert encode_payload(json.loads(stored), rules) == stored


@pytest.mark.parametrize("value", HARMLESS, ids=str)
def test_what_is_no_secret_stays(value: object) -> None:
    stored = encode_payload({"input": value}, PayloadRules(65_536, Redaction()))

    assert stored == encode_payload({"input": value}, PayloadRules(65_536, None))


def test_names_can_be_added_and_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    redaction = Redaction("pin, *-code, -token")

    given = {"pin": 4711, "zip_code": 10115, "token": "t", "password": "p", "PIN": 4711, "spin": 4}

    assert redaction.value(given, "input") == {
        "pin": MARK, "zip_code": MARK, "token": "t", "password": MARK, "PIN": MARK, "spin": 4,
    }  # fmt: skip
    for wrong in ("a b", "-nobody", "*", "ü"):
        monkeypatch.setenv("RUNFOLD_REDACT_NAMES", wrong)
        with pytest.raises(ConfigurationError, match="RUNFOLD_REDACT_NAMES"):
            Settings.load()


def test_no_error_shows_a_secret() -> None:
    rules = PayloadRules(65_536, Redaction())
    for value in (
        {"password": b"hunter2"},
        {"a": object, "password": "hunter2"},
        "password=hunter2 \ud83d",
        {"password": "hunter2", "deep": json.loads("[" * 40 + "]" * 40)},
    ):
        with suppress(InvalidValue):
            assert "hunter2" not in str(encode_payload({"input": value}, rules))
            continue
        with pytest.raises(InvalidValue) as wrong:
            encode_payload({"input": value}, rules)
        assert "hunter2" not in str(wrong.value)
    with pytest.raises(InvalidValue) as refused:
        raise InvalidValue("key", "postgresql://ann:hunter2@host", "may not be that")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "evil",
    [
        "eyJ-" * 16_000, "bearer " * 9_000, "://a:" * 13_000, 'password"' * 7_000, "\\" * 64_000,
        'password="' * 6_500, "password=\\" * 6_400, "password = " * 5_800, "sk-" * 21_000,
        "-----BEGIN PRIVATE KEY-----" * 2_300, "password=" + "\\" * 64_000,
    ],
    ids=lambda evil: evil[:12],
)  # fmt: skip
def test_no_text_takes_long(evil: str) -> None:
    began = time.process_time()
    Redaction().text(evil, "input")
    assert time.process_time() - began < 1


async def test_the_digest_of_a_command_is_of_what_is_stored(ledger: Ledger) -> None:
    first = await ledger.submit("parse", {"password": "hunter2"}, key="k")
    again = await ledger.submit("parse", {"password": "hunter3"}, key="k")

    assert first.input == {"password": MARK}
    assert again.run_id == first.run_id
    with pytest.raises(DuplicateKey):
        await ledger.submit("parse", {"password": None}, key="k")
    [lease] = await ledger.claim("w:1")
    await ledger.ask_tool(lease, "signal:go", park=True)
    signalled = await ledger.signal(first.run_id, "go", {"token": "hunter2"}, key="s")
    assert await ledger.signal(first.run_id, "go", {"token": "hunter3"}, key="s") == signalled


async def test_a_secret_that_was_taken_out_is_told_once(ledger: Ledger) -> None:
    with capture_logs() as lines:
        for secret in ("hunter2", "hunter3"):
            await ledger.submit("parse", {"password": secret})

    [line] = [line for line in lines if line["event"] == names.SECRET_REDACTED]
    assert (line["log_level"], line["field"]) == ("warning", "input")
    assert line["known_by"] == "the name *password"
    assert "hunter" not in str(lines)


async def test_redaction_can_be_turned_off(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNFOLD_REDACT", "false")
    async with Ledger.open(database, PROJECT) as opened:
        run = await opened.submit("parse", {"password": "hunter2"})
        await opened.grant_role("desk", "ann", reason="password=hunter2")
        [member] = await opened.role_members()
    assert run.input == {"password": "hunter2"}
    assert member.reason == "password=hunter2"


class Login(BaseModel):
    user: str
    password: SecretStr


async def test_a_model_with_a_secret_is_stored_without_it(ledger: Ledger) -> None:
    run = await ledger.submit("parse", Login(user="ann", password=SecretStr("hunter2")))
    assert run.input == {"user": "ann", "password": MARK}


async def test_the_digest_of_an_approval_is_of_what_is_shown(ledger: Ledger) -> None:
    await ledger.submit("pay")
    [lease] = await ledger.claim("w:1")
    await ledger.ask_approval(lease, "Send password=hunter2 ?", show={"token": "hunter2"})
    [*_, asked] = await ledger.history(lease.run_id)
    assert isinstance(asked, ApprovalRequested)
    assert (asked.prompt, asked.show) == (f"Send password={MARK} ?", {"token": MARK})
    assert asked.shown_sha256 == shown_sha256(asked.prompt or "", asked.show)
