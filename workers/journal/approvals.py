"""Approvals of a run: what a person is asked, and what the handler gets for an answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal, TypeAlias, TypedDict

from runfold.ledger import State, names, roles
from runfold.ledger.arguments import check_wait_outcome
from runfold.ledger.errors import NobodyHasRole
from runfold.ledger.events import ApprovalLapsed, ApprovalRequested
from runfold.ledger.operations.decide import request
from runfold.ledger.validation import check_duration
from runfold.workers.journal.call import Call
from runfold.workers.journal.journal import Journal
from runfold.workers.journal.json_values import as_json
from runfold.workers.journal.replay import EarlierCall
from runfold.workers.journal.tools import Tools


@dataclass(frozen=True, slots=True)
class Approver:
    """One person's approval: who, why, when, its meaning, and what the person filled in."""

    actor: str
    reason: str | None
    at: datetime | None
    value: Any = None
    meaning: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """An approval: by whom, why, when, and what the person filled in.

    Where several persons had to approve, it is the last of them; `approvers` are all, in order.
    """

    actor: str
    reason: str | None
    at: datetime | None
    value: Any = None
    approvers: tuple[Approver, ...] = ()
    lapsed: ClassVar[Literal[False]] = False


@dataclass(frozen=True, slots=True)
class Lapsed:
    """Nobody decided in time, until `at`; what `on_timeout="lapsed"` may return."""

    at: datetime | None
    lapsed: ClassVar[Literal[True]] = True


OnTimeout: TypeAlias = State | Literal["cancelled", "timeout"]
"""The state in which an approval that nobody decides ends the run."""


class ApprovalOptions(TypedDict, total=False):
    """What an approval may ask for besides its prompt."""

    show: Any
    name: str
    timeout: float | timedelta | None
    other_person: bool
    role: str | None
    approvals: int


class Approvals:
    """Asks people for one attempt."""

    def __init__(self, journal: Journal, tools: Tools) -> None:
        self._recorder, self._tools = journal.recorder, tools

    async def decision(
        self,
        call: Call,
        prompt: str,
        *,
        show: Any,
        other_person: bool,
        role: str | None,
        approvals: int,
        timeout: float | timedelta | None,  # noqa: ASYNC109  the run's time, not the call's
        on_timeout: State | str,
    ) -> Decision | Lapsed:
        """Return what was recorded about exactly this, or park the run until something is."""
        recorder = self._recorder
        with recorder.asking():
            content = request(
                prompt,
                as_json("show", show),
                role=role,
                other_person=other_person,
                approvals=approvals,
                redaction=recorder.rules.redaction,
            )
            wait = None if timeout is None else check_duration("timeout", timeout, positive=True)
            outcome = check_wait_outcome("on_timeout", on_timeout)
            if call.earlier is not None and call.is_answered:
                return self._decided(call.earlier, content["shown_sha256"])
            content["based_on"] = recorder.version
            if role is not None:
                await self._warn_if_too_few_have(role, approvals)
            return await self._tools.park(
                call, State.WAITING_APPROVAL, content, wait=wait, wait_outcome=outcome
            )

    async def _warn_if_too_few_have(self, role: str, approvals: int) -> None:
        """Log that an approval waits until others are granted the role that it asks for."""
        recorder, ledger = self._recorder, self._recorder.ledger
        try:
            await recorder.persist(
                lambda: roles.require_members(ledger.pool, ledger.project_id, role, approvals)
            )
        except NobodyHasRole as error:
            recorder.log.warning(names.NOBODY_HAS_ROLE, role=role, reason=str(error))

    def _decided(self, earlier: EarlierCall, digest: str) -> Decision | Lapsed:
        asked, answer = earlier.asked, earlier.answer
        assert isinstance(asked, ApprovalRequested)
        if asked.shown_sha256 is not None and asked.shown_sha256 != digest:
            self._recorder.mismatch(
                f"an approval of what has SHA-256 {asked.shown_sha256}", f"one of {digest}"
            )
        if isinstance(answer, ApprovalLapsed):
            return Lapsed(answer.recorded_at)
        granted: Any = answer
        approvers = tuple(
            Approver(yes.actor, yes.reason, yes.recorded_at, yes.output, yes.meaning)
            for yes in (*earlier.signed, granted)
        )
        last = approvers[-1]
        return Decision(last.actor, last.reason, last.at, last.value, approvers)
