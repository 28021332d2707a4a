"""What holders of leases do: claim, heartbeat, transition, release, retry. Each is one call of a SQL function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from runfold.ledger import log, names
from runfold.ledger.commands import (
    Target,
    Transition,
    check_distinct,
    check_kinds,
    check_lease,
    columns,
    identify,
)
from runfold.ledger.errors import LedgerError
from runfold.ledger.lifecycle import State
from runfold.ledger.operations import calls
from runfold.ledger.operations.batching import Row, Shared, characters
from runfold.ledger.operations.claim import Marks
from runfold.ledger.operations.refusal import Refusals, refusal, unless_raced
from runfold.ledger.operations.wakeups import Waker
from runfold.ledger.payload import decode_payload, encode_payload
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.runs import Reader
from runfold.ledger.run import Lease, Receipt, Run
from runfold.ledger.settings import Settings, default_actor
from runfold.ledger.validation import check_actor, check_duration, check_int, check_text

# Not `list[...]` in the signatures: the class has a method of that name.
Leases: TypeAlias = list[Lease]
Outcomes: TypeAlias = list[Receipt | LedgerError]


class Leasing(Reader):
    """Leases runs and moves them under their leases; every write carries the token and is fenced by it."""

    def __init__(self, pool: Pool, project_id: str, settings: Settings) -> None:
        super().__init__(pool, project_id, settings)
        self.actor = settings.actor or default_actor()
        self.waker = Waker(pool, project_id)
        self._marks = Marks()
        self._refusals = Refusals(pool, project_id)
        self._transitions = Shared(self._send_transitions, lambda asked: characters(asked[7]))

    async def claim(
        self,
        worker_id: str,
        *,
        limit: int = 1,
        kinds: Sequence[str] | None = None,
        ttl: float | timedelta | None = None,
    ) -> Leases:
        """Lease up to `limit` of the oldest claimable runs; no run is ever leased to two workers.

        `kinds` None means every kind; `ttl` None means RUNFOLD_LEASE_TTL_SECONDS. An empty list means that nothing is
        claimable now. Raises InvalidValue.
        """
        check_text("worker_id", worker_id)
        check_int("limit", limit, least=1, most=10_000)
        lifetime = self._ttl(ttl)
        wanted = None if kinds is None else check_kinds(kinds)
        marks = self._marks.current()
        rows = list(
            await fetch(
                self.pool, calls.CLAIM, self.project_id, worker_id, wanted, limit, lifetime, *marks
            )
        )
        if len(rows) < limit and marks[0]:
            self._marks.clear()
            rest = limit - len(rows)
            rows += await fetch(
                self.pool,
                calls.CLAIM,
                self.project_id,
                worker_id,
                wanted,
                rest,
                lifetime,
                *Marks.NONE,
            )
        self._marks.remember(rows, full=len(rows) >= limit)
        logger = log.logger(project_id=self.project_id, worker_id=worker_id)
        leases = [_lease(row, worker_id, lifetime) for row in rows]
        for lease in leases if log.tells(logger) else ():
            logger.info(
                names.LEASE_ACQUIRED,
                run_id=str(lease.run_id),
                attempt_count=lease.attempt,
                max_attempts=lease.max_attempts,
            )
        return leases

    async def heartbeat(self, leases: Sequence[Lease]) -> Leases:
        """Say that the holder of these leases is alive, in one statement; gives the leases anew, in the same order.

        A lease that is not current any more comes back with `lost` set, its late write recorded; never an error, so
        that one lost run does not hide what became of the others.
        """
        if not leases:
            return []
        given = [
            (*identify(check_lease(lease)), check_duration("ttl", lease.ttl, positive=True))
            for lease in leases
        ]
        check_distinct("run", [row[0] for row in given])
        rows = await fetch(self.pool, calls.HEARTBEAT, self.project_id, *columns(given))
        beaten = {row["run_id"]: row for row in rows}
        lost = [
            (lease.worker_id, row[:2])
            for lease, row in zip(leases, given, strict=True)
            if row[0] not in beaten
        ]
        for worker_id in {worker_id for worker_id, _ in lost}:
            late = [run for other, run in lost if other == worker_id]
            found = await self._refusals.look(worker_id, "heartbeat", late)
            for run_id, _ in late:
                refusal(self.project_id, run_id, found.get(run_id), "heartbeat")
        return [
            _beaten(lease, beaten.get(row[0])) for lease, row in zip(leases, given, strict=True)
        ]

    async def transition(
        self,
        lease_or_run_id: Target,
        to_state: State | str,
        *,
        park: bool = False,
        name: str | None = None,
        error_code: str | None = None,
        error_detail: Any = None,
        output: Any = None,
        output_sha256: str | bytes | None = None,
        cost_usd_delta: float | Decimal = 0,
        step_count_delta: int = 0,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
        wait: float | timedelta | None = None,
        wait_outcome: State | str = State.CANCELLED,
        expected_version: int | None = None,
        key: str | None = None,
        actor: str | None = None,
    ) -> Run:
        """Move a run along a legal edge and record what happened; gives the run after it.

        Under a lease the token must be current. A bare run id is for what needs no lease: cancelling a pending run,
        deciding an approval, answering a parked tool call.

        `park`: give the lease back while waiting. `name`: of the tool or the approval. `error_code`, `error_detail`,
        `output` (JSON), `output_sha256` (hex), `reason`. `cost_usd_delta`, `step_count_delta`: add to the totals.
        `content`: `input` of a tool, `prompt` and `show` of an approval. `wait`, `wait_outcome`: how long an approval
        may stay undecided, and whether it then is cancelled or timeout. `expected_version`: refuse if the run has
        moved on. `key`: the same key and content give the first outcome again. `actor`: who decides.

        Raises IllegalTransition, LeaseLost, LeaseRequired, VersionConflict, RunNotFound, DuplicateKey, InvalidValue
        or PayloadTooLarge; then nothing was appended but, for a late worker, the refusal.
        """
        command = Transition(
            lease_or_run_id, to_state, park=park, name=name, error_code=error_code, error_detail=error_detail, output=output,
            output_sha256=output_sha256, cost_usd_delta=cost_usd_delta, step_count_delta=step_count_delta, reason=reason,
            content=content, wait=wait, wait_outcome=wait_outcome, expected_version=expected_version, key=key,
        )  # fmt: skip
        row = command.row(self.settings.payload_limit_bytes)
        asked = (self._decider(command.run, actor), *row)
        if row[-1] is None:
            moved = await self._transitions.ask(asked, distinct=row[0])
        else:  # its key may be in an open transaction's hands
            [moved] = await unless_raced(lambda: self._send_transitions([asked]), row[-1])
        if moved is None:
            [outcome] = await self._refusals.transitions(
                [row], {row[0]: self._actor(command.run, actor)}
            )
            if isinstance(outcome, LedgerError):
                raise outcome
            return await self.state_at(outcome.run_id, outcome.version)
        run = Run.from_row(moved)
        _log_transition(
            log.logger(project_id=self.project_id), command.run, row, moved["from_state"]
        )
        if run.available_at is not None:  # the answer that a parked run waited for
            self.waker.wake()
        return run

    async def transition_many(
        self, commands: Sequence[Transition], *, actor: str | None = None
    ) -> Outcomes:
        """Move many runs in one statement; each result is a receipt or the error that one command met.

        A refused command does not hold up the others. Raises InvalidValue or PayloadTooLarge, with nothing written,
        when a command makes no sense in itself.
        """
        limit = self.settings.payload_limit_bytes
        return await self.move(
            [(command.run, command.row(limit)) for command in commands], actor=actor
        )

    async def move(
        self, moves: Sequence[tuple[Target, Row]], *, actor: str | None = None
    ) -> Outcomes:
        """As `transition_many`, of commands that are written out by `Transition.row` already."""
        if not moves:
            return []
        keys = [row[-1] for _, row in moves if row[-1] is not None]
        check_distinct("run", [row[0] for _, row in moves])
        check_distinct("key", keys)
        arrays = columns([(self._decider(run, actor), *row) for run, row in moves])
        rows = await unless_raced(
            lambda: fetch(self.pool, calls.TRANSITION_MANY, self.project_id, *arrays), *keys
        )
        outcomes: dict[UUID, Receipt | LedgerError] = {}
        logger = log.logger(project_id=self.project_id)
        for run_id, version, hash_, _ in (row.values() for row in rows):
            outcomes[run_id] = Receipt(run_id, version, hash_)
        if log.tells(logger):
            commands = {row[0]: (run, row) for run, row in moves}
            for row in rows:
                _log_transition(logger, *commands[row["run_id"]], row["from_state"])
        if missing := [(run, row) for run, row in moves if row[0] not in outcomes]:
            actors = {row[0]: self._actor(run, actor) for run, row in missing}
            reasons = await self._refusals.transitions([row for _, row in missing], actors)
            outcomes.update(
                {row[0]: reason for (_, row), reason in zip(missing, reasons, strict=True)}
            )
        return [outcomes[row[0]] for _, row in moves]

    async def release(self, lease: Lease, *, delay: float | timedelta = 0) -> Run:
        """Give a run back unharmed: it is pending again and the attempt is not charged.

        A run that somebody asked to cancel is cancelled instead. Raises LeaseLost.
        """
        return await self._requeue("lease.released", lease, delay, None, None)

    async def retry(
        self,
        lease: Lease,
        *,
        delay: float | timedelta = 0,
        error_code: str | None = None,
        error_detail: Any = None,
    ) -> Run:
        """Record that the attempt failed and let another follow after `delay`.

        Raises LeaseLost, or AttemptsExhausted when no attempt is left.
        """
        return await self._requeue("run.retried", lease, delay, error_code, error_detail)

    async def _requeue(
        self,
        type_: str,
        lease: Lease,
        delay: float | timedelta,
        error_code: str | None,
        error_detail: Any,
    ) -> Run:
        body = encode_payload({"error_detail": error_detail}, self.settings.payload_limit_bytes)
        wait = check_duration("delay", delay)
        code = None if error_code is None else check_text("error_code", error_code)
        run_id, token = identify(check_lease(lease))
        who = self._actor(lease, None)
        rows = await fetch(
            self.pool,
            calls.REQUEUE,
            self.project_id,
            type_,
            [run_id],
            [token],
            [wait],
            [code],
            [body],
        )
        self._marks.clear()
        if not rows:
            found = await self._refusals.look(who, type_, [(run_id, token)])
            raise refusal(
                self.project_id,
                run_id,
                found.get(run_id),
                State.PENDING,
                retry=type_ == "run.retried",
            )
        self.waker.wake()
        run = Run.from_row(rows[0])
        log.logger(project_id=self.project_id).info(
            names.STATE_TRANSITION, run_id=str(run_id), worker_id=lease.worker_id, attempt_count=lease.attempt,
            max_attempts=lease.max_attempts, to_state=run.state.value, error_code=code,
        )  # fmt: skip
        return run

    async def _send_transitions(self, asked: Sequence[Row]) -> list[Mapping[str, Any] | None]:
        rows = await fetch(self.pool, calls.TRANSITION_ONE, self.project_id, *columns(asked))
        moved = {row["run_id"]: row for row in rows}
        return [moved.get(row[1]) for row in asked]

    def _actor(self, run: Target, actor: str | None) -> str:
        if actor is not None:
            return check_actor(actor)
        return check_text("worker_id", run.worker_id) if isinstance(run, Lease) else self.actor

    def _decider(self, run: Target, actor: str | None) -> str | None:
        """Give who acts; None for the holder of a lease, whom the ledger knows."""
        return None if actor is None and isinstance(run, Lease) else self._actor(run, actor)

    def _ttl(self, ttl: float | timedelta | None) -> timedelta:
        return check_duration(
            "ttl", self.settings.lease_ttl_seconds if ttl is None else ttl, positive=True
        )


def _log_transition(logger: Any, run: Target, row: Row, from_state: str) -> None:
    facts = {
        "run_id": str(row[0]),
        "from_state": from_state,
        "to_state": row[2],
        "error_code": row[5],
    }
    if isinstance(run, Lease):
        logger.info(
            names.STATE_TRANSITION,
            worker_id=run.worker_id,
            attempt_count=run.attempt,
            max_attempts=run.max_attempts,
            **facts,
        )
    else:
        logger.info(names.STATE_TRANSITION, **facts)


def _lease(row: Mapping[str, Any], worker_id: str, ttl: timedelta) -> Lease:
    run_id, token, attempt, kind, priority, max_attempts, until, cancel_requested, body = (
        row.values()
    )
    content = decode_payload(body)
    given = (
        content if isinstance(content, dict) else {}
    )  # whoever calls the functions by hand may write any JSON
    return Lease(
        run_id, token, attempt, max_attempts, kind, priority, given.get("input"), worker_id, until, ttl, cancel_requested,
        parent=_parent(given.get("parent")),
    )  # fmt: skip


def _parent(value: object) -> UUID | None:
    with suppress(ValueError):
        return UUID(value) if isinstance(value, str) else None
    return None


def _beaten(lease: Lease, row: Mapping[str, Any] | None) -> Lease:
    if row is None:
        return replace(lease, lost=True, late_ms=None)
    return replace(
        lease,
        until=row["lease_until"],
        late_ms=row["late_ms"],
        cancel_requested=row["cancel_requested"],
        lost=False,
    )
