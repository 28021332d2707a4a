"""One call of a handler on its context: its name in the history, its answer, and what it cost."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, get_type_hints

from pydantic import PydanticUserError, TypeAdapter
from pydantic_core import to_json

from runfold.ledger.errors import InvalidValue
from runfold.ledger.payload import PayloadRules
from runfold.ledger.redaction import MARK, Redaction
from runfold.ledger.validation import check_text
from runfold.workers.errors import StepError, ToolError
from runfold.workers.failures import failure
from runfold.workers.journal.json_values import adapter_of_type, as_declared
from runfold.workers.journal.meter import Meter
from runfold.workers.journal.replay import CallKind, EarlierCall
from runfold.workers.journal.threads import in_thread

MAX_NAME: Final = 120
GIVEN_UP: Final = {"type": "CancelledError", "message": "the handler gave the call up"}
"""The recorded error of a call that the handler cancelled, as `asyncio.timeout` does."""
CURRENT: Final[ContextVar[Call | None]] = ContextVar("runfold_call", default=None)
"""The call whose function runs here."""


@dataclass(slots=True)
class Call:
    """One call: `output` as JSON or `error` once it is answered, now or in an earlier attempt."""

    call: CallKind
    name: str
    key: str
    beside: bool
    adapter: TypeAdapter[Any]
    earlier: EarlierCall | None
    meter: Meter = field(default_factory=Meter)
    output: Any = None
    error: dict[str, Any] | None = None
    cause: BaseException | None = None

    def __post_init__(self) -> None:
        """Take over the answer that an earlier attempt recorded."""
        if self.earlier is not None and self.earlier.answer is not None:
            answer: Any = self.earlier.answer
            if not self.earlier.has_failed:
                self.output = answer.output
            else:
                detail = answer.error_detail
                is_failure = isinstance(detail, dict) and {"type", "message"} <= detail.keys()
                self.error = (
                    detail
                    if is_failure
                    else {"type": answer.error_code or "error", "message": str(detail)}
                )

    @property
    def is_answered(self) -> bool:
        """Whether an earlier attempt has the answer."""
        return self.earlier is not None and self.earlier.answer is not None

    @property
    def fits(self) -> bool:
        """Whether the output is of the declared type, which may have changed since."""
        if self.adapter is ANYTHING or self.error is not None:
            return True
        try:
            self.result()
        except Exception:  # a validator may raise anything
            return False
        return True

    @property
    def is_given_up(self) -> bool:
        """Whether the handler cancelled the call, now or in an earlier attempt."""
        return self.error == GIVEN_UP

    def fail(self, error: BaseException, rules: PayloadRules) -> None:
        """Record an error as the call's answer."""
        self.cause, self.error, self.output = error, failure(error, rules), None

    def result(self) -> Any:
        """Return the output in its declared type, or raise StepError or ToolError."""
        if self.error is None:
            return self.adapter.validate_json(to_json(self.output))
        kind = ToolError if self.call == "tool" else StepError
        raise kind(self.name, str(self.error["type"]), str(self.error["message"])) from self.cause

    @contextmanager
    def answering(self, rules: PayloadRules) -> Iterator[Callable[[Any], None]]:
        """Run the function in this block, pass its result to `take`, record an Exception."""
        with self.current():
            try:
                yield partial(self._take, rules)
            except Exception as error:
                self.fail(error, rules)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the call known to the function that runs in this block."""
        token = CURRENT.set(self)
        try:
            yield
        finally:
            CURRENT.reset(token)

    def _take(self, rules: PayloadRules, value: Any) -> None:
        checked = self.adapter.validate_python(value)
        self.output = as_declared(self.adapter, checked, round_trip=True)
        if self.adapter is not ANYTHING:
            _check_survives(checked, self.result())
        if rules.redaction is not None:
            self._redact(rules.redaction)

    def _redact(self, redaction: Redaction) -> None:
        """Take secrets out of the output now: the handler gets what the next attempt would get."""
        written = to_json(self.output, inf_nan_mode="constants").decode()
        if not redaction.suspects(written):
            return
        self.output = redaction.value(self.output, "output")
        if not self.fits:
            raise InvalidValue(
                "result",
                MARK,
                "is not of the declared type, and the secret in it is not recorded: return a"
                " reference to the secret, or see RUNFOLD_REDACT_NAMES",
            )


class Names:
    """Names calls within a run: a name that is used again gets its ordinal."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def next(self, name: str) -> str:
        """Return the name of the next call of this name; raise InvalidValue."""
        check_text("name", name, limit=MAX_NAME)
        if "#" in name:
            raise InvalidValue(
                "name", name, "must not contain #, which counts the calls of one name"
            )
        count = self._used[name] = self._used.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"


def _check_survives(result: Any, again: Any) -> None:
    """Refuse a result that its JSON does not restore: the next attempt would get another value."""
    comparable = any("__eq__" in vars(base) for base in type(result).__mro__[:-1])
    if type(again) is not type(result) or (comparable and again != result):
        raise InvalidValue(
            "result",
            type(result).__name__,
            "comes back from its own JSON as something else: declare a type that survives it",
        )


async def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function to its end: an async one here, a plain one in a thread."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    result = await in_thread("runfold-step", function, *args, **kwargs)
    return await result if inspect.isawaitable(result) else result


def adapter_of(function: Callable[..., Any] | None) -> TypeAdapter[Any]:
    """Return the declared return type; raise InvalidValue when Pydantic cannot check it."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return _adapter(getattr(function, "__func__", function))
    except TypeError:  # it cannot be hashed
        return ANYTHING


ANYTHING: Final[TypeAdapter[Any]] = adapter_of_type(Any)
"""The type of a function that declares none: its result is JSON."""


@lru_cache(maxsize=1_024)
def _adapter(function: Callable[..., Any] | None) -> TypeAdapter[Any]:
    try:
        annotation = get_type_hints(function).get("return", Any)
    except (NameError, TypeError):
        annotation = Any
    try:
        return ANYTHING if annotation is Any else adapter_of_type(annotation)
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise InvalidValue(
            "result type", annotation, f"cannot be recorded as JSON: {reason}"
        ) from error
