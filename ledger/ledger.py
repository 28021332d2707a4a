"""The ledger: every write is one call of a SQL function, every read a query. See `ledger/sql` for what they do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self, TypeAlias
from uuid import UUID

from ledger import calls, kinds, log, names, schedules, signalling
from ledger.approving import refused_decision
from ledger.claiming import Marks
from ledger.commands import Submit, Target, Transition, check_distinct, check_kinds, columns, event_row, identify
from ledger.content import check_duration, check_int, check_run_id, check_text, decode_payload, encode_payload
from ledger.database import Connection, Pool, fetch
from ledger.errors import DecisionRefused, DuplicateKey, IllegalTransition, LedgerError, VersionConflict
from ledger.events import Event
from ledger.identity import default_actor
from ledger.kinds import Kind, KindEvent, Kinds
from ledger.lifecycle import LEASE_EXPIRED, State
from ledger.opening import opened
from ledger.reading import Reader, Runs
from ledger.refusal import Refusals, refusal, unless_raced
from ledger.run import Lease, Receipt, Run, Submission
from ledger.schedules import Schedule, Schedules
from ledger.settings import Settings
from ledger.sharing import Row, Shared
from ledger.waking import Waker

# Not `list[...]` in the signatures: the class has a method of that name.
Leases: TypeAlias = list[Lease]
Submissions: TypeAlias = list[Submission]
KindEvents: TypeAlias = list[KindEvent]
Outcomes: TypeAlias = list[Receipt | LedgerError]


class Ledger(Reader):
    """The run ledger of one project: submit, claim, heartbeat, transition, reap, and the full history of it all.

    Every write is one round trip and one transaction. Made by `Ledger.open`; safe for concurrent use within one
    event loop.
    """

    def __init__(self, pool: Pool, project_id: str, settings: Settings, url: str | None = None) -> None:
        super().__init__(pool, project_id, settings)
        self.url = url
        """Where more connections can be had; it may hold a password."""
        self.actor = settings.actor or default_actor()
        self._marks = Marks()
        self.waker = Waker(pool, project_id)
        self._refusals = Refusals(pool, project_id)
        self._submits = Shared(self._send_submits)
        self._transitions = Shared(self._send_transitions)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str | None = None, project: str | None = None, *, create_project: bool = False
    ) -> AsyncIterator[Self]:
        """Open the ledger of a project (default: `default`) in the database at `url`.

        Without a URL, here or in RUNFOLD_URL, the built-in PostgreSQL is started and migrated; a database of your
        own is never migrated silently. The project `default` of the built-in one is made at need.

        Raises DatabaseUnavailable, UnsupportedServer, NotMigrated, NewerSchema, UnknownProject or ConfigurationError.
        """
        settings = Settings.load()
        async with opened(url, settings) as database:
            project_id = check_text("project", project if project is not None else settings.project)
            await database.require_project(project_id, create=create_project)
            ledger = cls(database.pool, project_id, settings, database.url)
            try:
                yield ledger
            finally:
                await ledger.waker.flush()

    # -- writing ----------------------------------------------------------------------------------------------------

    async def submit(
        self,
        kind: str,
        input: Any = None,  # noqa: A002  the field's own word
        *,
        key: str | None = None,
        priority: int = 0,
        delay: float | timedelta | None = None,
        max_attempts: int = 3,
        deadline: datetime | float | timedelta | None = None,
        tags: Sequence[str] = (),
        parent: UUID | str | None = None,
        connection: Connection | None = None,
    ) -> Run:
        """Ask for a run; it exists when the call (or your transaction, with `connection`) has committed.

        `input` is JSON. `key`: the same key and content give the same run again. `priority`: 0 goes first, larger
        numbers later. `delay` and `deadline`: seconds, a timedelta, or for the deadline an aware datetime.
        `parent`: the run that asks for this one; its history says so.
        `connection`: an asyncpg connection, or a SQLAlchemy AsyncConnection or AsyncSession, whose transaction to join.

        Raises InvalidValue, PayloadTooLarge, or DuplicateKey when the key was used with other content.
        """
        command = Submit(
            kind=kind, input=input, key=key, priority=priority, delay=delay, max_attempts=max_attempts,
            deadline=deadline, tags=tags, parent=parent,
        )  # fmt: skip
        row = command.row(self.settings.payload_limit_bytes)
        if connection is not None:  # whether its transaction has committed is the caller's to know
            [submitted] = await self._send_submits([row], connection)
        else:
            submitted = await self._submits.ask(row, distinct=object() if key is None else key)
            self.waker.wake()
        return Run.from_row(submitted)

    async def submit_many(
        self, commands: Iterable[Submit | Mapping[str, Any]], *, connection: Connection | None = None
    ) -> Submissions:
        """Ask for up to 10,000 runs in one transaction, all or none; results are in the order given.

        Raises as `submit` does.
        """
        given = [command if isinstance(command, Submit) else Submit(**command) for command in commands]
        if not given:
            return []
        limit = self.settings.payload_limit_bytes
        arrays = columns([command.row(limit) for command in given])
        rows = await fetch(connection or self.pool, calls.SUBMIT_MANY, self.project_id, self.actor, *arrays)
        if connection is None:
            self.waker.wake()
        return [Submission(row["run_id"], row["fresh"]) for row in rows]

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
        rows = list(await fetch(self.pool, calls.CLAIM, self.project_id, worker_id, wanted, limit, lifetime, *marks))
        if len(rows) < limit and marks[0]:
            self._marks.clear()
            rest = limit - len(rows)
            rows += await fetch(self.pool, calls.CLAIM, self.project_id, worker_id, wanted, rest, lifetime, *Marks.NONE)
        self._marks.remember(rows, full=len(rows) >= limit)
        logger = log.logger(project_id=self.project_id, worker_id=worker_id)
        leases = []
        for row in rows:
            leases.append(_lease(row, worker_id, lifetime))
            logger.info(
                names.LEASE_ACQUIRED,
                run_id=row["run_id"],
                attempt_count=row["attempt"],
                max_attempts=row["max_attempts"],
            )
        return leases

    async def heartbeat(self, leases: Sequence[Lease]) -> Leases:
        """Say that the holder of these leases is alive, in one statement; gives the leases anew, in the same order.

        A lease that is not current any more comes back with `lost` set, its late write recorded; never an error, so
        that one lost run does not hide what became of the others.
        """
        if not leases:
            return []
        given = [(*identify(lease), check_duration("ttl", lease.ttl, positive=True)) for lease in leases]
        check_distinct("run", [row[0] for row in given])
        rows = await fetch(self.pool, calls.HEARTBEAT, self.project_id, *columns(given))
        beaten = {row["run_id"]: row for row in rows}
        lost = [lease for lease in leases if lease.run_id not in beaten]
        for worker_id in {lease.worker_id for lease in lost}:
            late = [(lease.run_id, lease.token) for lease in lost if lease.worker_id == worker_id]
            found = await self._refusals.look(worker_id, "heartbeat", late)
            for run_id, _ in late:
                refusal(self.project_id, run_id, found.get(run_id), "heartbeat")
        return [_beaten(lease, beaten.get(lease.run_id)) for lease in leases]

    async def transition(self, lease_or_run_id: Target, to_state: State | str, **facts: Any) -> Run:
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
        actor = facts.pop("actor", None)
        command = Transition(lease_or_run_id, to_state, **facts)
        row = command.row(self.settings.payload_limit_bytes)
        asked = (self._decider(command.run, actor), *row)
        moved = await unless_raced(lambda: self._transitions.ask(asked, distinct=row[0]), row[-1])
        if moved is None:
            [outcome] = await self._refusals.transitions([row], {row[0]: self._actor(command.run, actor)})
            if isinstance(outcome, LedgerError):
                raise outcome
            return await self.state_at(outcome.run_id, outcome.version)
        run = Run.from_row(moved)
        _log_transition(log.logger(project_id=self.project_id), row, moved["from_state"])
        if run.available_at is not None:  # the answer that a parked run waited for
            self.waker.wake()
        return run

    async def transition_many(self, commands: Sequence[Transition], *, actor: str | None = None) -> Outcomes:
        """Move many runs in one statement; each result is a receipt or the error that one command met.

        A refused command does not hold up the others. Raises InvalidValue or PayloadTooLarge, with nothing written,
        when a command makes no sense in itself.
        """
        limit = self.settings.payload_limit_bytes
        return await self.move([(command.run, command.row(limit)) for command in commands], actor=actor)

    async def move(self, moves: Sequence[tuple[Target, Row]], *, actor: str | None = None) -> Outcomes:
        """As `transition_many`, of commands that are written out by `Transition.row` already."""
        if not moves:
            return []
        keys = [row[-1] for _, row in moves if row[-1] is not None]
        check_distinct("run", [row[0] for _, row in moves])
        check_distinct("key", keys)
        arrays = columns([(self._decider(run, actor), *row) for run, row in moves])
        rows = await unless_raced(lambda: fetch(self.pool, calls.TRANSITION_MANY, self.project_id, *arrays), *keys)
        outcomes: dict[UUID, Receipt | LedgerError] = {}
        logger = log.logger(project_id=self.project_id)
        commands = {row[0]: row for _, row in moves}
        for run_id, version, hash_, from_state in (row.values() for row in rows):
            outcomes[run_id] = Receipt(run_id, version, hash_)
            _log_transition(logger, commands[run_id], from_state)
        if missing := [(run, row) for run, row in moves if row[0] not in outcomes]:
            actors = {row[0]: self._actor(run, actor) for run, row in missing}
            reasons = await self._refusals.transitions([row for _, row in missing], actors)
            outcomes.update({row[0]: reason for (_, row), reason in zip(missing, reasons, strict=True)})
        return [outcomes[row[0]] for _, row in moves]

    async def approve(self, run_id: UUID | str, *, actor: str, reason: str | None = None, **facts: Any) -> Run:
        """Grant the approval that a run waits for. Raises as `transition` does."""
        return await self._decide(run_id, State.RUNNING, actor, reason, facts)

    async def reject(self, run_id: UUID | str, *, actor: str, reason: str | None = None, **facts: Any) -> Run:
        """Refuse the approval that a run waits for; the run is cancelled. Raises as `transition` does."""
        return await self._decide(run_id, State.CANCELLED, actor, reason, facts)

    async def _decide(self, run_id: UUID | str, state: State, actor: str, reason: str | None, facts: dict[str, Any]) -> Run:
        run = await self.get(run_id)
        facts.setdefault("expected_version", run.version if run.is_parked else None)
        try:
            if run.state == State.WAITING_APPROVAL:
                return await self.transition(run.run_id, state, actor=actor, reason=reason, **facts)
        except (IllegalTransition, VersionConflict, DecisionRefused) as error:
            refused: LedgerError = error
        else:
            refused = IllegalTransition(run.run_id, run.state, state, "it waits for no approval")
        if (note := refused_decision(await self.history(run.run_id), state, refused, reason)) is not None:
            await self.append(run.run_id, note, actor=actor)
        raise refused

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

    async def cancel(self, run_id: UUID | str, *, actor: str | None = None, reason: str | None = None) -> Run:
        """Call a run off: at once where nobody holds it; a holder learns of it with its next heartbeat.

        Raises RunNotFound, or IllegalTransition when the run has ended.
        """
        wanted = check_run_id(run_id)
        body = encode_payload({"reason": reason}, self.settings.payload_limit_bytes)
        who = check_text("actor", actor if actor is not None else self.actor)
        rows = await fetch(self.pool, calls.CANCEL, self.project_id, who, [wanted], body)
        if not rows:
            found = await self._refusals.look(who, "cancel", [(wanted, None)])
            raise refusal(self.project_id, wanted, found.get(wanted), State.CANCELLED)
        return Run.from_row(rows[0])

    async def append(
        self,
        lease_or_run_id: Target,
        event: Event,
        *,
        actor: str | None = None,
        expected_version: int | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Append an event that changes no state: a note, a step, or one of your own types.

        Steps need the lease. Raises LeaseLost, LeaseRequired, IllegalTransition, VersionConflict, RunNotFound,
        DuplicateKey, InvalidValue or PayloadTooLarge.
        """
        row = event_row(lease_or_run_id, event, self.settings.payload_limit_bytes, expected_version, key)
        who = self._actor(lease_or_run_id, actor)
        rows = await unless_raced(lambda: fetch(self.pool, calls.APPEND, self.project_id, who, *columns([row])), key)
        if rows:
            return Receipt(rows[0]["run_id"], rows[0]["version"], rows[0]["hash"])
        if key is not None:
            first = await self._refusals.earlier([(row[0], row[2], False, *row[4:9], None, None, None, key)])
            if (outcome := first.get(key)) is not None:
                if isinstance(outcome, DuplicateKey):
                    raise outcome
                return outcome
        found = await self._refusals.look(who, event.type, [(row[0], row[1])])
        raise refusal(
            self.project_id, row[0], found.get(row[0]), event.type,
            expected=expected_version, cost=row[7], steps=row[8],
        )  # fmt: skip

    async def signal(
        self, run_id: UUID | str, name: str, value: Any = None, *, actor: str | None = None, key: str | None = None
    ) -> Run:
        """Send a run a value (JSON) under a name: it goes on if it waits for that, else the value is kept until it asks.

        Raises IllegalTransition when the run has ended, RunNotFound, InvalidValue, PayloadTooLarge, or DuplicateKey.
        """
        return await signalling.send(self, check_run_id(run_id), name, value, actor=actor, key=key)

    async def reap(self, *, limit: int = 1_000) -> Runs:
        """Repair what died and end what is overdue, at once and at most `limit` runs; gives the runs after it.

        Any number of reapers may work at the same time. The wait of one lease's time after a (re)connect belongs to
        the duty that calls this (`workers.reaper`).
        """
        check_int("limit", limit, least=1, most=10_000)
        rows = await fetch(self.pool, calls.REAP, self.project_id, "reaper", limit)
        logger = log.logger(project_id=self.project_id)
        for row in rows:
            if row["reaped_type"] == "tool.failed":  # a wait that is over: the run goes on
                _log_answered(logger, row)
                continue
            requeued = row["reaped_code"] == LEASE_EXPIRED
            (logger.warning if requeued else logger.error)(
                names.STALE_REQUEUED if requeued else names.STALE_FAILED,
                run_id=str(row["run_id"]),
                worker_id=row["reaped_worker"],
                attempt_count=row["attempt_count"],
                max_attempts=row["max_attempts"],
                from_state=row["reaped_state"],
                to_state=row["state"],
                error_code=row["reaped_code"],
            )
        logger.info(names.REAPER_DONE, reaped=len(rows))
        self._marks.clear()
        if rows:
            self.waker.wake()
        return [Run.from_row(row) for row in rows]

    # -- kinds ------------------------------------------------------------------------------------------------------

    async def pause(self, kind: str, *, actor: str | None = None, reason: str | None = None) -> Kind:
        """Have no run of a kind claimed until `resume`; runs that are held go on. Raises InvalidValue."""
        who = self.actor if actor is None else actor
        return await kinds.change(self.pool, self.project_id, kind, "kind.paused", actor=who, reason=reason)

    async def resume(self, kind: str, *, actor: str | None = None, reason: str | None = None) -> Kind:
        """Have runs of a kind claimed again, and wake the workers. Raises InvalidValue."""
        who = self.actor if actor is None else actor
        after = await kinds.change(self.pool, self.project_id, kind, "kind.resumed", actor=who, reason=reason)
        self.waker.wake()
        return after

    async def limit(self, kind: str, max_running: int | None, *, actor: str | None = None, reason: str | None = None) -> Kind:
        """Have all workers together hold at most `max_running` runs of a kind; None takes the limit away.

        Runs held beyond a new, lower limit go on; none is claimed until there is room. Raises InvalidValue.
        """
        who = self.actor if actor is None else actor
        after = await kinds.change(
            self.pool, self.project_id, kind, "kind.limited", actor=who, max_running=max_running, reason=reason
        )
        self.waker.wake()
        return after

    async def kinds(self) -> Kinds:
        """Give every kind that was ever submitted or changed, by name."""
        return await kinds.kinds(self.pool, self.project_id)

    async def kind_history(self, kind: str) -> KindEvents:
        """Give who paused, resumed or limited a kind, when and why, oldest first. Raises InvalidValue."""
        return await kinds.history(self.pool, self.project_id, kind)

    # -- schedules --------------------------------------------------------------------------------------------------

    async def schedule(
        self,
        name: str,
        kind: str,
        input: Any = None,  # noqa: A002  the field's own word
        *,
        cron: str,
        timezone: str = "UTC",
        actor: str | None = None,
    ) -> Schedule:
        """Have a run submitted whenever `cron` (five fields) is due in `timezone`; a schedule of this name is changed.

        A worker's duty submits it, once for each due time; of those missed only the latest.
        Raises InvalidValue or PayloadTooLarge.
        """
        who = self.actor if actor is None else actor
        return await schedules.put(self, name, kind, input, cron=cron, timezone=timezone, actor=who)

    async def unschedule(self, name: str) -> bool:
        """Take a schedule away; tells whether there was one. Raises InvalidValue."""
        return await schedules.drop(self, name)

    async def schedules(self) -> Schedules:
        """Give every schedule, by name."""
        return await schedules.every(self)

    # -- parts ------------------------------------------------------------------------------------------------------

    async def _send_submits(self, rows: Sequence[Row], connection: Connection | None = None) -> Sequence[Mapping[str, Any]]:
        return await fetch(connection or self.pool, calls.SUBMIT_ONE, self.project_id, self.actor, *columns(rows))

    async def _send_transitions(self, asked: Sequence[Row]) -> list[Mapping[str, Any] | None]:
        rows = await fetch(self.pool, calls.TRANSITION_ONE, self.project_id, *columns(asked))
        moved = {row["run_id"]: row for row in rows}
        return [moved.get(row[1]) for row in asked]

    async def _requeue(
        self, type_: str, lease: Lease, delay: float | timedelta, error_code: str | None, error_detail: Any
    ) -> Run:
        body = encode_payload({"error_detail": error_detail}, self.settings.payload_limit_bytes)
        wait = check_duration("delay", delay)
        code = None if error_code is None else check_text("error_code", error_code)
        rows = await fetch(
            self.pool, calls.REQUEUE, self.project_id, lease.worker_id, type_,
            [lease.run_id], [lease.token], [wait], [code], [body],
        )  # fmt: skip
        self._marks.clear()
        if not rows:
            found = await self._refusals.look(lease.worker_id, type_, [(lease.run_id, lease.token)])
            retry = type_ == "run.retried"
            raise refusal(self.project_id, lease.run_id, found.get(lease.run_id), State.PENDING, retry=retry)
        self.waker.wake()
        return Run.from_row(rows[0])

    def _actor(self, run: Target, actor: str | None) -> str:
        if actor is not None:
            return check_text("actor", actor)
        return run.worker_id if isinstance(run, Lease) else self.actor

    def _decider(self, run: Target, actor: str | None) -> str | None:
        """Give who acts; None for the holder of a lease, whom the ledger knows."""
        return None if actor is None and isinstance(run, Lease) else self._actor(run, actor)

    def _ttl(self, ttl: float | timedelta | None) -> timedelta:
        return check_duration("ttl", self.settings.lease_ttl_seconds if ttl is None else ttl, positive=True)


def _log_transition(logger: Any, command: Row, from_state: str) -> None:
    logger.info(
        names.STATE_TRANSITION,
        run_id=command[0],
        from_state=from_state,
        to_state=command[2],
        error_code=command[5],
    )


def _log_answered(logger: Any, row: Mapping[str, Any]) -> None:
    logger.info(
        names.STATE_TRANSITION, run_id=str(row["run_id"]), from_state=row["reaped_state"], error_code=row["reaped_code"]
    )


def _lease(row: Mapping[str, Any], worker_id: str, ttl: timedelta) -> Lease:
    run_id, token, attempt, kind, priority, max_attempts, until, cancel_requested, body = row.values()
    content = decode_payload(body) or {}
    parent = content.get("parent")
    return Lease(
        run_id, token, attempt, max_attempts, kind, priority, content.get("input"), worker_id, until, ttl, cancel_requested,
        parent=None if parent is None else UUID(parent),
    )  # fmt: skip


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
