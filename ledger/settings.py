"""Every setting, from the environment (`RUNFOLD_*`), validated where it enters."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from runfold.ledger.errors import ConfigurationError, InvalidValue
from runfold.ledger.redaction import Redaction, chosen_names
from runfold.ledger.validation import check_actor, is_secure

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_SHOWN: Final = 100
STATEMENT_SECONDS: Final = 300.0
CALLBACK: Final = "/sign-in/callback"
"""The path to which an identity provider sends people back."""


class Settings(BaseModel):
    """Every setting, with its default and limits."""

    model_config = ConfigDict(frozen=True)

    url: SecretStr | None = None
    """The database's URL; None means the embedded one."""
    home: Path | None = None
    """Where the embedded PostgreSQL keeps its data."""
    env: Literal["development", "production"] = "development"
    project: str = "default"
    actor: str | None = None
    """The actor of calls that name none; None means the login name."""
    lease_ttl_seconds: float = Field(default=60, gt=0, le=86_400)
    heartbeat_seconds: float = Field(default=15, gt=0, le=86_400)
    held_sleep_seconds: float | None = Field(default=None, ge=0, le=86_400)
    """A handler's sleep up to this long holds its run, a longer one gives it back.

    None means RUNFOLD_HEARTBEAT_SECONDS.
    """
    reaper_seconds: float = Field(default=60, gt=0, le=86_400)
    poll_seconds: float = Field(default=1, gt=0, le=3_600)
    """How often an idle worker looks for work without a wake-up."""
    listen: bool = True
    """Whether workers hear wake-ups; off behind a pooler in transaction mode, which drops them."""
    prepared_statements: bool = True
    """Whether connections keep prepared statements; off behind a pooler that lacks them."""
    grace_seconds: float = Field(default=30, ge=0, le=86_400)
    """How long the runs of a stopping worker may go on."""
    cancel_seconds: float = Field(default=30, ge=0, le=86_400)
    """How long a handler may take to stop once its run is to be cancelled; then the run ends."""
    release: AwareDatetime | None = None
    """When this release of the handlers was made; None means when the handler's file changed."""
    payload_limit_bytes: int = Field(default=65_536, gt=0, le=16_777_216)
    redact: bool = True
    """Whether secrets in content are replaced by a mark before they are stored."""
    redact_names: str = ""
    """More names whose values are secrets, separated by commas; `-name` for one less."""
    projections: str = ""
    """Modules that declare projections of your own, separated by commas."""
    archive: Path | None = None
    """The folder of archived months; for reading, instead of the one that was recorded."""
    pool_size: int = Field(default=10, gt=0, le=1_000)
    statement_seconds: float = Field(default=STATEMENT_SECONDS, gt=0, le=86_400)
    """How long a statement may take; then it is cancelled, and its outcome is unknown."""
    oidc_issuer: str | None = None
    """The identity provider that signs people in to the pages; None means none does."""
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_redirect: str | None = None
    """Where the provider sends people back to: the public URL of `/sign-in/callback`."""

    @field_validator(
        "home", "oidc_issuer", "oidc_client_id", "oidc_client_secret", "oidc_redirect",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("actor")
    @classmethod
    def _is_an_actor(cls, value: str | None) -> str | None:
        try:
            return None if value is None else check_actor(value)
        except InvalidValue as error:
            raise ValueError(error.remedy) from error

    @field_validator("redact_names")
    @classmethod
    def _are_names(cls, value: str) -> str:
        chosen_names(value)
        return value

    @model_validator(mode="after")
    def _three_beats_fit_in_a_lease(self) -> Self:
        if self.heartbeat_seconds * 3 > self.lease_ttl_seconds:
            raise ValueError(
                f"three heartbeats of {self.heartbeat_seconds} s do not fit in a lease of"
                f" {self.lease_ttl_seconds} s:"
                " lower RUNFOLD_HEARTBEAT_SECONDS or raise RUNFOLD_LEASE_TTL_SECONDS"
            )
        return self

    @model_validator(mode="after")
    def _a_provider_is_whole(self) -> Self:
        parts = {
            "ISSUER": self.oidc_issuer,
            "CLIENT_ID": self.oidc_client_id,
            "CLIENT_SECRET": self.oidc_client_secret,
            "REDIRECT": self.oidc_redirect,
        }
        missing = [f"RUNFOLD_OIDC_{name}" for name, value in parts.items() if value is None]
        if missing and len(missing) < len(parts):
            raise ValueError(f"an identity provider needs {', '.join(missing)} as well")
        for name, url in (("ISSUER", self.oidc_issuer), ("REDIRECT", self.oidc_redirect)):
            if url is not None and not is_secure(url, loopback=self.env == "development"):
                raise ValueError(
                    f"RUNFOLD_OIDC_{name} {url[:MAX_SHOWN]!r}: must be an https URL without user,"
                    " query and fragment; in development http works on a loopback address"
                )
        if self.oidc_redirect and not self.oidc_redirect.endswith(CALLBACK):
            raise ValueError(f"RUNFOLD_OIDC_REDIRECT must end with {CALLBACK}")
        return self

    @property
    def longest_held_sleep(self) -> float:
        """The longest sleep, in seconds, that a run is held through."""
        return (
            self.heartbeat_seconds if self.held_sleep_seconds is None else self.held_sleep_seconds
        )

    def redaction(self, tell: Callable[[str, str], None] | None = None) -> Redaction | None:
        """Return what takes secrets out of content and reasons; None if nothing does."""
        return Redaction(self.redact_names, tell) if self.redact else None

    @classmethod
    def load(cls) -> Self:
        """Read the settings; raise a ConfigurationError that names the variable and its range."""
        variables = {name: f"RUNFOLD_{name.upper()}" for name in cls.model_fields}
        values = {n: os.environ[v] for n, v in variables.items() if v in os.environ}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigurationError("; ".join(map(_problem, error.errors()))) from None


def _problem(details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ")
    if not details["loc"]:
        return message
    name = str(details["loc"][0])
    # A URL may hold a password.
    value = (
        "" if name in {"url", "oidc_client_secret"} else f" {str(details['input'])[:MAX_SHOWN]!r}"
    )
    return f"RUNFOLD_{name.upper()}{value}: {message}"


def default_worker_id(speaker: str | None = None) -> str:
    """Return a name for this worker: its host and eight random hex digits.

    It begins with the credential that may speak for names of its own only.
    """
    name = f"{socket.gethostname()[:100] or 'host'}:{secrets.token_hex(4)}"
    return name if speaker is None else f"{speaker}:{name}"[-200:]


def default_actor() -> str:
    """Return the login name of the person at the keyboard."""
    try:
        return getpass.getuser() or "unknown"
    except (KeyError, OSError):  # an account number without a name, as in many containers
        return "unknown"
