"""NaN and infinity are refused on every road into the history, whatever a type's own settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from runfold import Context, Fail, Ledger, Retry, Run, State, Submit, handler
from runfold.ledger.errors import InvalidValue
from runfold.workers import Handler
from tests.support.working import done, ended, working

NAN, INFINITY = float("nan"), float("inf")


class Plain(BaseModel):
    """A model without settings: Pydantic writes its NaN as null."""

    score: float


class AsNull(BaseModel):
    """A model that asks for null."""

    model_config = ConfigDict(ser_json_inf_nan="null")
    score: float


class AsText(BaseModel):
    """A model that asks for text, which would come back as a number of its own."""

    model_config = ConfigDict(ser_json_inf_nan="strings", allow_inf_nan=True)
    score: float


class Within(BaseModel):
    """A model that holds another one, and anything."""

    part: AsNull | None = None
    other: Any = None


@dataclass
class Record:
    """A dataclass."""

    score: float


Returns = Callable[[], Any]


def nan() -> float:
    return NAN


def infinities() -> list[float]:
    return [INFINITY, -INFINITY]


def plain() -> Plain:
    return Plain(score=NAN)


def as_null() -> AsNull:
    return AsNull(score=INFINITY)


def as_text() -> AsText:
    return AsText(score=NAN)


def within() -> Within:
    return Within(part=AsNull(score=NAN))


def within_anything() -> Within:
    return Within(other=Plain(score=NAN))


def record() -> Record:
    return Record(-INFINITY)


def undeclared():  # type: ignore[no-untyped-def]  # noqa: ANN201  its type is what is tested
    return {"scores": [AsNull(score=NAN)]}


VALUES = (nan, infinities, plain, as_null, as_text, within, within_anything, record, undeclared)


async def by_output(_: Context, make: Returns) -> Any:
    return make()


async def by_step(ctx: Context, make: Returns) -> Any:
    return str(await ctx.step("score", make))


async def by_tool(ctx: Context, make: Returns) -> Any:
    return str(await ctx.tool("score", make))


async def by_tool_input(ctx: Context, make: Returns) -> Any:
    return await ctx.tool("score", lambda _: "done", make())


async def by_parked_tool(ctx: Context, make: Returns) -> Any:
    return await ctx.tool("score", make, park=True)


async def by_approval(ctx: Context, make: Returns) -> Any:
    return (await ctx.approval("score?", show=make())).actor


async def by_child(ctx: Context, make: Returns) -> Any:
    return await ctx.child("nobody", make())


ROADS = (by_output, by_step, by_tool, by_tool_input, by_parked_tool, by_approval, by_child)


async def test_a_handler_records_no_value_that_is_no_number(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    ways = [taking(road, make) for make in VALUES for road in ROADS]
    for way, run in await each_done(ledger, ways):
        with subtests.test(way.kind):
            assert run.state is State.FAILED
            assert run.error_code in {"E-RUN-004", "E-RUN-006"}


async def each_done(
    ledger: Ledger, handlers: Sequence[Handler[..., Any]]
) -> list[tuple[Handler[..., Any], Run]]:
    """Return each handler with a run that one worker of all of them has brought to its end."""
    runs = await ledger.submit_many([Submit(kind=one.kind, max_attempts=1) for one in handlers])
    async with working(ledger, *handlers):
        return [
            (one, await ended(ledger, run.run_id)) for one, run in zip(handlers, runs, strict=True)
        ]


def taking(road: Any, make: Returns) -> Handler[..., Any]:
    """Return a handler that takes a value down a road."""

    @handler(f"{make.__name__} {road.__name__}")
    async def scored(ctx: Context) -> Any:
        return await road(ctx, make)

    return scored


async def test_a_declared_output_that_is_no_number_is_refused(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for way, run in await each_done(ledger, [declaring(make) for make in VALUES]):
        with subtests.test(way.kind):
            assert (run.state, run.error_code) == (State.FAILED, "E-RUN-006")


def declaring(make: Returns) -> Handler[..., Any]:
    """Return a handler that gives a value, and declares the type that its maker declares."""

    async def scored(_: Context) -> Any:
        return make()

    scored.__annotations__["return"] = make.__annotations__.get("return", "Any")
    return handler(make.__name__)(scored)


@pytest.mark.parametrize("ending", [Fail, Retry])
async def test_the_detail_of_a_failure_says_that_it_is_no_number(
    ledger: Ledger, ending: type[Fail | Retry]
) -> None:
    @handler("scored")
    async def scored(_: Context) -> Any:
        return ending(error_code="low", detail={"score": NAN})

    run = await done(ledger, scored, max_attempts=1)

    assert (run.state, run.error_code) == (State.FAILED, "low")
    assert "NaN" in str(run.error_detail)


async def test_a_program_hands_over_no_value_that_is_no_number(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for value in [NAN, [INFINITY], {"score": NAN}, AsNull(score=NAN)]:
        with subtests.test(f"{value}"):
            run = await ledger.submit("score")
            with pytest.raises(InvalidValue):
                await ledger.submit("score", value)
            with pytest.raises(InvalidValue):
                await ledger.submit_many([{"kind": "score", "input": value}])
            with pytest.raises(InvalidValue):
                await ledger.signal(run.run_id, "score", value)
            [lease] = await ledger.claim("w")
            with pytest.raises(InvalidValue):
                await ledger.complete(lease, value)
            with pytest.raises(InvalidValue):
                await ledger.ask_tool(lease, "score", value)
            with pytest.raises(InvalidValue):
                await ledger.ask_approval(lease, "score?", show=value)
            with pytest.raises(InvalidValue):
                await ledger.fail(lease, "low", error_detail=value)
            with pytest.raises(InvalidValue):
                await ledger.retry(lease, error_detail=value)


async def test_what_an_approval_shows_is_json_or_refused(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for value in (object(), {"name": "\ud800"}, {1: "one"}):
        with subtests.test(f"{value}"):
            await ledger.submit("score")
            [lease] = await ledger.claim("w")
            with pytest.raises(InvalidValue, match="show"):
                await ledger.ask_approval(lease, "score?", show=value)
            with pytest.raises(InvalidValue, match="prompt"):
                await ledger.ask_approval(lease, "\ud800")
            run = await ledger.ask_approval(lease, "score?", show=Plain(score=1))

            assert run.state is State.WAITING_APPROVAL
