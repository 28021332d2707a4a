"""Handlers: ordinary functions, each for one kind of run, typed by their annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType, UnionType
from typing import (
    Any,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import PydanticUserError, TypeAdapter

from runfold.ledger.cron import check_cron
from runfold.ledger.errors import InvalidValue
from runfold.ledger.schedules import MAX_NAME
from runfold.ledger.validation import check_text
from runfold.workers.backoff import Backoff
from runfold.workers.blocking import BlockingContext
from runfold.workers.context import Context
from runfold.workers.journal.json_values import adapter_of_type
from runfold.workers.outcomes import OUTCOMES

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Handler(Generic[P, T]):
    """A function that does the runs of one kind; calling it calls the function."""

    kind: str
    function: Callable[P, T]
    backoff: Backoff
    blocking: bool
    """The function is plain: it runs in a thread, with a BlockingContext."""
    takes_input: bool
    has_default: bool
    """The function can be called without the input."""
    input: TypeAdapter[Any]
    output: TypeAdapter[Any]
    cron: str | None = None
    timezone: str = "UTC"
    version: str | None = None
    """A run goes on under the version that began it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function."""
        return self.function(*args, **kwargs)


def handler(
    kind: str,
    *,
    retry: Backoff | None = None,
    cron: str | None = None,
    timezone: str = "UTC",
    version: str | None = None,
) -> Callable[[Callable[P, T]], Handler[P, T]]:
    """Make a handler of `async def f(ctx: Context, input: In) -> Out`, or of a `def` in a thread.

    Input and output are checked against the annotations: Pydantic models, dataclasses, plain types;
    the input may be left out. `retry` is the backoff of the kind. With `cron` its workers keep a
    schedule named as the kind, without input. `version`: change it with the order of the calls; a
    run that has calls on record is then given back to a process that has the version it began
    with. Raises InvalidValue for what cannot be a handler.
    """
    check_text("kind", kind)
    if version is not None:
        check_text("version", version)
    if cron is not None:
        check_text("kind of a schedule", kind, limit=MAX_NAME)
        check_cron(cron, timezone)

    def made(function: Callable[P, T]) -> Handler[P, T]:
        return _handler(
            function,
            kind,
            retry or Backoff(),
            cron=cron,
            timezone=timezone,
            version=version,
        )

    return made


def _handler(
    function: Callable[P, T],
    kind: str,
    backoff: Backoff,
    *,
    cron: str | None,
    timezone: str,
    version: str | None,
) -> Handler[P, T]:
    _check_function(function, kind)
    blocking = not inspect.iscoroutinefunction(function)
    parameters, types = _parameters(function), _types(function)
    _check_context(function, types.get(parameters[0]), blocking=blocking)
    takes_input = len(parameters) > 1
    has_default = (
        takes_input
        and inspect.signature(function).parameters[parameters[1]].default
        is not inspect.Parameter.empty
    )
    return Handler(
        kind,
        function,
        backoff,
        blocking,
        takes_input,
        has_default,
        _adapter(function, types.get(parameters[1], Any) if takes_input else Any),
        _adapter(function, _without_outcomes(types.get("return", Any))),
        cron,
        timezone,
        version,
    )


def _check_function(function: object, kind: str) -> None:
    if (
        not inspect.isfunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise InvalidValue(
            "handler", function, f"the handler of {kind!r} must be a function: def or async def"
        )


class Handlers(Mapping[str, "Handler[..., Any]"]):
    """Handlers by kind."""

    def __init__(self, source: Source) -> None:
        """Take handlers, other Handlers, or all those of a module.

        Raises InvalidValue for anything else, for two of one kind and when there are none at all.
        """
        handlers: Iterable[Any] = source if isinstance(source, Iterable) else [source]
        if isinstance(source, Handlers):
            handlers = source.values()
        elif isinstance(source, ModuleType):
            handlers = [value for value in vars(source).values() if isinstance(value, Handler)]
        self._by_kind: dict[str, Handler[..., Any]] = {}
        for declared in handlers:
            if not isinstance(declared, Handler):
                raise InvalidValue(
                    "handler",
                    declared,
                    "is not a handler: decorate the function with @handler('kind')",
                )
            if self._by_kind.setdefault(declared.kind, declared) is not declared:
                raise InvalidValue(
                    "handler",
                    declared.kind,
                    "two handlers are for this kind: give one of them another",
                )
        if not self._by_kind:
            raise InvalidValue(
                "handlers", source, "has no handler: decorate a function with @handler('kind')"
            )

    def __getitem__(self, kind: str) -> Handler[..., Any]:
        """Return the handler of a kind."""
        return self._by_kind[kind]

    def __iter__(self) -> Iterator[str]:
        """Name the kinds."""
        return iter(self._by_kind)

    def __len__(self) -> int:
        """Count them."""
        return len(self._by_kind)


Source: TypeAlias = ModuleType | Handler[..., Any] | Handlers | Iterable[Handler[..., Any]]
"""Where handlers come from."""


def _parameters(function: Callable[..., Any]) -> list[str]:
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if len(positional) != len(parameters) or len(parameters) not in {1, 2}:
        raise InvalidValue(
            "handler", function.__qualname__, "takes the context and the input: def f(ctx, input)"
        )
    return [p.name for p in positional]


def _types(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise InvalidValue(
            "handler", function.__qualname__, f"its annotations cannot be read: {error}"
        ) from error


def _check_context(function: Callable[..., Any], declared: Any, *, blocking: bool) -> None:
    fitting = BlockingContext if blocking else Context
    if declared in {Context, BlockingContext} and declared is not fitting:
        kind = "plain" if blocking else "async"
        raise InvalidValue(
            "handler", function.__qualname__, f"is {kind}: its context is a {fitting.__name__}"
        )


def _adapter(function: Callable[..., Any], annotation: Any) -> TypeAdapter[Any]:
    try:
        return adapter_of_type(annotation)
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise InvalidValue(
            "handler", function.__qualname__, f"Pydantic cannot check {annotation!r}: {reason}"
        ) from error


def _without_outcomes(annotation: Any) -> Any:
    """Leave out what a handler returns instead of an output."""
    if annotation in OUTCOMES:
        return None
    if get_origin(annotation) not in {Union, UnionType}:
        return annotation
    return Union[tuple(part for part in get_args(annotation) if part not in OUTCOMES) or (None,)]  # noqa: UP007  of a tuple
