"""The ledger of one project: its promises to a program, each kept by an operation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from runfold.ledger import access, control_history, kinds, roles, schedules
from runfold.ledger.access import Grant
from runfold.ledger.arguments import Target
from runfold.ledger.commands import Submit, Transition
from runfold.ledger.control_history import ControlEvent
from runfold.ledger.errors import LedgerError
from runfold.ledger.events import ApprovalRequested, Event
from runfold.ledger.kinds import Kind, KindEvent
from runfold.ledger.lifecycle import State
from runfold.ledger.operations import (
    append,
    cancel,
    claim,
    decide,
    heartbeat,
    reap,
    requeue,
    signal,
    submit,
)
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.transition import Transitions
from runfold.ledger.postgres.connections import Connection, Pool
from runfold.ledger.postgres.opening import opened
from runfold.ledger.postgres.partitions import make_if_missing
from runfold.ledger.reading import history, past, runs, search, subscription, verify, wait
from runfold.ledger.reading.past import Diff
from runfold.ledger.reading.report import Report
from runfold.ledger.reading.run_filter import RunFilter
from runfold.ledger.reading.search import Page
from runfold.ledger.reading.subscription import Subscription
from runfold.ledger.roles import Member
from runfold.ledger.run import Lease, Receipt, Run, Submission
from runfold.ledger.schedules import Schedule
from runfold.ledger.settings import Settings
from runfold.ledger.validation import check_text

if TYPE_CHECKING:
    from runfold.ledger.archive.archives import Archives
    from runfold.ledger.webhooks import Webhooks


class Ledger:
    """The run ledger of one project: submit, claim, heartbeat, transition, reap, and the history.

    Every write is one round trip and one transaction. Made by `Ledger.open`; safe for concurrent
    use within one event loop.

    `actor` in every method: who acts, on record; None means RUNFOLD_ACTOR, or the login name.

    Every method raises AccessDenied for a credential that lacks the right, see
    docs/howto/access.md: a read does where it would find nothing.
    """

    def __init__(
        self,
        pool: Pool,
        project_id: str,
        settings: Settings,
        url: str | None = None,
        speaker: str | None = None,
    ) -> None:
        self.pool, self.project_id, self.settings = pool, project_id, settings
        self.url = url
        """Where more connections can be had; it may hold a password."""
        self.project = Project(pool, project_id, settings, speaker)
        """What the operations share; not for programs."""
        self.transitions = Transitions(self.project)
        """How a worker sends moves that it has checked; not for programs."""
        self._submits = submit.Submits(self.project)
        self._marks = claim.Marks()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str | None = None, project: str | None = None, *, create_project: bool = False
    ) -> AsyncIterator[Self]:
        """Open the ledger of a project (default: `default`) in the database at `url`.

        Without a URL, here or in RUNFOLD_URL, the built-in PostgreSQL is started and migrated; a
        database of your own is never migrated silently. The built-in one makes its project
        `default` when it is first opened. A missing partition for this month is made.

        Raises InvalidValue for the URL, DatabaseUnavailable, UnsupportedServer, NotMigrated,
        NewerSchema, UnknownProject or ConfigurationError.
        """
        settings = Settings.load()
        project_id = check_text("project", project if project is not None else settings.project)
        async with opened(url, settings, project=project_id) as database:
            speaker = await database.speaker_in(project_id, create=create_project)
            await make_if_missing(database.pool)
            ledger = cls(database.pool, project_id, settings, database.url, speaker)
            try:
                yield ledger
            finally:
                await ledger.project.waker.flush()

    @property
    def actor(self) -> str:
        """The actor of calls that name none."""
        return self.project.actor

    @property
    def archive(self) -> Archives:
        """The archived months of the database: export, detach, attach, hold."""
        from runfold.ledger.archive.archives import Archives  # few programs archive

        return Archives(self.pool, self.actor)

    @property
    def webhooks(self) -> Webhooks:
        """The webhooks of the project: which events are sent where, and each delivery."""
        from runfold.ledger.webhooks import Webhooks  # few programs have to do with them

        return Webhooks(self.project)

    # -- submit -------------------------------------------------------------------------------

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
        """Ask for a run; it exists when the call (or your transaction, see below) has committed.

        `input` is JSON. `key`: the same key and content return the same run again. `priority`: 0
        goes first, larger numbers later. `delay` and `deadline`: seconds, a timedelta, or for the
        deadline an aware datetime. `parent`: the run that asks for this one; its history says so.
        `connection`: an asyncpg connection, or a SQLAlchemy AsyncConnection or AsyncSession, whose
        transaction to join.

        Raises InvalidValue, PayloadTooLarge, or DuplicateKey when the key was used with other
        content.
        """
        return await self._submits.submit(
            Submit(
                kind=kind,
                input=input,
                key=key,
                priority=priority,
                delay=delay,
                max_attempts=max_attempts,
                deadline=deadline,
                tags=tags,
                parent=parent,
            ),
            actor=actor,
            connection=connection,
        )

    async def submit_many(
        self,
        commands: Iterable[Submit | Mapping[str, Any]],
        *,
        actor: str | None = None,
        connection: Connection | None = None,
    ) -> list[Submission]:
        """Ask for up to 10,000 runs in one transaction, all or none; results are in their order.

        Raises as `submit` does.
        """
        return await submit.submit_many(self.project, commands, actor=actor, connection=connection)

    # -- leases -------------------------------------------------------------------------------

    async def claim(
        self,
        worker_id: str,
        *,
        limit: int = 1,
        kinds: Sequence[str] | None = None,
        ttl: float | timedelta | None = None,
    ) -> list[Lease]:
        """Lease up to `limit` of the oldest claimable runs; no run is ever leased to two workers.

        `kinds` None means every kind. `ttl`: seconds or a timedelta; None means
        RUNFOLD_LEASE_TTL_SECONDS. An empty list means that nothing is claimable now.

        Raises InvalidValue.
        """
        return await claim.claim(
            self.project, self._marks, worker_id, limit=limit, kinds=kinds, ttl=ttl
        )

    async def heartbeat(self, leases: Sequence[Lease]) -> list[Lease]:
        """Renew the leases in one statement; return them anew, in the same order.

        A lease that is not current any more comes back with `lost` set, and its late beat is
        recorded. It is never an error, so that one lost run does not hide the others.
        """
        return await heartbeat.heartbeat(self.project, leases)

    async def release(
        self,
        lease: Lease,
        *,
        delay: float | timedelta = 0,
        error_code: str | None = None,
        error_detail: Any = None,
    ) -> Run:
        """Give a run back unharmed: it is pending again and the attempt is not charged.

        A run whose cancel was requested is cancelled instead. `delay`: seconds or a timedelta
        before it can be claimed. `error_code`, `error_detail` (JSON): why this holder cannot do
        the run. Raises LeaseLost.
        """
        return await requeue.requeue(
            self.project,
            requeue.RELEASED,
            lease,
            delay=delay,
            error_code=error_code,
            error_detail=error_detail,
        )

    async def retry(
        self,
        lease: Lease,
        *,
        delay: float | timedelta = 0,
        error_code: str | None = None,
        error_detail: Any = None,
    ) -> Run:
        """Record that the attempt failed and allow another one after `delay`.

        Raises LeaseLost, or AttemptsExhausted when no attempt is left.
        """
        return await requeue.requeue(
            self.project,
            requeue.RETRIED,
            lease,
            delay=delay,
            error_code=error_code,
            error_detail=error_detail,
        )

    # -- transitions --------------------------------------------------------------------------

    async def complete(
        self,
        lease: Lease,
        output: Any = None,
        *,
        output_sha256: str | bytes | None = None,
        cost_usd_delta: float | Decimal = 0,
        step_count_delta: int = 0,
        key: str | None = None,
    ) -> Run:
        """End the run as completed, with its output (JSON). Raises as `transition` does."""
        return await self.transition(
            lease,
            State.COMPLETED,
            output=output,
            output_sha256=output_sha256,
            cost_usd_delta=cost_usd_delta,
            step_count_delta=step_count_delta,
            key=key,
        )

    async def fail(
        self,
        lease: Lease,
        error_code: str,
        *,
        error_detail: Any = None,
        cost_usd_delta: float | Decimal = 0,
        step_count_delta: int = 0,
        key: str | None = None,
    ) -> Run:
        """End the run as failed; `retry` allows another attempt. Raises as `transition` does."""
        return await self.transition(
            lease,
            State.FAILED,
            error_code=error_code,
            error_detail=error_detail,
            cost_usd_delta=cost_usd_delta,
            step_count_delta=step_count_delta,
            key=key,
        )

    async def ask_tool(
        self,
        lease: Lease,
        name: str,
        input: Any = None,  # noqa: A002  the field's own word
        *,
        park: bool = False,
        wait: float | timedelta | None = None,
        key: str | None = None,
    ) -> Run:
        """Move the run to waiting for a tool until `answer`: held, or parked without its lease.

        `wait`: seconds or a timedelta that a parked wait may last; then the answer is an error.
        Raises as `transition` does.
        """
        return await self.transition(
            lease,
            State.WAITING_TOOL,
            name=name,
            content={"input": input},
            park=park,
            wait=wait,
            key=key,
        )

    async def answer(
        self,
        lease_or_run_id: Target,
        output: Any = None,
        *,
        error_code: str | None = None,
        error_detail: Any = None,
        cost_usd_delta: float | Decimal = 0,
        step_count_delta: int = 0,
        expected_version: int | None = None,
        key: str | None = None,
        actor: str | None = None,
    ) -> Run:
        """Answer the tool that a run waits for: with its output, or with an error.

        A held wait is answered by its lease, a parked one by the run's id. Raises as `transition`
        does.
        """
        return await self.transition(
            lease_or_run_id,
            State.RUNNING,
            output=output,
            error_code=error_code,
            error_detail=error_detail,
            cost_usd_delta=cost_usd_delta,
            step_count_delta=step_count_delta,
            expected_version=expected_version,
            key=key,
            actor=actor,
        )

    async def ask_approval(
        self,
        lease: Lease,
        prompt: str,
        *,
        show: Any = None,
        name: str = "approval",
        role: str | None = None,
        other_person: bool = False,
        approvals: int = 1,
        park: bool = True,
        wait: float | timedelta | None = None,
        wait_outcome: State | str = State.CANCELLED,
        key: str | None = None,
    ) -> Run:
        """Park the run until a person decides by `approve` or `reject`.

        `show`: JSON that the person decides about; its digest with the prompt is recorded.
        `role`: only its members may decide. `other_person`: the submitter may not. `approvals`: how
        many different persons must approve, up to 10; one who rejects ends it. `wait`: seconds or a
        timedelta that it may stay undecided; then the run ends as `wait_outcome`, cancelled or
        timeout; with "lapsed" it goes on. Raises as `transition` does.
        """
        return await self.transition(
            lease,
            State.WAITING_APPROVAL,
            name=name,
            content=decide.request(
                prompt,
                show,
                role=role,
                other_person=other_person,
                approvals=approvals,
                redaction=self.project.rules.redaction,
            ),
            park=park,
            wait=wait,
            wait_outcome=wait_outcome,
            key=key,
        )

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
        """Move a run along a legal edge, record what happened, and return the run after it.

        `complete`, `fail`, `ask_tool`, `answer` and `ask_approval` are its common forms. Under a
        lease the token must be current. A bare run id is for what needs no lease: cancelling a
        pending run, answering a parked tool call. `approve` and `reject` decide an approval.

        `park`: give the lease back while waiting. `name`: of the tool or the approval.
        `error_code`, `error_detail`, `output` (JSON), `output_sha256` (hex digits or 32 bytes),
        `reason`: what happened. `cost_usd_delta`, `step_count_delta`: added to the totals.
        `content`: `input` of a tool, `prompt` and `show` of an approval. `wait`, `wait_outcome`:
        how long an approval may stay undecided, and what it then is: cancelled, timeout or lapsed.
        `expected_version`: refuse if the run has moved on. `key`: the same key and content return
        the first outcome again.

        Raises IllegalTransition, LeaseLost, LeaseRequired, VersionConflict, RunNotFound,
        DuplicateKey, InvalidValue or PayloadTooLarge; then nothing was appended but, for a late
        worker, the refusal.
        """
        return await self.transitions.transition(
            Transition(
                lease_or_run_id,
                to_state,
                park=park,
                name=name,
                error_code=error_code,
                error_detail=error_detail,
                output=output,
                output_sha256=output_sha256,
                cost_usd_delta=cost_usd_delta,
                step_count_delta=step_count_delta,
                reason=reason,
                content=content,
                wait=wait,
                wait_outcome=wait_outcome,
                expected_version=expected_version,
                key=key,
            ),
            actor=actor,
        )

    async def transition_many(
        self, commands: Sequence[Transition], *, actor: str | None = None
    ) -> list[Receipt | LedgerError]:
        """Move many runs in one statement; each result is a receipt or that command's error.

        A refused command does not hold up the others. Raises InvalidValue or PayloadTooLarge, with
        nothing written, when a command makes no sense in itself.
        """
        return await self.transitions.transition_many(commands, actor=actor)

    # -- decisions, signals, events -----------------------------------------------------------

    async def approve(
        self,
        request: Run | ApprovalRequested,
        *,
        actor: str,
        reason: str | None = None,
        meaning: str | None = None,
        output: Any = None,
        key: str | None = None,
    ) -> Run:
        """Grant a request for approval; `output` (JSON) is what the person filled in.

        Where several persons must approve, the run waits on until the last of them does; the run
        that is returned says how many have (`approved` of `approvals`).

        `meaning` (80 characters) says what the decision stands for: approved, reviewed ...

        `request` is what was decided about: the run as it was read while it waited, or its
        ApprovalRequested event. A decision holds for that request alone; one that comes when the
        run has gone on is refused, and noted in the history. `key`: the same key and content
        return the first outcome again.

        Raises IllegalTransition when the run does not wait for this request, DecisionRefused when
        another person must decide, RunNotFound, DuplicateKey, InvalidValue or PayloadTooLarge.
        """
        return await decide.decide(
            self.project,
            request,
            "approval.granted",
            actor=actor,
            reason=reason,
            meaning=meaning,
            output=output,
            key=key,
        )

    async def reject(
        self,
        request: Run | ApprovalRequested,
        *,
        actor: str,
        reason: str | None = None,
        meaning: str | None = None,
        key: str | None = None,
    ) -> Run:
        """Refuse a request for approval, named as for `approve`; the run is cancelled.

        Raises as `approve` does.
        """
        return await decide.decide(
            self.project,
            request,
            "approval.rejected",
            actor=actor,
            reason=reason,
            meaning=meaning,
            key=key,
        )

    async def cancel(
        self, run_id: UUID | str, *, actor: str | None = None, reason: str | None = None
    ) -> Run:
        """Cancel a run: at once if nobody holds it, else its holder learns of it with a beat.

        Raises RunNotFound, or IllegalTransition when the run has ended.
        """
        return await cancel.cancel(self.project, run_id, actor=actor, reason=reason)

    async def signal(
        self,
        run_id: UUID | str,
        name: str,
        value: Any = None,
        *,
        actor: str | None = None,
        key: str | None = None,
    ) -> Run:
        """Send a run a value (JSON) under a name; return the run after it.

        A run that waits for the name goes on; otherwise the value is kept until it asks.

        Raises IllegalTransition when the run has ended, RunNotFound, InvalidValue,
        PayloadTooLarge, or DuplicateKey.
        """
        return await signal.signal(self.project, run_id, name, value, actor=actor, key=key)

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

        Steps need the lease. Raises LeaseLost, LeaseRequired, IllegalTransition, VersionConflict,
        RunNotFound, DuplicateKey, InvalidValue or PayloadTooLarge.
        """
        return await append.append(
            self.project,
            lease_or_run_id,
            event,
            actor=actor,
            expected_version=expected_version,
            key=key,
        )

    async def reap(self, *, limit: int = 1_000, leases: bool = True) -> list[Run]:
        """Repair what died and end what is overdue, at most `limit` runs; return them as they are.

        `leases`: also end leases that ran out; without it, only what passed its deadline or the end
        of its wait. Any number of reapers may work at the same time. It reaps at once: waiting for
        one lease's time after a (re)connect belongs to the duty that calls this
        (`runfold.workers.duties.reaper`).
        """
        return await reap.reap(self.project, limit=limit, leases=leases)

    # -- reading ------------------------------------------------------------------------------

    async def get(self, run_id: UUID | str) -> Run:
        """Return the run as it is now. Raises RunNotFound or InvalidValue."""
        return await runs.get(self.pool, self.project_id, run_id)

    async def wait(
        self, run_id: UUID | str, *, state: State | str | Sequence[State | str] = ()
    ) -> Run:
        """Return the run once it has ended, or is in one of the states.

        Asks the database after each tenth of the time waited so far, 10 ms to 1 s;
        `asyncio.timeout` limits the wait. Raises RunNotFound or InvalidValue.
        """
        return await wait.wait(self.pool, self.project_id, run_id, state)

    async def runs(
        self,
        *,
        state: State | str | Sequence[State | str] | None = None,
        kind: str | None = None,
        worker_id: str | None = None,
        tag: str | None = None,
        key: str | None = None,
        before: UUID | str | None = None,
        after: UUID | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        at: datetime | None = None,
    ) -> Page:
        """Return a page of runs, newest first, at most 10,000: a list, with the cursors beside it.

        `before` a run: the newest of those submitted before it, as for the page's `older`. `after`
        a run: the oldest of those submitted after it, as for its `newer`. With both: the newest
        between them. `since` and `until`: the runs submitted from that instant on and before that
        one, to the millisecond, by the times that their ids bear. A run has a place by its id, so
        pages neither repeat nor miss one, whatever happens meanwhile.

        A page looks through at most 10,000 runs, so one that has fewer than `limit` need not be the
        last: that one's `older` is None (with `after`: `newer`).

        With `at` the runs are as they were at that instant: the fold of the events recorded up to
        then. A transaction that is still open may yet add events with a time before now.

        Raises InvalidValue, UnknownKind for a kind that no run has ever had, FutureInstant or
        BeforeFirstEvent.
        """
        return await past.runs_at(
            self.pool,
            self.project_id,
            RunFilter.checked(
                state=state,
                kind=kind,
                worker_id=worker_id,
                tag=tag,
                key=key,
                before=before,
                after=after,
                since=since,
                until=until,
            ),
            at,
            limit=limit,
        )

    async def search(
        self,
        query: str,
        *,
        before: UUID | str | None = None,
        after: UUID | str | None = None,
        limit: int = 50,
        content: bool = True,
    ) -> Page:
        """Return one page of the runs that fit a query, newest first, at most 1,000.

        The query: `state:failed,timeout kind:review -tag:test cost:>0.5 since:24h`. `before` and
        `after` are the page's own `older` and `newer`. A page looks through at most 10,000 runs.
        Without `content` the runs have no input, output or error detail, which may be large.

        Raises InvalidQuery, which names the word, its position and the remedy, or InvalidValue.
        """
        return await search.search(
            self.pool,
            self.project_id,
            query,
            before=before,
            after=after,
            limit=limit,
            content=content,
        )

    async def history(
        self,
        run_id: UUID | str,
        *,
        after: int = 0,
        heartbeats: bool = True,
        limit: int | None = None,
    ) -> list[Event]:
        """Return the events of the run after version `after`, in version order, with their content.

        Archived months are read too. `heartbeats` False leaves out the beats, which are nearly all
        events of a long run; `limit` is the most events, None all. Raises RunNotFound,
        InvalidValue or ArchiveUnusable.
        """
        return await history.history(
            self.pool, self.project_id, run_id, after=after, heartbeats=heartbeats, limit=limit
        )

    def subscribe(
        self,
        *,
        after: str | None = None,
        types: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        states: Sequence[str] | None = None,
        heartbeats: bool = False,
        live: bool = True,
    ) -> Subscription:
        """Return the project's events as an async iterator: each once, in order within a run.

        It then follows new commits; `live=False` ends it when nothing is new. `after`: the
        `checkpoint` of an earlier subscription, or "now"; None begins with the first event. The
        filters are lists: event types, kinds of run, states that an event leads to. Heartbeats
        come only on request or by type. Raises InvalidValue.
        """
        return subscription.subscribe(
            self.pool,
            self.project_id,
            after=after,
            types=types,
            kinds=kinds,
            states=states,
            heartbeats=heartbeats,
            live=live,
        )

    async def state_at(self, run_id: UUID | str, at: int | datetime) -> Run:
        """Return the run as it was after event `at` (a version) or at an instant (aware datetime).

        It is the fold over fewer events. Raises RunNotFound, UnknownVersion for a version or time
        at which the run had no state, FutureInstant or InvalidValue.
        """
        return await past.state_at(self.pool, self.project_id, run_id, at)

    async def diff(
        self, run_id: UUID | str, start: int | datetime, end: int | datetime | None = None
    ) -> Diff:
        """Return the run at two points, as of `state_at`, and the events between them.

        `end` None means now. Raises as `state_at`, and InvalidValue for an end before the start.
        """
        return await past.diff(self.pool, self.project_id, run_id, start, end)

    async def verify(self, run_id: UUID | str | None = None) -> Report:
        """Check one run or all: versions, hash chain, payloads, and each state against its events.

        What it finds is in the report, never raised. Raises RunNotFound or AccessDenied.
        """
        return await verify.verify(self.pool, self.project_id, run_id)

    # -- kinds --------------------------------------------------------------------------------

    async def pause_kind(
        self,
        kind: str,
        *,
        actor: str | None = None,
        reason: str | None = None,
        ahead: bool = False,
    ) -> Kind:
        """Stop claims of a kind until `resume_kind`; held runs go on.

        Raises InvalidValue, or UnknownKind unless it is said to be `ahead` of its first run.
        """
        return await kinds.change(
            self.project, kind, kinds.PAUSED, actor=actor, reason=reason, ahead=ahead
        )

    async def resume_kind(
        self,
        kind: str,
        *,
        actor: str | None = None,
        reason: str | None = None,
        ahead: bool = False,
    ) -> Kind:
        """Allow claims of a kind again, and wake the workers.

        Raises InvalidValue, or UnknownKind unless it is said to be `ahead` of its first run.
        """
        return await kinds.change(
            self.project, kind, kinds.RESUMED, actor=actor, reason=reason, ahead=ahead
        )

    async def limit_kind(
        self,
        kind: str,
        max_running: int | None,
        *,
        actor: str | None = None,
        reason: str | None = None,
        ahead: bool = False,
    ) -> Kind:
        """Limit how many runs of a kind all workers together hold; None lifts the limit.

        Runs held beyond a new, lower limit go on; none is claimed until there is room. Raises
        InvalidValue, or UnknownKind unless it is said to be `ahead` of its first run.
        """
        return await kinds.change(
            self.project,
            kind,
            kinds.LIMITED,
            actor=actor,
            max_running=max_running,
            reason=reason,
            ahead=ahead,
        )

    async def kinds(self) -> list[Kind]:
        """Return every kind that was ever submitted or changed, by name."""
        return await kinds.kinds(self.pool, self.project_id)

    async def kind_history(self, kind: str) -> list[KindEvent]:
        """Return every change of a kind with its actor, time and reason, oldest first.

        Raises InvalidValue.
        """
        return await kinds.history(self.pool, self.project_id, kind)

    # -- roles --------------------------------------------------------------------------------

    async def grant_role(
        self, role: str, member: str, *, actor: str | None = None, reason: str | None = None
    ) -> None:
        """Grant a role to a member, on record. Needs the right admin.

        Raises AccessDenied or InvalidValue.
        """
        await roles.grant(self.project, role, member, actor=actor, reason=reason)

    async def revoke_role(
        self, role: str, member: str, *, actor: str | None = None, reason: str | None = None
    ) -> None:
        """Revoke a role of a member, on record. Needs the right admin.

        Raises RoleNotHeld, AccessDenied or InvalidValue.
        """
        await roles.revoke(self.project, role, member, actor=actor, reason=reason)

    async def role_members(self, role: str | None = None) -> list[Member]:
        """Return the members of a role, or of every role. Raises InvalidValue."""
        return await roles.members(self.pool, self.project_id, role)

    async def role_history(self, role: str | None = None) -> list[Member]:
        """Return every grant and revocation of a role, or of all, oldest first.

        Raises InvalidValue.
        """
        return await roles.history(self.pool, self.project_id, role)

    # -- access -------------------------------------------------------------------------------

    async def grant_access(
        self,
        credential: str,
        rights: Iterable[str],
        *,
        actors: Iterable[str] | None = None,
        until: datetime | None = None,
        everywhere: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Grant a login or `token:<id>` rights, in place of those that it had; on record.

        `actors`: the names it may act in; a final `*` stands for any end. None: its own.
        `everywhere`: in all projects. Needs the right admin there.

        Raises AccessDenied or InvalidValue.
        """
        await access.grant(
            self.project,
            credential,
            rights,
            actors=actors,
            until=until,
            everywhere=everywhere,
            actor=actor,
            reason=reason,
        )

    async def revoke_access(
        self,
        credential: str,
        *,
        everywhere: bool = False,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Take all rights that a credential has in the project, on record.

        With `everywhere`, those in all projects. Raises AccessDenied or InvalidValue.
        """
        await access.revoke(
            self.project, credential, everywhere=everywhere, actor=actor, reason=reason
        )

    async def access_grants(self, credential: str | None = None) -> list[Grant]:
        """Return who may do what in the project; of one credential, if it is named.

        Without the right audit or admin, a credential sees its own grants alone.
        """
        return await access.grants(self.project, credential)

    async def control_history(
        self, *, after: int = 0, everywhere: bool = False, limit: int = 1_000
    ) -> list[ControlEvent]:
        """Return what was ordered in the project: kinds, roles, schedules, grants; oldest first.

        `everywhere`: what was ordered for the whole database in its place: projects, archives, API
        tokens, upgrades, grants in all projects. `after`: the number of an event. Needs the right
        audit. Raises InvalidValue.
        """
        return await control_history.control_history(
            self.project, after=after, everywhere=everywhere, limit=limit
        )

    # -- schedules ----------------------------------------------------------------------------

    async def schedule(
        self,
        name: str,
        kind: str,
        input: Any = None,  # noqa: A002  the field's own word
        *,
        cron: str,
        timezone: str = "UTC",
        actor: str | None = None,
        ahead: bool = False,
    ) -> Schedule:
        """Submit a run whenever `cron` (five fields) is due in `timezone`; replaces this name's.

        A worker's duty submits it, once for each due time; of those missed only the latest.
        Raises InvalidValue, PayloadTooLarge, or UnknownKind unless the kind is said to be `ahead`
        of its first run.
        """
        return await schedules.put(
            self.project, name, kind, input, cron=cron, timezone=timezone, actor=actor, ahead=ahead
        )

    async def unschedule(self, name: str) -> bool:
        """Remove a schedule; return whether there was one. Raises InvalidValue."""
        return await schedules.drop(self.project, name)

    async def pause_schedule(self, name: str, *, reason: str, actor: str | None = None) -> Schedule:
        """Have a schedule submit nothing until it is resumed, on record.

        Needs the right schedule. Raises ScheduleNotFound or InvalidValue.
        """
        return await schedules.pause(self.project, name, reason=reason, actor=actor)

    async def resume_schedule(
        self, name: str, *, reason: str, actor: str | None = None
    ) -> Schedule:
        """Have a paused schedule go on from its next due time, on record.

        What it missed is not made up for. Needs the right schedule. Raises ScheduleNotFound or
        InvalidValue.
        """
        return await schedules.resume(self.project, name, reason=reason, actor=actor)

    async def run_schedule(self, name: str, *, reason: str, actor: str | None = None) -> Run:
        """Submit a schedule's run now, on record; its due times stay. Once a second at most.

        Also while it is paused. Needs the rights schedule and submit. Raises ScheduleNotFound,
        InvalidValue or PayloadTooLarge.
        """
        return await schedules.run_now(self.project, name, reason=reason, actor=actor)

    async def schedules(self) -> list[Schedule]:
        """Return every schedule, by name."""
        return await schedules.schedules(self.project)
