"""Webhooks: signed, at least once, in order, to public addresses only, and on record."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from standardwebhooks import Webhook as Verifier
from structlog.testing import capture_logs

from runfold.ledger import Ledger, names
from runfold.ledger.errors import AccessDenied, CheckpointUnknown, InvalidValue
from runfold.ledger.events import NoteAdded
from runfold.ledger.lifecycle import FIRST, MOVES
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.webhooks import Delivery, check_url, delivery_id, secret_bytes
from runfold.workers.duties.webhooks import deliverer
from runfold.workers.duties.webhooks.addresses import AddressRefused, Names
from runfold.workers.duties.webhooks.deliverer import DUTIES, Deliverer, Terms
from runfold.workers.duties.webhooks.posting import Answer, Poster
from runfold.workers.duties.webhooks.sender import WebhookSender
from tests.support.databases import PROJECT
from tests.support.logins import grant, login_of, with_login
from tests.support.proxy import proxied
from tests.support.receiver import Receiver, receiving, swallowing
from tests.support.runs import claimed
from tests.support.waiting import BOUND, until

LOCAL = Terms(Poster(loopback=True), "https://console.example")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An endpoint on this machine."""
    async with receiving() as found:
        yield found


@pytest.fixture
async def dead() -> AsyncIterator[str]:
    """The URL of an endpoint that never answers."""
    async with swallowing() as url:
        yield url


async def deliveries(ledger: Ledger) -> list[Delivery]:
    """The deliveries of the only webhook, the oldest first."""
    [webhook] = await ledger.webhooks.every()
    return (await ledger.webhooks.deliveries(webhook.webhook_id))[::-1]


def events_of(receiver: Receiver) -> list[str]:
    """The events that were received, by the ids of their deliveries without the digests."""
    return [one.rpartition("_")[0] for one in receiver.ids]


async def test_a_failed_run_is_told_with_a_signature_that_the_library_verifies(
    ledger: Ledger, receiver: Receiver
) -> None:
    _, secret = await ledger.webhooks.add(receiver.url, events=["run.failed"], kinds=["parse"])
    lease = await claimed(ledger, input={"card": "4111"})
    await ledger.fail(lease, error_code="E-TEST", error_detail="card 4111")

    await WebhookSender(ledger, LOCAL).once()

    [(headers, body)] = receiver.requests
    told: Any = Verifier(secret).verify(body, headers)
    assert told["type"] == "run.failed"
    assert told["data"] == {
        "project": PROJECT,
        "run_id": str(lease.run_id),
        "version": 3,
        "state": "failed",
        "link": f"https://console.example/p/{PROJECT}/runs/{lease.run_id}",
    }
    assert "4111" not in body
    with pytest.raises(Exception, match="No matching signature"):
        Verifier(secret).verify(body + " ", headers)
    [delivery] = await deliveries(ledger)
    assert (delivery.outcome, delivery.status, delivery.attempts) == ("delivered", 204, 1)
    assert delivery.delivery_id == headers["webhook-id"]


async def test_a_sender_that_dies_between_sending_and_recording_sends_again_under_the_same_id(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.webhooks.add(receiver.url, events=["run.submitted"])
    await ledger.submit("parse")
    brief = Terms(LOCAL.poster, lease=0.01)

    async def killed(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(Deliverer, "_record", killed)
        with pytest.raises(asyncio.CancelledError):
            await WebhookSender(ledger, brief).once()
    assert [one.outcome for one in await deliveries(ledger)] == ["waiting"]

    async def told_again() -> bool:
        await WebhookSender(ledger, LOCAL).once()
        return len(receiver.ids) == 2

    await until(told_again)
    assert len(set(receiver.ids)) == 1
    assert [one.outcome for one in await deliveries(ledger)] == ["delivered"]


def test_an_event_in_the_place_of_one_that_a_restore_took_back_has_another_id() -> None:
    run = UUID("01890000-0000-7000-8000-000000000000")
    lost, new = (f'{{"timestamp":"2026-11-30T12:00:0{second}+00:00"}}' for second in (1, 2))

    assert len({delivery_id("wh_1", run, 4, body) for body in (lost, lost, new)}) == 2


async def test_a_sender_goes_on_where_the_one_before_it_stopped(
    ledger: Ledger, receiver: Receiver
) -> None:
    await ledger.submit("parse")  # before the webhook: not told
    await ledger.webhooks.add(receiver.url, events=["run.submitted"])
    for _ in range(2):
        await ledger.submit("parse")
        await WebhookSender(ledger, LOCAL).once()

    assert len(receiver.ids) == len(set(receiver.ids)) == 2


async def test_a_run_is_told_in_order_and_a_failure_holds_back_that_run_alone(
    ledger: Ledger, receiver: Receiver
) -> None:
    webhook, _ = await ledger.webhooks.add(receiver.url, events=["run.submitted", "run.cancelled"])
    first = await ledger.submit("parse")
    await ledger.cancel(first.run_id)
    receiver.answers = [500]
    await WebhookSender(ledger, LOCAL).once()
    second = await ledger.submit("parse")
    await WebhookSender(ledger, LOCAL).once()

    assert events_of(receiver) == [
        f"{webhook}_{first.run_id}_1", f"{webhook}_{second.run_id}_1",
    ]  # fmt: skip
    [failing, waiting, _] = sorted(
        await deliveries(ledger), key=lambda one: (str(one.run_id), one.version)
    )
    assert (failing.outcome, failing.error, waiting.outcome) == (
        "failing", "answered 500", "waiting",
    )  # fmt: skip
    assert await ledger.webhooks.resend(failing.delivery_id, actor="ann")
    await WebhookSender(ledger, LOCAL).once()
    assert receiver.ids[2] == receiver.ids[0]
    assert events_of(receiver)[3:] == [f"{webhook}_{first.run_id}_2"]
    attempts = await ledger.webhooks.attempts(failing.delivery_id)
    assert [(one.attempt, one.status) for one in attempts] == [(1, 500), (2, 204)]
    last = (await ledger.control_history())[-1]
    assert (last.type, last.actor) == ("delivery.resent", "ann")


async def test_a_dead_endpoint_delays_no_other_and_a_pause_ends_the_telling(
    ledger: Ledger, receiver: Receiver, dead: str
) -> None:
    await ledger.webhooks.add(dead, events=["run.submitted"])
    alive, _ = await ledger.webhooks.add(receiver.url, events=["run.submitted"])
    sender = asyncio.create_task(WebhookSender(ledger, LOCAL).run())
    try:
        await ledger.submit("parse")
        await until(lambda: len(receiver.ids) == 1)

        assert await ledger.webhooks.pause(alive, actor="ann")
        missed = await ledger.submit("parse")
        assert await ledger.webhooks.resume(alive, actor="ann")
        await until(lambda: len(receiver.ids) == 2)
        assert str(missed.run_id) in receiver.ids[1]
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)


class Held(Poster):
    """Posts nothing, and answers when it is let go."""

    def __init__(self) -> None:
        self.asked, self.go = 0, asyncio.Event()

    async def post(self, *_: object, **__: object) -> Answer:
        """Wait, and say that it was taken."""
        self.asked += 1
        await self.go.wait()
        return Answer(204, None, 1)


@pytest.mark.parametrize("checkpoint", ["1/9:9:@1@0123456789abcdef//0", "damaged"])
async def test_what_is_queued_is_sent_though_the_feed_refuses_the_checkpoint(
    ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, checkpoint: str
) -> None:
    """As after a fail-over that lost what the sender had read, or once a month was archived."""
    monkeypatch.setattr(deliverer, "NOTE_SECONDS", 0.05)
    webhook, _ = await ledger.webhooks.add(receiver.url, events=["run.submitted"])
    await ledger.submit("parse")
    [duty] = await fetch(ledger.pool, DUTIES, PROJECT)
    while await Deliverer(ledger, duty, LOCAL).read():
        [duty] = await fetch(ledger.pool, DUTIES, PROJECT)
    await ledger.pool.execute("UPDATE ledger.webhook SET checkpoint = $1", checkpoint)

    with capture_logs() as logs:
        sending = asyncio.create_task(WebhookSender(ledger, LOCAL).run())
        await until(lambda: receiver.ids)

        async def is_delivered() -> bool:
            return [one.outcome for one in await deliveries(ledger)] == ["delivered"]

        await until(is_delivered)
        await until(lambda: logs)
        await ledger.webhooks.pause(webhook)
        await ledger.webhooks.resume(webhook, from_now=True)
        new = await ledger.submit("parse")
        await until(lambda: len(receiver.ids) == 2)
        sending.cancel()
    assert str(new.run_id) in receiver.requests[1][1]
    [line] = logs
    assert (line["event"], line["webhook"]) == (names.WEBHOOK_FAILED, webhook)
    assert f"webhooks pause {webhook}" in line["reason"]


async def test_a_webhook_with_a_damaged_checkpoint_keeps_nothing_from_the_others(
    ledger: Ledger, receiver: Receiver
) -> None:
    damaged, _ = await ledger.webhooks.add("https://x.example", events=["run.submitted"])
    await ledger.webhooks.add(receiver.url, events=["run.submitted"])
    damage = "UPDATE ledger.webhook SET checkpoint = 'damaged' WHERE webhook_id = $1"
    await ledger.pool.execute(damage, damaged)
    await ledger.submit("parse")

    with pytest.raises(CheckpointUnknown):
        await WebhookSender(ledger, LOCAL).once()

    assert len(receiver.ids) == 1


async def test_a_sender_that_another_has_overtaken_ends_what_it_is_sending(ledger: Ledger) -> None:
    await ledger.webhooks.add("https://x.example", events=["run.submitted"])
    held = Held()
    sender = asyncio.create_task(WebhookSender(ledger, Terms(held)).run())
    try:
        run = await ledger.submit("parse")
        await until(lambda: held.asked == 1)
        await ledger.append(run.run_id, NoteAdded(text="not told, and a place further on"))
        await ledger.pool.execute(  # as if another sender had looked as far as this
            "UPDATE ledger.webhook SET checkpoint = "
            "(SELECT generation || '/' || moment || '//0' FROM ledger.feed_now())"
        )
        await ledger.submit("parse")

        async def both_are_due() -> bool:
            return len(await deliveries(ledger)) == 2

        await until(both_are_due)
        held.go.set()

        async def ended() -> bool:
            return {one.outcome for one in await deliveries(ledger)} == {"delivered"}

        await until(ended)
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
    assert held.asked == 2


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_sender_without_webhooks_waits_for_a_database_that_is_away(
    ledger: Ledger, database: str, receiver: Receiver, *, has_begun: bool
) -> None:
    async with proxied(database) as proxy, Ledger.open(proxy.url, PROJECT) as opened:
        sender = WebhookSender(opened, LOCAL)
        if has_begun:
            await sender.tick()
        proxy.refuse_logins("57P03")
        proxy.reset()
        await sender.tick()
        proxy.refuse_logins()

        await ledger.webhooks.add(receiver.url, events=["run.submitted"])
        sending = asyncio.create_task(sender.run())
        await ledger.submit("parse")
        await until(lambda: receiver.ids)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_sender_passes_no_event_while_its_right_is_taken_away(
    ledger: Ledger, database: str, connection: asyncpg.Connection[Any]
) -> None:
    """Not even in the seconds in which it records no checkpoint."""
    await ledger.webhooks.add("https://example.com/")
    async with (
        with_login(database, "runfold_projector", rights=("read",)) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        statement = "SELECT * FROM ledger.webhook_duties($1)"
        sender = Deliverer(own, (await fetch(own.pool, statement, PROJECT))[0], LOCAL)
        await ledger.submit("parse")
        assert await sender.read()

        await grant(connection, login_of(url), ("submit",))
        await ledger.submit("parse")
        with pytest.raises(AccessDenied, match="lacks the right read or audit in project test"):
            await sender.read()

        await grant(connection, login_of(url), ("read",))
        assert await sender.read()
    assert len(await deliveries(ledger)) == 2


async def test_an_endpoint_that_is_gone_is_paused_and_no_redirect_is_followed(
    ledger: Ledger, receiver: Receiver
) -> None:
    await ledger.webhooks.add(receiver.url, events=["run.submitted"])
    await ledger.submit("parse")
    await ledger.submit("parse")
    receiver.answers, receiver.headers = [302, 410], f"location: {receiver.url}/else\r\n"

    await WebhookSender(ledger, LOCAL).once()

    assert len(receiver.requests) == 2
    assert {one.error for one in await deliveries(ledger)} == {"answered 302", "answered 410"}
    [webhook] = await ledger.webhooks.every()
    assert (webhook.is_paused, webhook.reason) == (True, "the endpoint answered 410")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1",
        "fec0::1", "3fff::1", "5f00::1", "192.88.99.1", "::ffff:169.254.169.254", "::7f00:1",
        "::ffff:0:7f00:1", "64:ff9b:1::a9fe:a9fe", "2130706433", "0x7f000001", "0177.0.0.1",
        "127.1", "localhost", "fe80::1%lo",
    ],
)  # fmt: skip
async def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match=r"not a public address|has no address"):
        await Names().public_addresses(address, 443)


async def test_a_name_is_looked_up_once_and_connected_to_as_it_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that is public when checked and private afterwards gains nothing."""
    asked: list[str] = []

    def look_up(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) > 1 else "93.184.216.34"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

    connected: list[str] = []

    async def connect(_: object, host: str, *__: object, **___: object) -> None:
        connected.append(host)
        raise OSError("not in a test")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", connect)

    answer = await Poster().post("https://rebinding.example/x", b"k" * 24, "id", "{}")
    again = await Poster().post("https://rebinding.example/x", b"k" * 24, "id", "{}")

    assert (asked, connected) == (["rebinding.example"] * 2, ["93.184.216.34"])
    assert "not in a test" in str(answer.error)
    assert again.error is not None
    assert "rebinding.example leads to 127.0.0.1, which is not a public address" in again.error
    assert "--allow-loopback" in again.error


async def test_a_name_whose_servers_are_silent_delays_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    may_answer = threading.Event()

    def look_up(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        if host != "quick.example":
            may_answer.wait(BOUND)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    names = Names()
    silent = [f"silent-{each}.example" for each in range(49)]  # and `quick`: as many as may be
    waiting = [asyncio.create_task(names.public_addresses(n, 443)) for n in silent * 8]
    try:
        await asyncio.sleep(0)  # all have asked
        waiting[0].cancel()  # its time is over
        quick = names.public_addresses("quick.example", 443)
        assert await asyncio.wait_for(quick, BOUND / 2) == ["93.184.216.34"]
        threads = [one for one in threading.enumerate() if one.name == "look up"]
        assert len(threads) >= len(silent)
        assert all(one.daemon for one in threads)  # a process ends without them
    finally:
        may_answer.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert answers[1:] == [["93.184.216.34"]] * (len(waiting) - 1)
    assert sorted(asked) == sorted([*silent, "quick.example"])


async def test_an_endpoint_has_so_much_time_and_this_machine_is_none_unless_allowed(
    receiver: Receiver, dead: str
) -> None:
    slow = await Poster(loopback=True, seconds=0.1).post(dead, b"k" * 24, "id", "{}")
    local = await Poster().post(receiver.url, b"k" * 24, "id", "{}")
    receiver.answers = [0]
    hung_up = await Poster(loopback=True).post(receiver.url, b"k" * 24, "id", "{}")

    assert slow.error == "no answer within 0.1 s"
    assert local == Answer(None, local.error, local.duration_ms)
    assert "not a public address" in str(local.error)
    assert hung_up.status is None
    assert "RemoteProtocolError" in str(hung_up.error)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com", "ftp://example.com", "https://", "https://u:p@example.com",
        "https://example.com:0", "https://exa mple.com", "https://[::1", "javascript:alert(1)",
        "https://ex\u0430mple.com", "https://x/" + "y" * 2_000,
    ],
)  # fmt: skip
def test_a_url_that_is_no_webhooks_is_refused(url: str) -> None:
    with pytest.raises(InvalidValue):
        check_url(url)


@pytest.mark.parametrize("secret", ["~~~", "whsec_YWJj", "QUJD" * 8, "whsec_!" + "A" * 43])
def test_a_weak_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        secret_bytes(secret)
    assert secret not in str(refused.value)


async def test_types_that_no_event_can_have_are_refused_in_python_and_in_sql(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    add = (
        "SELECT ledger.change_webhook($1, 'ann', NULL, 'add', 'https://x.example', $2, '{}', "
        "decode(repeat('ab', 32), 'hex'), false, NULL)"
    )
    for wrong in ("run.faild", "run", "Run.Failed", "run.failed,run.completed", "", "tool."):
        with subtests.test(wrong):
            with pytest.raises(InvalidValue):
                await ledger.webhooks.add("https://x.example", events=[wrong])
            with pytest.raises(InvalidValue):
                await fetch(ledger.pool, add, PROJECT, [wrong])
    with pytest.raises(InvalidValue, match="must be a list"):
        await ledger.webhooks.add("https://x.example", kinds="parse")
    right = [*MOVES, FIRST, "acme.page_read"]
    await ledger.webhooks.add("https://x.example", events=right)
    await fetch(ledger.pool, add, PROJECT, right)


async def test_the_secret_is_its_senders_alone_and_in_no_record(
    ledger: Ledger, database: str, receiver: Receiver
) -> None:
    _, secret = await ledger.webhooks.add(receiver.url, events=["run.submitted"], reason="r")
    key = secret_bytes(secret)
    await ledger.submit("parse")

    assert key.hex() not in str([one.facts for one in await ledger.control_history()])
    async with (
        with_login(database, "runfold_worker", rights=("work", "read", "admin")) as worker,
        Ledger.open(worker, PROJECT) as other,
    ):
        for statement in ("* FROM ledger.webhook_secret", "ledger.webhook_duties('test')"):
            with pytest.raises(AccessDenied):
                await fetch(other.pool, f"SELECT {statement}")
    async with (
        with_login(database, "runfold_projector", rights=("read",)) as sender,
        Ledger.open(sender, PROJECT) as own,
    ):
        await WebhookSender(own, LOCAL).once()
        with pytest.raises(AccessDenied):
            await own.webhooks.add("https://example.com")
    assert json.loads(receiver.requests[0][1])["type"] == "run.submitted"
