"""What can be wrong with a projection: named after the fact, with the data as attributes."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from runfold.ledger.errors import LedgerError
from runfold.projections.rebuild_plan import BadRun


class ProjectionNotFound(LedgerError):
    """No projection of this name is declared, or none was ever run in this database."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, tuple(known)
        super().__init__(
            f"no projection is named {name!r}; there are: {', '.join(known) or 'none'}"
        )


class ProjectionUnseen(ProjectionNotFound):
    """The login has no right in all projects, which the progress of a projection covers."""

    def __init__(self, name: str) -> None:
        super().__init__(name, ())
        text = (
            "the progress of projections is that of all projects, where this login has no right: "
            f"read view projection.{name} in SQL, which has the rows of your projects, or have the "
            "right granted: `runfold access grant LOGIN --rights read --all-projects`"
        )
        self.args = (text,)


class OtherVersion(LedgerError):
    """The database has another version of the projection than this code; two never run at once."""

    def __init__(self, name: str, declared: int, found: int) -> None:
        self.name, self.declared, self.found = name, declared, found
        remedy = (
            "rebuild it to put this one in its place"
            if declared > found
            else f"deploy the newer code everywhere; to go back, declare this one as {found + 1}"
        )
        super().__init__(
            f"projection {name!r} is at version {found} in the database, "
            f"this code declares {declared}: {remedy}"
        )


class DeclaredTwice(LedgerError):
    """The code declares a projection's name more than once."""

    def __init__(self, name: str, versions: Sequence[int]) -> None:
        self.name, self.versions = name, tuple(versions)
        shown = " and ".join(map(str, versions))
        super().__init__(
            f"projection {name!r} is declared twice, as versions {shown}: "
            "one version runs at a time"
        )


class Redeclared(LedgerError):
    """The declaration has changed and its version has not: the table was folded by other rules."""

    def __init__(self, name: str, version: int) -> None:
        self.name, self.version = name, version
        super().__init__(
            f"the declaration of projection {name!r} has changed: "
            f"raise its version from {version}, and rebuild it"
        )


class TableChanged(LedgerError):
    """The projection's table is not as declared: somebody changed it by hand."""

    def __init__(self, name: str, table: str, differences: Sequence[str]) -> None:
        self.name, self.table, self.differences = name, table, tuple(differences)
        super().__init__(
            f"table {table} of projection {name!r} was changed by hand: {'; '.join(differences)}"
        )


class ProjectionFailed(LedgerError):
    """The projection stopped at an event that it cannot process; its checkpoint stays before it."""

    def __init__(self, name: str, run_id: UUID, version: int, reason: str) -> None:
        self.name, self.run_id, self.version, self.reason = name, run_id, version, reason
        super().__init__(
            f"projection {name!r} stopped at version {version} of run {run_id}: {reason}; "
            "fix the cause and resume it, or skip the event"
        )


class ProjectionPaused(LedgerError):
    """Somebody paused the projection."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"projection {name!r} is paused: resume it first")


class NotStopped(LedgerError):
    """There is no event to skip: the projection is not stopped at one."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"projection {name!r} is not stopped at an event, so there is none to skip"
        )


class RebuildFailed(LedgerError):
    """With `strict`, a run's history cannot be folded; what was done until then is kept."""

    def __init__(self, projection: str, bad: BadRun) -> None:
        self.projection, self.run_id, self.error = projection, bad.run_id, bad.error
        super().__init__(f"the rebuild of {projection} stopped at run {bad.run_id}: {bad.error}")


class RebuildRunning(LedgerError):
    """Another process is working on the same rebuild."""

    def __init__(self, projection: str, rebuild_id: int) -> None:
        self.projection, self.rebuild_id = projection, rebuild_id
        super().__init__(
            f"rebuild {rebuild_id} of {projection} is running already: "
            "wait for it, or stop it to resume it here"
        )
