"""What an attempt comes to: the ending for what its handler returned or raised."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from runfold.ledger import names
from runfold.ledger.errors import InvalidValue
from runfold.ledger.lifecycle import HANDLER_FAILED, HISTORY_MISMATCH, NOT_BEGUN, OUTPUT_REFUSED
from runfold.workers.backoff import Backoff
from runfold.workers.errors import Asleep, HistoryMismatch, Parked, Refused, StepError, Stop
from runfold.workers.failures import described, failure
from runfold.workers.handlers import Handler
from runfold.workers.journal.journal import Journal
from runfold.workers.journal.json_values import as_declared
from runfold.workers.outcomes import OUTCOMES, Cancel, Done, Ending, Fail, GiveBack, Retry

MISMATCHED: Final = Backoff(first=1.0, factor=2.0, limit=300.0)
"""When a run that another version of its handler began is looked at again."""
GIVEN_BACK_FREELY: Final = 10
"""How often a run whose worker was told to end is given back uncharged, from one result on.

Such a run may be what ends its workers: a signal from a handler is like one from an operator.
"""
TOO_OFTEN: Final = "its worker was told to end under it more than {} times without a new result"


def returned(journal: Journal, handler: Handler[..., Any], result: Any) -> Ending:
    """Return the ending for a result; raise what the handler should have let pass."""
    recorder = journal.recorder
    if recorder.ending is not None:  # the handler caught what it should have let pass
        raise recorder.ending
    if isinstance(result, OUTCOMES):
        return result
    try:
        journal.finish()
    except InvalidValue as error:
        return Fail(HANDLER_FAILED, described(error, recorder.rules))
    adapter = handler.output
    try:
        return Done(as_declared(adapter, adapter.validate_python(result)))
    except (ValidationError, PydanticSerializationError, ValueError, RecursionError) as error:
        return Fail(OUTPUT_REFUSED, described(error, recorder.rules))


def raised(journal: Journal, handler: Handler[..., Any], error: BaseException) -> Ending:  # noqa: PLR0911  one return for each way out
    """Return the ending for what the handler raised, or for why it was stopped."""
    recorder = journal.recorder
    match recorder.ending or error:
        case Parked():
            return None
        case Asleep(seconds=seconds):
            return GiveBack(seconds)
        case Refused(cause=cause):
            return Retry(detail=failure(cause, recorder.rules))
        case HistoryMismatch() as mismatch:
            return _waits_for_another(journal, handler, mismatch)
        case _ if recorder.stopped is Stop.CANCEL:
            return Cancel("as requested")
        case _ if recorder.stopped is Stop.SHUTDOWN:
            return shut_down(journal)
        case _ if recorder.stopped is Stop.NO_SLOT:
            return GiveBack(error_code=NOT_BEGUN)
        case _ if recorder.stopped is not None:
            return GiveBack()
        case StepError(__cause__=BaseException() as cause):
            return Retry(detail=failure(cause, recorder.rules))
        case other:
            return Retry(detail=failure(other, recorder.rules))


def shut_down(journal: Journal) -> Ending:
    """Return the ending of an attempt whose worker was told to end."""
    if journal.given_back < GIVEN_BACK_FREELY or not journal.recorder.was_called:
        return GiveBack()
    return Retry(detail=TOO_OFTEN.format(GIVEN_BACK_FREELY))


def _waits_for_another(
    journal: Journal, handler: Handler[..., Any], mismatch: HistoryMismatch
) -> GiveBack:
    """Give the run back to a process that has the handler which its history fits.

    What each try costs is two events, so the tries become ever rarer.
    """
    delay = MISMATCHED.delay(journal.mismatches + 1)
    reason = described(mismatch, journal.recorder.rules)
    journal.recorder.log.warning(
        names.HANDLER_CHANGED,
        error_code=HISTORY_MISMATCH,
        reason=reason,
        version=handler.version,
        then=f"given back for {delay:.0f} s, to a process with the handler that it began with",
    )
    return GiveBack(delay, HISTORY_MISMATCH, reason)
