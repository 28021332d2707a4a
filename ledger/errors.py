"""Every error the ledger raises: named after the fact, with the data as attributes (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import ClassVar
from uuid import UUID

from runfold.ledger.redaction import scrubbed


class LedgerError(Exception):
    """Base of every error the ledger raises on purpose."""


class InvalidValue(LedgerError):
    """A value given by the caller cannot be accepted; nothing was written."""

    def __init__(self, name: str, value: object, remedy: str) -> None:
        self.name, self.value, self.remedy = name, value, remedy
        shown = scrubbed(str(value) if isinstance(value, Decimal) else repr(value))
        if len(shown) > 120:  # noqa: PLR2004  an error line, not a dump of the input
            shown = shown[:117] + "..."
        super().__init__(f"{name} {shown}: {scrubbed(remedy)}")

    @classmethod
    def of_the_database(cls, values: object, sentence: str) -> InvalidValue:
        """Return the error of a statement whose refusal names the value by itself.

        The other values, contents and secrets among them, are no part of its text.
        """
        refused = cls("value", values, sentence)
        refused.args = (f"value refused: {scrubbed(sentence)}",)
        return refused


class InvalidQuery(InvalidValue):
    """A query of runs has a word that is not understood, or that no index answers.

    `word` is at `position`, from 1.
    """

    def __init__(self, word: str, position: int, remedy: str) -> None:
        super().__init__("query", word, remedy)
        self.word, self.position = word, position
        self.args = (f"{self.args[0]} (at character {position})",)


class PayloadTooLarge(LedgerError):
    """A payload exceeds the limit; nothing was written."""

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        self.what, self.size_bytes, self.limit_bytes = what, size_bytes, limit_bytes
        super().__init__(
            f"{what} is {size_bytes:,} bytes of JSON, the limit is {limit_bytes:,}: store the"
            " content elsewhere and pass a reference and its SHA-256,"
            " or raise RUNFOLD_PAYLOAD_LIMIT_BYTES"
        )


class UnknownProject(LedgerError):
    """The project does not exist in this database."""

    def __init__(self, project_id: str) -> None:
        self.project_id = project_id
        super().__init__(
            f"project {project_id!r} does not exist, or this login has no access to it:"
            f" `runfold project create {project_id}` makes it, `runfold access grant` opens it"
        )


class UnknownKind(LedgerError):
    """A filter, or an order without `ahead`, names a kind that the project has never seen."""

    def __init__(self, kind: str, known: Sequence[str] = (), remedy: str = "") -> None:
        self.kind, self.known = kind, tuple(known)
        some = ", ".join(known[:10]) or "none yet"
        super().__init__(f"no run of kind {kind!r} was ever submitted; known kinds: {some}{remedy}")


class RunNotFound(LedgerError):
    """No run with this id is in this project."""

    def __init__(self, run_id: UUID | str, project_id: str) -> None:
        self.run_id, self.project_id = run_id, project_id
        super().__init__(
            f"run {run_id} is not in project {project_id!r}: `runfold runs` lists what is"
        )


class IllegalTransition(LedgerError):
    """The state machine has no such edge; nothing was appended."""

    def __init__(self, run_id: UUID, from_state: str, to_state: str, detail: str = "") -> None:
        self.run_id, self.from_state, self.to_state = run_id, from_state, to_state
        super().__init__(
            f"run {run_id} is {from_state} and cannot become {to_state}"
            + (f": {detail}" if detail else "")
        )


class LeaseLost(LedgerError):
    """The token is no longer the run's current lease; the write was refused, on record."""

    def __init__(
        self, run_id: UUID, token: int, state: str, current_token: int | None, worker_id: str | None
    ) -> None:
        self.run_id, self.token, self.state = run_id, token, state
        self.current_token, self.worker_id = current_token, worker_id
        now = (
            f"held by {worker_id} under token {current_token}"
            if current_token is not None
            else f"{state}, not leased"
        )
        super().__init__(
            f"token {token} of run {run_id} is not current (the run is {now}): stop working on it"
        )


class LeaseRequired(LedgerError):
    """The run is leased, or would have to be: this write needs the lease's token."""

    def __init__(self, run_id: UUID, state: str, to_state: str, worker_id: str | None) -> None:
        self.run_id, self.state, self.to_state, self.worker_id = run_id, state, to_state, worker_id
        holder = f"held by {worker_id}" if worker_id else "not leased"
        super().__init__(
            f"run {run_id} is {state}, {holder}: {to_state} needs the lease that claim() returned,"
            " not a bare run id"
        )


class DecisionRefused(LedgerError):
    """The approval is another person's to decide; nothing was decided.

    `why`: the actor is the `asker` (or holds the lease), the `submitter` (`unread`: that cannot be
    told, who asked is archived or erased), lacks the `role`, or approved `twice`. The attempt is
    noted in the history.
    """

    def __init__(self, run_id: UUID, actor: str, why: str, detail: str) -> None:
        self.run_id, self.actor, self.why = run_id, actor, why
        remedy = "; `runfold roles list` shows who has it" if why == "role" else ""
        super().__init__(f"the approval of run {run_id} is not {actor}'s: {detail}{remedy}")


class NobodyHasRole(LedgerError):
    """The role has fewer members than must approve; its approvals wait for more members."""

    def __init__(self, role: str, members: int, needed: int) -> None:
        self.role, self.members, self.needed = role, members, needed
        have = "nobody has" if members == 0 else f"{members} of {needed} who must approve have"
        super().__init__(
            f"{have} the role {role!r}: `runfold roles grant {role} NAME --reason ...` grants it"
        )


class RoleNotHeld(LedgerError):
    """The member does not hold the role that was to be revoked."""

    def __init__(self, role: str, member: str) -> None:
        self.role, self.member = role, member
        super().__init__(
            f"{member} does not have the role {role!r}: `runfold roles list` shows its members"
        )


class VersionConflict(LedgerError):
    """The run has moved on since the version the caller looked at; nothing was appended."""

    def __init__(self, run_id: UUID, expected: int, actual: int) -> None:
        self.run_id, self.expected, self.actual = run_id, expected, actual
        super().__init__(
            f"run {run_id} is at version {actual}, not {expected}: read it again and decide again"
        )


class AttemptsExhausted(LedgerError):
    """The run has no attempt left to retry with; nothing was appended."""

    def __init__(self, run_id: UUID, attempt_count: int, max_attempts: int) -> None:
        self.run_id, self.attempt_count, self.max_attempts = run_id, attempt_count, max_attempts
        super().__init__(
            f"run {run_id} has used {attempt_count} of {max_attempts} attempts:"
            " end it as failed instead"
        )


class DuplicateKey(LedgerError):
    """The idempotency key was used before with other content; nothing was written."""

    def __init__(self, key: str, run_id: UUID, version: int) -> None:
        self.key, self.run_id, self.version = key, run_id, version
        super().__init__(
            f"key {key!r} already names event {version} of run {run_id} with other content: "
            "use another key, or repeat the first command unchanged"
        )


class DatabaseUnavailable(LedgerError):
    """The database cannot be reached or refuses the connection.

    Unless `temporary`, waiting does not help. `target`: its URL, where that may be what is wrong.
    """

    def __init__(self, target: str | None, reason: str, *, temporary: bool = True) -> None:
        self.target, self.reason, self.temporary = target, reason, temporary
        where = f" at {target}" if target else ""
        super().__init__(f"cannot use the database{where}: {reason}")


class LockTimeout(LedgerError):
    """Rows or a table stayed locked by others through every try; each try changed nothing."""

    def __init__(self, tries: int, limit: str, what: str, holder: str | None) -> None:
        self.tries, self.limit, self.what, self.holder = tries, limit, what, holder or None
        by = f", by {holder}: end it, or wait for its end, and" if holder else ":"
        again = "run the same command again"
        if not holder:
            again += " later; `runfold doctor` names who leaves a transaction open"
        how_long = f"for {limit}" if tries == 1 else f"through {tries} tries of {limit}"
        super().__init__(f"{what} stayed locked {how_long}{by} {again}")


class AccessDenied(LedgerError):
    """The credential, a login or an API token, may not do this."""

    ROLES: ClassVar = (
        "grant the program's login runfold_worker to run, runfold_reader to read,"
        " runfold_auditor to verify, runfold_projector to run projections; the schema's owner makes"
        " projects and upgrades"
    )
    GRANTS: ClassVar = "an admin of the project grants it with `runfold access grant`"
    GRANTS_EVERYWHERE: ClassVar = (
        "an admin of all projects grants it with `runfold access grant --all-projects`"
    )
    TOKENS: ClassVar = "have another made: `runfold access token`"

    def __init__(self, reason: str, remedy: str = ROLES) -> None:
        self.reason, self.remedy = reason, remedy
        super().__init__(f"{reason}: {remedy}")

    @classmethod
    def lacking(cls, reason: str) -> AccessDenied:
        """Return the error of a right that is lacking in a project, or in all projects."""
        return cls(reason, cls.GRANTS_EVERYWHERE if "in all projects" in reason else cls.GRANTS)


class DatabaseRefused(LedgerError):
    """The database refused a statement for a reason that has no error of its own here."""

    def __init__(self, sqlstate: str, reason: str) -> None:
        self.sqlstate, self.reason = sqlstate, reason
        super().__init__(f"the database refused the statement ({sqlstate}): {reason}")


class MissingPartition(LedgerError):
    """No partition of the event table takes this run's events; nothing was written."""

    def __init__(self, run_id: UUID | None = None, month: str | None = None) -> None:
        self.run_id, self.month = run_id, month
        super().__init__(
            f"no partition takes events of run {run_id}: if its month is archived,"
            f" `runfold archive attach {month}` brings it back, but for a new run the server's"
            " clock is wrong; if it is this month, run `runfold db upgrade`, and keep a reaper"
            " running"
        )


class ArchiveRefused(LedgerError):
    """A month cannot be exported, detached or attached now; nothing was changed."""

    def __init__(self, month: str, obstacles: Sequence[str]) -> None:
        self.month, self.obstacles = month, tuple(obstacles)
        super().__init__(f"the archive of {month} is left as it is: {'; '.join(obstacles)}")


class ArchiveUnusable(LedgerError):
    """The file of a month is missing, is not the one that was recorded, or cannot be written."""

    PUT_BACK: ClassVar = (
        "put back the file that was exported, or set RUNFOLD_ARCHIVE to the folder where it is"
    )

    def __init__(self, file: str, problem: str, remedy: str = PUT_BACK) -> None:
        self.file, self.problem = file, problem
        super().__init__(f"archive {file} {problem}: {remedy}")


class ArchiveUnwritable(ArchiveUnusable):
    """The file of a month cannot be written, as to a full disk; nothing was recorded."""


class FeedArchived(LedgerError):
    """Events that a reader of the feed has not read were archived; going on would skip them."""

    def __init__(self, months: str) -> None:
        self.months = tuple(months.split(", "))
        super().__init__(
            f"events of {months} that were not read yet are archived:"
            " `runfold projections rebuild NAME` folds them in;"
            f" a subscription needs `runfold archive attach {self.months[0]}`, or begins with now"
        )


class UnsupportedServer(LedgerError):
    """The server is older than the oldest supported PostgreSQL."""

    def __init__(self, version: str, oldest: int) -> None:
        self.version, self.oldest = version, oldest
        super().__init__(
            f"the server is PostgreSQL {version}; Runfold needs {oldest} or newer:"
            " upgrade the server"
        )


class NotMigrated(LedgerError):
    """The database lacks the schema, or has an older one than this code."""

    def __init__(self, found: str | None, wanted: str) -> None:
        self.found, self.wanted = found, wanted
        have = f"schema revision {found}" if found else "no Runfold schema"
        super().__init__(
            f"the database has {have}, this code needs {wanted}: run `runfold db upgrade`"
        )


class NewerSchema(LedgerError):
    """The database was migrated by newer code, and does not work with this one."""

    def __init__(self, found: str, wanted: str, oldest: str | None) -> None:
        self.found, self.wanted, self.oldest = found, wanted, oldest
        works = f" and works with code from {oldest} on" if oldest else ""
        super().__init__(
            f"the database is at schema revision {found}{works}, newer than this code ({wanted}):"
            " install a newer runfold"
        )


class FeedMoved(LedgerError):
    """The events were restored into another cluster, where transaction ids mean something else."""

    def __init__(self) -> None:
        super().__init__(
            "these events were restored into another PostgreSQL cluster, where transaction ids"
            " mean something else: run `runfold projections rebase`"
        )


class CheckpointUnknown(LedgerError):
    """A checkpoint belongs to a history that this database does not have; nothing was read.

    It is another database's, or a crash, a restore or a fail-over undid what it had seen.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        super().__init__(
            f"checkpoint {checkpoint} belongs to a history that this database does not have: it is "
            "another database's, or a restore or fail-over lost what it had read. Go on from an "
            "older checkpoint, or read again from the start"
        )


class FeedOnStandby(LedgerError):
    """A standby's snapshots omit what is in progress: a feed read there would lose events."""

    def __init__(self) -> None:
        super().__init__("the feed cannot be read on a standby: give the URL of the primary")


class EmbeddedPostgresError(LedgerError):
    """The built-in PostgreSQL cannot be started, shared or stopped."""


class ConfigurationError(LedgerError):
    """The settings contradict each other or are out of range."""


class ScheduleNotFound(LedgerError):
    """No schedule of the project has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, tuple(known)
        super().__init__(f"no schedule is named {name!r}; there are: {', '.join(known) or 'none'}")


class WebhookNotFound(LedgerError):
    """The project has no webhook or delivery of this id."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        super().__init__(
            f"no webhook or delivery is {wanted!r}: `runfold webhooks list` names the webhooks,"
            " `runfold webhooks deliveries` what was sent to them"
        )


class UnknownEvent(LedgerError):
    """An event type or schema version that this code does not know where it must."""

    def __init__(self, type_: str, schema_version: int, why: str) -> None:
        self.type, self.schema_version = type_, schema_version
        super().__init__(
            f"event type {type_!r} schema version {schema_version} is not known here: {why}"
        )


class UnknownVersion(LedgerError):
    """The run has no such version, or did not exist at that time."""

    def __init__(self, run_id: UUID, asked: int | datetime, newest: int) -> None:
        self.run_id, self.asked, self.newest = run_id, asked, newest
        at = f"version {asked}" if isinstance(asked, int) else f"time {asked.isoformat()}"
        super().__init__(f"run {run_id} had no state at {at}: its versions are 1 to {newest}")


class FutureInstant(LedgerError):
    """A state was asked for at a time that has not come yet, by the database's clock."""

    def __init__(self, asked: datetime, now: datetime) -> None:
        self.asked, self.now = asked, now
        super().__init__(
            f"{asked.isoformat()} is in the future: the database's clock says {now.isoformat()}"
        )


class BeforeFirstEvent(LedgerError):
    """The project's runs were asked for at a time before any of them was submitted."""

    def __init__(self, project_id: str, asked: datetime, first: datetime) -> None:
        self.project_id, self.asked, self.first = project_id, asked, first
        super().__init__(
            f"nothing was recorded in project {project_id!r} at {asked.isoformat()}:"
            f" its first event is of {first.isoformat()}"
        )
