"""What every operation needs of a project: connections, settings, the actor, the wake-ups."""

from __future__ import annotations

from typing import Any

from runfold.ledger import log, names
from runfold.ledger.arguments import Target
from runfold.ledger.operations.wakeups import Waker
from runfold.ledger.payload import PayloadRules
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.run import Lease
from runfold.ledger.settings import Settings, default_actor
from runfold.ledger.validation import check_actor, check_text, order_reason


class Project:
    """One project in one database, as the operations see it."""

    def __init__(
        self, pool: Pool, project_id: str, settings: Settings, speaker: str | None = None
    ) -> None:
        self.pool, self.project_id, self.settings = pool, project_id, settings
        self.speaker = speaker
        """The credential, where it may act for itself only; None for the owner's."""
        self.actor = settings.actor or speaker or default_actor()
        """The actor of calls that name none."""
        self.waker = Waker(pool, project_id)
        self.rules = PayloadRules(settings.payload_limit_bytes, settings.redaction(self._redacted))

    def log(self, **bound: Any) -> Any:
        """Return a logger that names the project."""
        return log.logger(project_id=self.project_id, **bound)

    def _redacted(self, field: str, what: str) -> None:
        """Log that a secret was taken out of content, once for each field and kind of secret."""
        self.log().warning(
            names.SECRET_REDACTED,
            field=field,
            known_by=what,
            then="pass a reference to the secret; if it is not one, set RUNFOLD_REDACT_NAMES=-name",
        )

    def order_reason(self, reason: str | None) -> str | None:
        """Return a reason for the control history, without secrets. Raises InvalidValue."""
        return order_reason(reason, self.rules.redaction)

    def actor_or_default(self, actor: str | None) -> str:
        """Return the named actor, or the default one. Raises InvalidValue."""
        return check_actor(self.actor if actor is None else actor)

    def actor_of(self, run: Target, actor: str | None) -> str:
        """Return who acts on a run: the named actor, else the lease's worker, else the default.

        Raises InvalidValue.
        """
        if actor is None and isinstance(run, Lease):
            return check_text("worker_id", run.worker_id)
        return self.actor_or_default(actor)

    def named_actor(self, run: Target, actor: str | None) -> str | None:
        """Return the actor for SQL: None for the holder of a lease, which the ledger knows."""
        return None if actor is None and isinstance(run, Lease) else self.actor_of(run, actor)
