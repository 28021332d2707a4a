"""One table of values, three doors: the Python API, the SQL functions and the command line agree.

Each case names a field, a value and whether it is taken. Whatever is taken can be read by
everybody.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final, NamedTuple

import asyncpg
import pytest
import structlog

from runfold import Ledger
from runfold.console.cli.kit import exits
from runfold.console.cli.main import main
from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.errors import InvalidValue, LedgerError
from runfold.events import NoteAdded
from runfold.ledger.payload import MAX_BITS, MAX_DEPTH
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.validation import MAX_TEXT
from tests.support.databases import PROJECT
from tests.support.logins import with_login
from tests.support.web import calling


class Case(NamedTuple):
    """A value in a field of a submit, and the verdict."""

    field: str
    value: Any
    taken: bool


NAMES = ("kind", "key", "actor", "tag")
TEXTS = {
    "short": ("x", True),
    "as long as may be": ("x" * MAX_TEXT, True),
    "one too long": ("x" * (MAX_TEXT + 1), False),
    "too long by blanks": ("x" * MAX_TEXT + " ", False),
    "empty": ("", False),
    "of many scripts": ("ü\"\\'{}:%s $1 東京 \N{ROCKET}", True),
    "a control character": ("a\x1bb", False),
    "a newline": ("a\nb", False),
    "delete": ("a\x7fb", False),
    "a C1 control": ("a\x9bb", False),
    "a turn of direction": ("a\u202eb", False),
    "an isolate": ("a\u2066b", False),
    "no width": ("a\u200bb", False),
    "a byte order mark": ("\ufeffab", False),
}
BLANKS = {
    "a blank before": " x",
    "a blank after": "x ",
    "a wide blank after": "x\u3000",
    "a separator of lines after": "x\u2028",
    "a separator of paragraphs before": "\u2029x",
}


def nested(levels: int) -> Any:
    """Return lists in lists, so many levels."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


INPUTS: dict[str, tuple[Any, bool]] = {
    "text": ("hello", True),
    "all that JSON has": ({"a": [1, 2.5, None, True, {"x": "ü"}], "": 0}, True),
    "as deep as may be": (nested(MAX_DEPTH), True),
    "one level too deep": (nested(MAX_DEPTH + 1), False),
    "objects too deep": (json.loads('{"a":' * 40 + "1" + "}" * 40), False),
    "many brackets side by side": ([[] for _ in range(200)], True),
    "brackets in a text": ("[{" * 200, True),
    "the largest whole number": (2**MAX_BITS - 1, True),
    "a larger whole number": (2**MAX_BITS, False),
    "the least whole number": (-(2**MAX_BITS) + 1, True),
    "a lesser whole number": (-(2**MAX_BITS), False),
    "digits in a text": ("9" * 1_000, True),
    "a small number": (1e-300, True),
    "a large number": (1.7e308, True),
    "NUL": ("a\x00b", False),
    "NUL in a name": ({"a\x00b": 1}, False),
    "a backslash before u0000": ("c:\\u0000", True),
    "a lone surrogate": ("cut \ud83d", False),
    "a surrogate in a name": ({"\udfff": 1}, False),
    "a rocket": ("\N{ROCKET}", True),
}


def generated() -> Iterator[tuple[str, Case]]:
    """Generate the table."""
    for name, (text, taken) in TEXTS.items():
        for field in NAMES:
            yield f"{field}: {name}", Case(field, text, taken)
    for name, text in BLANKS.items():
        for field in NAMES:
            taken = field in {"key", "tag"}
            yield f"{field}: {name}", Case(field, text, taken)
    for name, (value, taken) in INPUTS.items():
        yield f"input: {name}", Case("input", value, taken)
    for name, value, taken in (
        ("none", 0, True), ("the most", 2**31 - 2, True), ("too many", 2**31 - 1, False),
        ("negative", -1, False),
    ):  # fmt: skip
        yield f"priority: {name}", Case("priority", value, taken)
    for name, value, taken in (("none", 0, False), ("one", 1, True), ("too many", 1_001, False)):
        yield f"max_attempts: {name}", Case("max_attempts", value, taken)
    for name, value, taken in (("fifty", 50, True), ("too many", 51, False)):
        tags = [f"t{number}" for number in range(value)]
        yield f"tags: {name}", Case("tags", tags, taken)


CASES: Final = list(generated())
_INVALID: Final = asyncpg.InvalidParameterValueError


@pytest.fixture
async def worker(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A worker's login with every right that its functions ask for, in anybody's name."""
    rights = ("submit", "work", "read", "decide", "schedule", "admin")
    async with with_login(database, "runfold_worker", rights=rights) as url:
        opened = await asyncpg.connect(driver_url(url))
        yield opened
        await opened.close()


Door = Callable[[Ledger, asyncpg.Connection, Case], Awaitable[bool]]
_SUBMIT = (
    "SELECT run_id FROM ledger.submit($1, $2, ARRAY[$3::text], ARRAY[$4::text], ARRAY[$5::text],"
    " ARRAY[$6::int], NULL, ARRAY[$7::int], NULL, NULL, ARRAY[$8::text])"
)


async def through_python(ledger: Ledger, _: asyncpg.Connection, case: Case) -> bool:
    given: dict[str, Any] = {"kind": "parse", "input": 1}
    given |= {"tags": [case.value]} if case.field == "tag" else {case.field: case.value}
    try:
        await ledger.submit(**given)
    except LedgerError:
        return False
    return True


async def through_sql(_: Ledger, connection: asyncpg.Connection, case: Case) -> bool:
    given: dict[str, Any] = {
        "actor": "ann", "kind": "parse", "input": 1, "key": None, "priority": 0, "max_attempts": 3,
        "tags": [],
    }  # fmt: skip
    given |= {"tags": [case.value]} if case.field == "tag" else {case.field: case.value}
    quoted = ('"' + tag.replace("\\", "\\\\").replace('"', '\\"') + '"' for tag in given["tags"])
    body = json.dumps({"input": given["input"]})  # with escapes, as other languages write it
    arguments = (
        given["actor"], given["kind"], body, given["key"], given["priority"], given["max_attempts"],
        "{" + ",".join(quoted) + "}",
    )  # fmt: skip
    try:
        await connection.fetch(_SUBMIT, PROJECT, *arguments)
    except asyncpg.DataError:  # the value's fault, and no accident's
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("door", [through_python, through_sql])
async def test_what_one_door_refuses_every_door_refuses(
    ledger: Ledger, worker: asyncpg.Connection, door: Door, subtests: pytest.Subtests
) -> None:
    for name, case in CASES:
        with subtests.test(name):
            before = {run.run_id for run in await ledger.runs(limit=1_000)}

            assert await door(ledger, worker, case) == case.taken

            new = [run for run in await ledger.runs(limit=1_000) if run.run_id not in before]
            assert len(new) == case.taken
            leases = await ledger.claim("w")
            assert [lease.run_id for lease in leases] == [run.run_id for run in new]
            if case.taken and case.field == "input":
                assert new[0].input == leases[0].input == case.value


def test_the_command_line_takes_and_refuses_the_same(
    database: str, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for name, case in CASES:
        capsys.readouterr()
        with subtests.test(name):
            _takes_or_refuses(database, capsys, case)


def _takes_or_refuses(database: str, capsys: pytest.CaptureFixture[str], case: Case) -> None:
    kind, values, options = "parse", [], []
    match case.field:
        case "kind":
            kind = case.value
        case "input":
            values = [json.dumps(case.value)]
        case "tags":
            options = [f"--tag={tag}" for tag in case.value]
        case field:
            options = [f"--{field.replace('_', '-')}={case.value}"]
    try:
        code = main(
            ["--url", database, "--project", PROJECT, "submit", *options, "--", kind, *values]
        )
    finally:
        structlog.reset_defaults()

    assert (code == exits.OK) == case.taken, capsys.readouterr()
    if not case.taken:
        assert code == exits.USAGE
        assert len(capsys.readouterr().err.splitlines()) == 1


_CLAIM: Final = "SELECT * FROM ledger.claim($1, $2, NULL, 1, '1 min')"
_CLAIM_OF: Final = "SELECT * FROM ledger.claim($1, 'w', ARRAY[$2], 1, '1 min')"


async def test_a_worker_and_the_kind_of_a_claim_are_the_same_through_both_doors(
    ledger: Ledger, worker: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    names = TEXTS | {name: (text, False) for name, text in BLANKS.items()}
    names |= {"blanks alone": ("  ", False), "a blank within": ("a b", True)}
    for name, (text, taken) in names.items():
        with subtests.test(name):
            verdict = nullcontext() if taken else pytest.raises(InvalidValue)
            with verdict:
                await ledger.claim(text)
            with verdict:
                await ledger.claim("w", kinds=[text])
            for statement in (_CLAIM, _CLAIM_OF):
                with nullcontext() if taken else pytest.raises(_INVALID):
                    await worker.fetch(statement, PROJECT, text)


EVENTS = {
    "a type of one's own": ("acme.page_read2", 1, True),
    "a later version of one's own": ("acme.page_read2", 7, True),
    "a note": ("note.added", 1, True),
    "a note of a version that there is not": ("note.added", 99, False),
    "a signal of a version that there is not": ("signal.received", 2, False),
    "upper case": ("Acme.read", 1, False),
    "one word": ("acme", 1, False),
    "no width": ("approval\u200b.granted", 1, False),
    "nothing": ("", 1, False),
    "too long": ("acme." + "x" * 80, 1, False),
    "an end": ("run.completed", 1, False),
    "a request to cancel": ("cancel.requested", 1, False),
    "a refusal": ("write.refused", 1, False),
    "an erasure": ("payload.erased", 1, False),
}


async def test_an_event_of_a_type_that_python_does_not_append_is_kept_by_no_function(
    ledger: Ledger, worker: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    append = (
        "SELECT * FROM ledger.append($1, 'ann', ARRAY[$2::uuid], NULL, ARRAY[$3::text],"
        " ARRAY[$4::int], ARRAY['x'], NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    for name, (type_, version, taken) in EVENTS.items():
        with subtests.test(name):
            run = await ledger.submit("parse")

            try:
                rows = await worker.fetch(append, PROJECT, run.run_id, type_, version)
            except asyncpg.InvalidParameterValueError:
                rows = []

            assert len(rows) == taken
            assert len(await ledger.history(run.run_id)) == 1 + taken


async def test_a_name_that_python_refuses_is_refused_by_every_function(
    ledger: Ledger, worker: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")
    bad = "x\x1by"
    moved = "$1, ARRAY[$2], ARRAY[$3::uuid], NULL, '{cancelled}'" + ", NULL" * 11
    calls = {
        "claim": ("SELECT * FROM ledger.claim($1, $2, NULL, 1, '1 min')", (bad,)),
        "claim of a kind": ("SELECT * FROM ledger.claim($1, 'w', ARRAY[$2], 1, '1 min')", (bad,)),
        "cancel": ("SELECT * FROM ledger.cancel($1, $2, ARRAY[$3::uuid], NULL)", (bad, run.run_id)),
        "signal": (
            "SELECT * FROM ledger.signal($1, 'ann', $3, $2, NULL, NULL, NULL)",
            (bad, run.run_id),
        ),
        "refuse": (
            "SELECT * FROM ledger.refuse($1, $2, 'x', ARRAY[$3::uuid], '{9}')",
            (bad, run.run_id),
        ),
        "transition": (f"SELECT * FROM ledger.transition({moved})", (bad, run.run_id)),
        "change of a kind": (
            "SELECT * FROM ledger.change_kind($1, 'ann', $2, 'kind.paused', NULL, NULL)",
            (bad,),
        ),
    }
    for name, (statement, arguments) in calls.items():
        with pytest.raises(asyncpg.PostgresError, match="control characters") as caught:
            await worker.fetch(statement, PROJECT, *arguments)
        assert caught.value.sqlstate == "22023", name

    assert len(await ledger.history(run.run_id)) == 1
    with pytest.raises(LedgerError, match="control characters"):
        await ledger.append(run.run_id, NoteAdded(name=bad))


_ASK = (
    "SELECT * FROM ledger.transition($1, '{w}', ARRAY[$2::uuid], ARRAY[$3::int],"
    " '{waiting_approval}', '{true}', NULL, NULL, NULL, NULL, NULL, NULL, '{60}', ARRAY[$4],"
    " NULL, NULL, '{w}')"
)


OUTCOMES = {
    "cancelled": True, "timeout": True, "lapsed": True, "failed": False, "Lapsed": False, "": False,
}  # fmt: skip


async def test_what_may_become_of_an_undecided_approval_is_the_same_through_every_door(
    ledger: Ledger, connection: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    for door, (outcome, taken) in product(("python", "sql"), OUTCOMES.items()):
        with subtests.test(door=door, outcome=outcome):
            run = await ledger.submit("parse")
            [lease] = await ledger.claim("w")
            verdict = nullcontext() if taken else pytest.raises((LedgerError, asyncpg.DataError))
            with verdict as caught:
                if door == "python":
                    await ledger.ask_approval(lease, "Sure?", wait=60, wait_outcome=outcome)
                else:
                    await connection.fetch(_ASK, PROJECT, run.run_id, lease.token, outcome)

            assert caught is None or "must be cancelled, timeout or lapsed" in str(caught.value)
            state = (await ledger.get(run.run_id)).state
            assert state == ("waiting_approval" if taken else "running")


_NULLS = {
    "submit, p_actor": "submit($1, NULL, '{raw}', NULL, NULL, '{0}', NULL, '{3}'" + ", NULL" * 3,
    "submit, p_kinds": "submit($1, 'ann', '{NULL}', NULL, NULL, '{0}', NULL, '{3}'" + ", NULL" * 3,
    "submit, no p_kinds": "submit($1, 'ann', NULL, NULL, NULL, '{0}', NULL, '{3}'" + ", NULL" * 3,
    "submit, p_priorities": "submit($1, 'ann', '{a,b}', NULL, NULL, '{0,NULL}', NULL, '{3,3}'"
    + ", NULL" * 3,
    "submit, too few p_priorities": "submit($1, 'ann', '{a,b}', NULL, NULL, '{0}', NULL, '{3,3}'"
    + ", NULL" * 3,
    "submit, p_max_attempts": "submit($1, 'ann', '{raw}', NULL, NULL, '{0}', NULL, '{NULL}'"
    + ", NULL" * 3,
    "claim, p_worker": "claim($1, NULL, NULL, 1, '1 min'",
    "reap, p_actor": "reap($1, NULL, 100",
    "cancel, p_actor": "cancel($1, NULL, ARRAY[$2::uuid], NULL",
    "signal, p_actor": "signal($1, NULL, $2, 'go', NULL, NULL, NULL",
    "signal, p_name": "signal($1, 'ann', $2, NULL, NULL, NULL, NULL",
    "refuse, p_actor": "refuse($1, NULL, 'x', ARRAY[$2::uuid], '{9}'",
    "append, p_actor": "append($1, NULL, ARRAY[$2::uuid], NULL, '{note.added}', '{1}'"
    + ", NULL" * 7,
    "append, p_runs": "append($1, 'ann', NULL, NULL, '{acme.page_read}'",
    "append, p_schema_versions": "append($1, 'ann', ARRAY[$2::uuid], NULL, '{a.b}', '{NULL}'",
    "change_kind, p_actor": "change_kind($1, NULL, 'raw', 'kind.paused', NULL, NULL",
    "change_kind, p_kind": "change_kind($1, 'ann', NULL, 'kind.paused', NULL, NULL",
    "change_kind, p_type": "change_kind($1, 'ann', 'raw', NULL, NULL, NULL",
    "put_schedule, p_cron": "put_schedule($1, 'ann', 'a', 'raw', NULL, NULL, 'UTC', now()",
    "put_schedule, p_next_at": "put_schedule($1, 'ann', 'a', 'raw', NULL, '* * * * *', 'UTC', NULL",
}


async def test_an_argument_that_is_null_and_must_not_be_is_named(
    ledger: Ledger, worker: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    for name, call in _NULLS.items():
        with subtests.test(name):
            run = await ledger.submit("parse")
            statement = f"SELECT * FROM ledger.{call})"
            arguments = [PROJECT, run.run_id][: 1 + ("$2" in statement)]

            with pytest.raises(asyncpg.InvalidParameterValueError) as caught:
                await worker.fetch(statement, *arguments)

            assert name.rsplit(maxsplit=1)[-1] in str(caught.value)


_SUBMIT_ODD = "submit('test', 'ann', '{{a}}', NULL, NULL, {0}, {1}, {2}, NULL, {3}, NULL)"
_LIMITED: Final = {
    "claim takes": (
        "claim('test', 'w:1', NULL, {}, {})",
        ("1", "'1 min'"),
        (("NULL", "0", "-1", "10001"), ("NULL", "'0'", "'-1 s'", "'1 day 1 us'")),
    ),
    "sweep takes": ("reap('test', 'reaper', {})", ("1",), (("NULL", "0", "-1", "10001"),)),
    "outside its limits": (
        _SUBMIT_ODD,
        ("'{0}'", "'{0}'", "'{1}'", "'{1 s}'"),
        (
            ("'{-1}'", "'{2147483647}'"),
            ("'{-1 us}'", "'{3651 days}'"),
            ("'{0}'", "'{1001}'"),
            ("'{-1 us}'", "'{3651 days}'"),
        ),
    ),
}
"""By what its refusal says: a call, what is right for its places, and what is not."""


async def test_each_limit_of_a_call_is_refused_alone(
    worker: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    for words, (call, right, wrong) in _LIMITED.items():
        for place, odd in ((n, odd) for n, odds in enumerate(wrong) for odd in odds):
            given = [odd if n == place else one for n, one in enumerate(right)]
            with (
                subtests.test(call.format(*given)),
                pytest.raises(asyncpg.InvalidParameterValueError, match=words),
            ):
                await worker.fetch(f"SELECT ledger.{call.format(*given)}")


_TIMES = {
    "a grant's end": "change_access('test', 'ann', 'bob', '{read}', NULL, $1, NULL)",
    "a schedule's next time": "put_schedule('test', 'ann', 'a', 'b', NULL, '* * * * *', 'UTC', $1)",
    "a schedule's release": "put_schedule('test', 'ann', 'a', 'b', NULL, '* * * * *', 'UTC',"
    " now(), $1)",
    "a schedule's move": "advance_schedule('test', 'a', now(), now(), $1, now())",
    "a schedule's last time": "advance_schedule('test', 'a', now(), now(), now(), $1)",
    "a run's deadline": "submit('test', 'worker', '{a}', '{null}', '{null}', '{0}', '{null}',"
    " '{3}', ARRAY[$1::timestamptz], '{null}', '{null}')",
}


async def test_a_time_that_a_reader_could_not_read_is_refused(
    ledger: Ledger, worker: asyncpg.Connection, subtests: pytest.Subtests
) -> None:
    for name, call in _TIMES.items():
        with subtests.test(name):
            for odd in ("infinity", "-infinity", "0001-01-01 BC", "1969-12-31Z", "294276-01-01Z"):
                statement = f"SELECT ledger.{call}".replace("$1", f"'{odd}'")
                with pytest.raises(asyncpg.InvalidParameterValueError, match="1970 and 9000"):
                    await worker.fetch(statement)


_DEADLINE: Final = _TIMES["a run's deadline"]


async def test_the_limits_of_a_time_are_the_same_in_every_time_zone(
    ledger: Ledger, worker: asyncpg.Connection
) -> None:
    last, beyond = datetime(9000, 12, 31, 23, tzinfo=UTC), datetime(9001, 1, 1, 1, tzinfo=UTC)
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        await worker.execute(f"SET TimeZone = '{zone}'")
        for deadline, refusal in ((last, nullcontext()), (beyond, pytest.raises(_INVALID))):
            with refusal:
                await worker.fetch(f"SELECT ledger.{_DEADLINE}", deadline)
    assert [run.deadline for run in await ledger.runs()] == [last, last]


async def test_a_grant_ends_in_a_year_that_every_reader_can_read(ledger: Ledger) -> None:
    for odd in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        with pytest.raises(InvalidValue, match="until"):
            await ledger.grant_access("bob", ["read"], until=odd)


_ORDERS: Final = {
    "pause": "change_kind($1, 'ann', $2, 'kind.paused', NULL, NULL, $3)",
    "resume": "change_kind($1, 'ann', $2, 'kind.resumed', NULL, NULL, $3)",
    "limit": "change_kind($1, 'ann', $2, 'kind.limited', 3, NULL, $3)",
    "schedule": "put_schedule($1, 'ann', $2, $2, NULL, '0 3 * * *', 'UTC', now(), NULL, $3)",
}


async def test_an_order_about_a_kind_that_nobody_has_seen_is_refused_through_every_door(
    ledger: Ledger,
    worker: asyncpg.Connection,
    database: str,
    capsys: pytest.CaptureFixture[str],
    subtests: pytest.Subtests,
) -> None:
    await ledger.submit("parse")
    calls: dict[str, Callable[..., Awaitable[Any]]] = {
        "pause": ledger.pause_kind,
        "resume": ledger.resume_kind,
        "limit": lambda kind, ahead: ledger.limit_kind(kind, 3, ahead=ahead),
        "schedule": lambda kind, ahead: ledger.schedule(kind, kind, cron="0 3 * * *", ahead=ahead),
    }
    bodies: dict[str, dict[str, Any]] = {
        "limit": {"max_running": 3}, "schedule": {"kind": "", "cron": "0 3 * * *"},
    }  # fmt: skip
    where = ["--url", database, "--project", PROJECT]

    async def by_sql(order: str, kind: str, *, ahead: bool) -> None:
        await worker.fetch(f"SELECT ledger.{_ORDERS[order]}", PROJECT, kind, ahead)

    async def by_python(order: str, kind: str, *, ahead: bool) -> None:
        await calls[order](kind, ahead=ahead)

    async def by_command(order: str, kind: str, *, ahead: bool) -> None:
        words = ["kinds", order, kind, *(["3"] if order == "limit" else [])]
        if order == "schedule":
            words = ["schedules", "add", kind, kind, "--cron", "0 3 * * *"]
        code = await asyncio.to_thread(main, [*where, *words, *(["--ahead"] if ahead else [])])
        structlog.reset_defaults()
        if code == exits.NOT_FOUND:
            raise LedgerError(capsys.readouterr().err)
        assert code == exits.OK

    async def by_http(order: str, kind: str, *, ahead: bool) -> None:
        body = bodies.get(order, {}) | {"ahead": ahead}
        path = f"/v1/schedules/{kind}" if order == "schedule" else f"/v1/kinds/{kind}/{order}"
        body |= {"kind": kind} if order == "schedule" else {}
        answer = await web.request("PUT" if order == "schedule" else "POST", path, json=body)
        if answer.status_code == 404:
            assert answer.json()["code"] == "unknown-kind"
            raise LedgerError(answer.json()["detail"])
        assert answer.is_success

    async with calling(app(ledger, Options(open=True))) as web:
        for order, door in product(_ORDERS, (by_sql, by_python, by_command, by_http)):
            with subtests.test(order=order, door=door.__name__):
                with pytest.raises((LedgerError, asyncpg.PostgresError), match="ahead") as caught:
                    await door(order, "pasre", ahead=False)
                assert "pasre" in str(caught.value)
                await door(order, "parse", ahead=False)
                await door(order, f"{order}-{door.__name__}", ahead=True)
                await door(order, f"{order}-{door.__name__}", ahead=False)  # known from now on
    assert "pasre" not in {kind.kind for kind in await ledger.kinds()}
    assert await ledger.claim("w", kinds=["pasre"]) == []  # a worker may be there first
    assert (await ledger.submit("pasre")).state == "pending"
