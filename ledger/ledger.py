"""The ledger of a project as a program has it: every write is one call of a SQL function, every read a query."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Self, TypeAlias
from uuid import UUID

from runfold.ledger import kinds, log, names, schedules
from runfold.ledger.commands import Submit, Target, columns, event_row
from runfold.ledger.errors import (
    DecisionRefused,
    DuplicateKey,
    IllegalTransition,
    InvalidValue,
    LedgerError,
    VersionConflict,
)
from runfold.ledger.events import Event
from runfold.ledger.kinds import Kind, KindEvent, Kinds
from runfold.ledger.lifecycle import AFTER_TERMINAL, LEASE_EXPIRED, State
from runfold.ledger.operations import calls
from runfold.ledger.operations import signal as signalling
from runfold.ledger.operations.batching import Row, Shared, characters
from runfold.ledger.operations.decide import refused_decision
from runfold.ledger.operations.leasing import Leasing
from runfold.ledger.operations.refusal import refusal, unless_raced
from runfold.ledger.payload import encode_payload
from runfold.ledger.postgres.connections import Connection, Pool, fetch
from runfold.ledger.postgres.opening import opened
from runfold.ledger.reading.runs import Runs
from runfold.ledger.run import Receipt, Run, Submission
from runfold.ledger.schedules import Schedule, Schedules
from runfold.ledger.settings import Settings
from runfold.ledger.validation import check_actor, check_int, check_reason, check_run_id, check_text

# Not `list[...]` in the signatures: the class has a method of that name.
Submissions: TypeAlias = list[Submission]
KindEvents: TypeAlias = list[KindEvent]


class Ledger(Leasing):
    """The run ledger of one project: submit, claim, heartbeat, transition, reap, and the full history of it all.

    Every write is one round trip and one transaction. Made by `Ledger.open`; safe for concurrent use within one
    event loop.
    """

    def __init__(
        self, pool: Pool, project_id: str, settings: Settings, url: str | None = None
    ) -> None:
        super().__init__(pool, project_id, settings)
        self.url = url
        """Where more connections can be had; it may hold a password."""
        self._submits = Shared(self._send_submits, lambda row: characters(row[1]))
        self._kinds: set[str] = set()
        """Kinds that were submitted before: the first run of a kind makes a row that another transaction may have in hand."""

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
        actor: str | None = None,
        connection: Connection | None = None,
    ) -> Run:
        """Ask for a run; it exists when the call (or your transaction, with `connection`) has committed.

        `input` is JSON. `key`: the same key and content give the same run again. `priority`: 0 goes first, larger
        numbers later. `delay` and `deadline`: seconds, a timedelta, or for the deadline an aware datetime.
        `parent`: the run that asks for this one; its history says so. `actor`: who asks; None means RUNFOLD_ACTOR.
        `connection`: an asyncpg connection, or a SQLAlchemy AsyncConnection or AsyncSession, whose transaction to join.

        Raises InvalidValue, PayloadTooLarge, or DuplicateKey when the key was used with other content.
        """
        command = Submit(
            kind=kind, input=input, key=key, priority=priority, delay=delay, max_attempts=max_attempts,
            deadline=deadline, tags=tags, parent=parent,
        )  # fmt: skip
        row = command.row(self.settings.payload_limit_bytes)
        if connection is not None:  # whether its transaction has committed is the caller's to know
            [submitted] = await self._send_submits([row], connection, actor=actor)
            return Run.from_row(submitted)
        if key is None and actor is None and kind in self._kinds:
            submitted = await self._submits.ask(row, distinct=object())
        else:  # it may have to wait for somebody's open transaction, and must not do so in company
            [submitted] = await self._send_submits([row], actor=actor)
            self._kinds.add(kind)
        self.waker.wake()
        return Run.from_row(submitted)

    async def submit_many(
        self,
        commands: Iterable[Submit | Mapping[str, Any]],
        *,
        actor: str | None = None,
        connection: Connection | None = None,
    ) -> Submissions:
        """Ask for up to 10,000 runs in one transaction, all or none; results are in the order given. `actor`: who asks.

        Raises as `submit` does.
        """
        given = [
            command if isinstance(command, Submit) else _submit(command) for command in commands
        ]
        if not given:
            return []
        limit = self.settings.payload_limit_bytes
        arrays = columns([command.row(limit) for command in given])
        who = check_actor(self.actor if actor is None else actor)
        rows = await fetch(
            connection or self.pool, calls.SUBMIT_MANY, self.project_id, who, *arrays
        )
        if connection is None:
            self.waker.wake()
        return [Submission(row["run_id"], row["fresh"]) for row in rows]

    async def approve(
        self, run_id: UUID | str, *, actor: str, reason: str | None = None, **facts: Any
    ) -> Run:
        """Grant the approval that a run waits for. Raises as `transition` does."""
        return await self._decide(run_id, State.RUNNING, actor, reason, facts)

    async def reject(
        self, run_id: UUID | str, *, actor: str, reason: str | None = None, **facts: Any
    ) -> Run:
        """Refuse the approval that a run waits for; the run is cancelled. Raises as `transition` does."""
        return await self._decide(run_id, State.CANCELLED, actor, reason, facts)

    async def _decide(
        self,
        run_id: UUID | str,
        state: State,
        actor: str,
        reason: str | None,
        facts: dict[str, Any],
    ) -> Run:
        run = await self.get(run_id)
        given = {"expected_version": run.version if run.is_parked else None, **facts}
        try:
            if run.state == State.WAITING_APPROVAL:
                return await self.transition(run.run_id, state, actor=actor, reason=reason, **given)
        except (IllegalTransition, VersionConflict, DecisionRefused) as error:
            if isinstance(error, VersionConflict) and "expected_version" not in facts:
                since = await self.history(run.run_id, after=run.version)
                if all(
                    event.type in AFTER_TERMINAL for event in since
                ):  # remarks only: it is the same approval
                    return await self._decide(run_id, state, actor, reason, facts)
            refused: LedgerError = error
        else:
            refused = IllegalTransition(run.run_id, run.state, state, "it waits for no approval")
        if (
            note := refused_decision(await self.history(run.run_id), state, refused, reason)
        ) is not None:
            await self.append(run.run_id, note, actor=actor)
        raise refused

    async def cancel(
        self, run_id: UUID | str, *, actor: str | None = None, reason: str | None = None
    ) -> Run:
        """Call a run off: at once where nobody holds it; a holder learns of it with its next heartbeat.

        Raises RunNotFound, or IllegalTransition when the run has ended.
        """
        wanted = check_run_id(run_id)
        body = encode_payload({"reason": check_reason(reason)}, self.settings.payload_limit_bytes)
        who = check_actor(actor if actor is not None else self.actor)
        rows = await fetch(self.pool, calls.CANCEL, self.project_id, who, [wanted], body)
        if not rows:
            found = await self._refusals.look(who, "cancel", [(wanted, None)])
            raise refusal(self.project_id, wanted, found.get(wanted), State.CANCELLED)
        run = Run.from_row(rows[0])
        if run.is_terminal:
            log.logger(project_id=self.project_id).info(
                names.STATE_TRANSITION, run_id=str(wanted), to_state=run.state.value
            )
        return run

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
        row = event_row(
            lease_or_run_id, event, self.settings.payload_limit_bytes, expected_version, key
        )
        who, decider = self._actor(lease_or_run_id, actor), self._decider(lease_or_run_id, actor)
        rows = await unless_raced(
            lambda: fetch(self.pool, calls.APPEND, self.project_id, decider, *columns([row])), key
        )
        if rows:
            return Receipt(rows[0]["run_id"], rows[0]["version"], rows[0]["hash"])
        if key is not None:
            first = await self._refusals.earlier(
                [(row[0], row[2], False, *row[4:9], None, None, None, key)]
            )
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
        self,
        run_id: UUID | str,
        name: str,
        value: Any = None,
        *,
        actor: str | None = None,
        key: str | None = None,
    ) -> Run:
        """Send a run a value (JSON) under a name: it goes on if it waits for that, else the value is kept until it asks.

        Raises IllegalTransition when the run has ended, RunNotFound, InvalidValue, PayloadTooLarge, or DuplicateKey.
        """
        return await signalling.send(self, check_run_id(run_id), name, value, actor=actor, key=key)

    async def reap(self, *, limit: int = 1_000) -> Runs:
        """Repair what died and end what is overdue, at once and at most `limit` runs; gives the runs after it.

        Any number of reapers may work at the same time. The wait of one lease's time after a (re)connect belongs to
        the duty that calls this (`runfold.workers.duties.reaper`).
        """
        check_int("limit", limit, least=1, most=10_000)
        rows = await fetch(self.pool, calls.REAP, self.project_id, "reaper", limit)
        logger = log.logger(project_id=self.project_id)
        for row in rows:
            if row["reaped_type"] == "tool.failed":  # a wait that is over: the run goes on
                _log_answered(logger, row)
                continue
            level, said = {
                None: (
                    logger.info,
                    names.STATE_TRANSITION,
                ),  # it was called off, and nobody is left to hear of it
                LEASE_EXPIRED: (logger.warning, names.STALE_REQUEUED),
            }.get(row["reaped_code"], (logger.error, names.STALE_FAILED))
            level(
                said,
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

    async def pause_kind(
        self, kind: str, *, actor: str | None = None, reason: str | None = None
    ) -> Kind:
        """Have no run of a kind claimed until `resume`; runs that are held go on. Raises InvalidValue."""
        who = self.actor if actor is None else actor
        return await kinds.change(
            self.pool, self.project_id, kind, "kind.paused", actor=who, reason=reason
        )

    async def resume_kind(
        self, kind: str, *, actor: str | None = None, reason: str | None = None
    ) -> Kind:
        """Have runs of a kind claimed again, and wake the workers. Raises InvalidValue."""
        who = self.actor if actor is None else actor
        after = await kinds.change(
            self.pool, self.project_id, kind, "kind.resumed", actor=who, reason=reason
        )
        self.waker.wake()
        return after

    async def limit_kind(
        self,
        kind: str,
        max_running: int | None,
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Kind:
        """Have all workers together hold at most `max_running` runs of a kind; None takes the limit away.

        Runs held beyond a new, lower limit go on; none is claimed until there is room. Raises InvalidValue.
        """
        who = self.actor if actor is None else actor
        after = await kinds.change(
            self.pool,
            self.project_id,
            kind,
            "kind.limited",
            actor=who,
            max_running=max_running,
            reason=reason,
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

    async def _send_submits(
        self, rows: Sequence[Row], connection: Connection | None = None, *, actor: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        who = check_actor(self.actor if actor is None else actor)
        return await fetch(
            connection or self.pool, calls.SUBMIT_ONE, self.project_id, who, *columns(rows)
        )


def _submit(facts: Mapping[str, Any]) -> Submit:
    try:
        return Submit(**facts)
    except TypeError as error:
        raise InvalidValue(
            "command", facts, f"must be a Submit or what it takes: {error}"
        ) from None


def _log_answered(logger: Any, row: Mapping[str, Any]) -> None:
    logger.info(
        names.STATE_TRANSITION,
        run_id=str(row["run_id"]),
        from_state=row["reaped_state"],
        error_code=row["reaped_code"],
    )
