"""Handlers: what can be one, and how input and output are held to their annotations."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from runfold.ledger import Ledger, State
from runfold.ledger.errors import InvalidValue
from runfold.workers import Backoff, BlockingContext, Context, Fail, Handlers, Worker, handler
from runfold.workers.process.loading import load
from tests.support.working import done


class Order(BaseModel):
    """A typed input."""

    number: str
    on: date


@dataclass
class Receipt:
    """A typed output."""

    amount: int
    on: date


@handler("refund")
async def refund(ctx: Context, order: Order) -> Receipt:
    return Receipt(len(order.number), order.on)


@handler("parse")
def parse(ctx: BlockingContext, path: str) -> dict[str, int]:
    return {path: ctx.attempt}


async def test_input_and_output_have_the_types_of_the_annotations(ledger: Ledger) -> None:
    run = await done(ledger, refund, {"number": "A-17", "on": "2026-01-31"})

    assert (run.state, run.output) == (State.COMPLETED, {"amount": 4, "on": "2026-01-31"})


async def test_a_plain_function_runs_in_a_thread(ledger: Ledger) -> None:
    assert (await done(ledger, parse, "a.py")).output == {"a.py": 1}


async def test_a_handler_can_be_called_as_the_function_that_it_is() -> None:
    assert parse.kind == "parse"
    order = Order(number="A", on=date(2026, 1, 1))
    receipt = await refund(None, order)  # type: ignore[arg-type]  # the function ignores it
    assert receipt == Receipt(1, date(2026, 1, 1))


async def test_input_that_does_not_fit_fails_the_run_at_once_and_says_why(ledger: Ledger) -> None:
    run = await done(ledger, refund, {"number": "A-17"})

    assert (run.state, run.error_code, run.attempt_count) == (State.FAILED, "E-RUN-005", 1)
    assert "Field required" in run.error_detail


@handler("wrong")
async def wrong(ctx: Context) -> int:
    return "seven"  # type: ignore[return-value]  # what the test is about


@handler("strange")
async def strange(ctx: Context) -> Any:
    return object()


@handler("huge")
async def huge(ctx: Context) -> str:
    return "x" * 70_000


@handler("not-a-number")
async def not_a_number(ctx: Context) -> Any:
    return "\udc00"


async def test_an_output_that_cannot_be_recorded_fails_the_run_and_says_why(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for bad in (wrong, strange, huge, not_a_number):
        with subtests.test(bad.kind):
            run = await done(ledger, bad)

            assert (run.state, run.error_code, run.attempt_count) == (State.FAILED, "E-RUN-006", 1)
            assert run.error_detail


@handler("either")
async def either(ctx: Context, fails: bool) -> Receipt | Fail:  # noqa: FBT001  an input
    return Fail("E-CARD", {"card": "expired"}) if fails else Receipt(1, date(2026, 1, 1))


async def test_an_outcome_beside_the_output_is_no_part_of_its_type(ledger: Ledger) -> None:
    failed = await done(ledger, either, True)
    completed = await done(ledger, either, False)

    assert (failed.state, failed.error_code, failed.error_detail) == (
        State.FAILED,
        "E-CARD",
        {"card": "expired"},
    )
    assert completed.output == {"amount": 1, "on": "2026-01-01"}


def test_two_handlers_of_one_kind_are_refused() -> None:
    @handler("parse")
    async def again(ctx: Context) -> None: ...

    with pytest.raises(InvalidValue, match="two handlers are for this kind"):
        Handlers([parse, again])


def test_what_is_no_function_is_refused() -> None:
    async def generator(ctx: Context) -> AsyncIterator[int]:
        yield 1

    def plain_generator(ctx: Context) -> Iterator[int]:
        yield 1

    for wrong_one in (
        generator,
        plain_generator,
        Order,
        "text",
        dict.get,
        lambda: None,
        lambda *_: None,
        lambda *, _: None,
    ):
        with pytest.raises(InvalidValue, match="handler"):
            handler("kind")(wrong_one)  # type: ignore[arg-type]  # what the test is about


def test_a_function_that_was_not_decorated_is_refused() -> None:
    def bare(ctx: Context) -> None: ...

    with pytest.raises(InvalidValue, match="decorate the function"):
        Handlers([bare])  # type: ignore[list-item]  # what the test is about


def test_the_context_of_the_other_kind_of_function_is_refused() -> None:
    def plain(ctx: Context) -> None: ...

    with pytest.raises(InvalidValue, match="its context is a BlockingContext"):
        handler("kind")(plain)


def test_an_annotation_that_cannot_be_checked_is_refused() -> None:
    class Unknown: ...

    async def takes(ctx: Context, given: Unknown) -> None: ...

    takes.__annotations__["given"] = Unknown
    with pytest.raises(InvalidValue, match="Pydantic cannot check"):
        handler("kind")(takes)
    takes.__annotations__["given"] = "Nowhere"
    with pytest.raises(InvalidValue, match="cannot be read"):
        handler("kind")(takes)


def test_a_module_gives_its_handlers() -> None:
    module = types.ModuleType("tasks")
    with pytest.raises(InvalidValue, match="has no handler"):
        Handlers(module)
    vars(module).update(parse=parse, again=parse, other=1, refund=refund)

    assert set(Handlers(module)) == {"parse", "refund"}


async def test_a_kind_without_a_handler_cannot_be_asked_for(ledger: Ledger) -> None:
    with pytest.raises(InvalidValue, match="has no handler here; those there are: parse, refund"):
        Worker(ledger, [parse, refund], kinds=["parse", "draw"])
    with pytest.raises(InvalidValue, match="must be a list of kinds"):
        Worker(ledger, [parse, refund], kinds="parse")


async def test_runs_of_other_kinds_are_left_to_other_workers(ledger: Ledger) -> None:
    other = await ledger.submit("draw")
    await done(ledger, parse, "a.py")

    assert (await ledger.get(other.run_id)).version == 1


def test_a_backoff_grows_to_its_limit_in_seconds_or_durations() -> None:
    for backoff in (
        Backoff(2, 3, 30, 0),
        Backoff(timedelta(seconds=2), 3, timedelta(seconds=30), 0),
    ):
        assert [backoff.delay(attempt) for attempt in (1, 2, 3, 4, 400)] == [2, 6, 18, 30, 30]
    assert 15 <= Backoff(30, 1, 30, 0.5).delay(1) <= 30
    for wrong in ({"first": -1}, {"limit": "soon"}, {"factor": 0.5}, {"jitter": 2}):
        with pytest.raises(InvalidValue):
            Backoff(**wrong)


def test_a_module_that_ends_the_program_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quits.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(InvalidValue, match=r"quits.*ends the program \(exit 3\)"):
        load("quits")
