"""The folder of a built-in server: its contents, how it is made, and how programs run on it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final

from runfold.ledger.errors import EmbeddedPostgresError
from runfold.ledger.postgres.embedded.programs import Account, is_root, runnable_programs

SOCKET_NAME: Final = ".s.PGSQL.5432"
SOCKET_PATH_BYTES: Final = 103  # macOS; Linux takes 107
LOG_BYTES: Final = 10_000_000
LOG_DAYS: Final = 7

# What a server writes in months is bounded in two ways. Its log is a ring of seven files, one per
# weekday, truncated when its day comes round; PostgreSQL does that at midnight only, so each start
# drops what is old or large. And the level is LOG: failed statements are reported to their client;
# here they would be without bound, and would keep payloads that were erased from the ledger.
DEFAULTS: Final = {
    "cluster_name": "runfold",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "server-%a.log",
    "log_rotation_age": "1440",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}
UNSAFE: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""What makes a server fast that may lose everything when it crashes."""


class Store:
    """One home: `data` (whole or absent), `socket`, settings and locks.

    One client at a time changes it: see `client.py`.
    """

    def __init__(self, home: Path, settings: Mapping[str, str], *, ephemeral: bool) -> None:
        self.home = home.expanduser().resolve()
        self.data = self.home / "data"
        self.log_dir = self.data / "log"
        self.account = Account.for_store(self.data)
        self.ephemeral = ephemeral
        self._settings = {**DEFAULTS, **(UNSAFE if ephemeral else {}), **settings}
        self._marker = self.home / "ephemeral"

    @cached_property
    def socket_dir(self) -> Path:
        """The folder of the socket: in the home, or under /tmp if that path cannot be one."""
        inside = self.home / "socket"
        longest = os.fsencode(inside / f"{SOCKET_NAME}.lock")
        # A comma separates two hosts, and what is not Unicode can stand in no URL.
        is_text = longest == longest.decode(errors="replace").encode()
        if len(longest) <= SOCKET_PATH_BYTES and b"," not in longest and is_text:
            return inside
        key = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path("/tmp") / f"runfold-{self.account.uid}-{key}"  # noqa: S108  checked when made

    def make_home(self) -> None:
        """Make the home and the missing folders above it; change no folder that was in use before.

        Raises EmbeddedPostgresError if the server's account could not enter it.
        """
        mode = 0o711 if is_root() else 0o700
        for folder in reversed(
            [step for step in (self.home, *self.home.parents) if not step.exists()]
        ):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        if not is_root():
            return
        if not any(self.home.iterdir()):
            self.home.chmod(mode)
        if barrier := self.account.barrier(self.home):
            raise EmbeddedPostgresError(
                f"root's server runs as uid {self.account.uid}, which cannot enter {barrier}: "
                "set RUNFOLD_HOME to one it can, such as /var/lib/runfold"
            )

    def complete(self) -> None:
        """Make what is missing: the data, and the folder of the socket.

        Raises EmbeddedPostgresError if what is there is not a store of this kind and version.
        """
        if not (self.data / "PG_VERSION").exists():
            self._create_data()
        if self._marker.exists() is not self.ephemeral:
            kind = "a lasting store" if self.ephemeral else "an ephemeral store, to be deleted"
            raise EmbeddedPostgresError(f"{self.home} holds {kind}: choose another home")
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != str(self._major):
            raise EmbeddedPostgresError(
                f"{self.data} was made by PostgreSQL {made_by}, the programs here are "
                f"{self._major}: install PostgreSQL {made_by} again, pg_dumpall with it, move the "
                "folder away, start, load the dump"
            )
        self._make_socket_dir()

    def _create_data(self) -> None:
        if self.data.exists() and any(self.data.iterdir()):
            raise EmbeddedPostgresError(
                f"{self.data} is not a PostgreSQL data folder: choose another home"
            )
        self._marker.unlink(missing_ok=True)
        if self.ephemeral:
            self._marker.touch()
        self._remove_all("data.new-*")
        # A new name each time: the initdb of a killed client may still write to the last one.
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.home))
        self.account.own(new)
        self._initdb(new)
        with (new / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.write("\ninclude '../server.conf'\n")
        new.rename(self.data)

    def _initdb(self, new: Path) -> None:
        self.account.check_name()
        # The locale is fixed: text sorts alike everywhere, and no machine must install one.
        locale = ["--locale=C", "--encoding=UTF8"]
        if self._major >= 17:  # noqa: PLR2004  the first with a built-in locale provider
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        access = ["--username=postgres", "--auth-local=trust", "--auth-host=reject"]
        sync = ["--no-sync"] if self.ephemeral else []
        self.run("initdb", f"--pgdata={new}", "--no-instructions", *access, *locale, *sync)

    @cached_property
    def _major(self) -> int:
        printed = self.run("postgres", "--version")
        match = re.search(r"\(PostgreSQL\) (\d+)", printed)
        if match is None:
            raise EmbeddedPostgresError(f"{self._programs} is not PostgreSQL: {printed.strip()}")
        return int(match[1])

    def _make_socket_dir(self) -> None:
        with suppress(FileExistsError):
            self.socket_dir.mkdir(mode=0o700)
        status = self.socket_dir.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {
            os.geteuid(),
            self.account.uid,
        }:
            raise EmbeddedPostgresError(
                f"{self.socket_dir} belongs to someone else: have it removed"
            )
        self.socket_dir.chmod(0o700)  # whoever reaches the socket is superuser
        self.account.own(self.socket_dir)

    def refresh(self) -> None:
        """Write the settings and drop what no server needs; none may be running."""
        for old in self.home.glob("programs-*"):
            if old not in self._programs.parents:
                shutil.rmtree(old, ignore_errors=True)
        oldest = time.time() - (LOG_DAYS - 1) * 86400
        for log in self.log_dir.glob("server-*.log"):
            status = log.lstat()
            if status.st_mtime < oldest or status.st_size > LOG_BYTES:
                log.unlink()
        self._write_settings()

    def _write_settings(self) -> None:
        where = str(self.socket_dir).replace('"', '""')
        fixed = {"port": "5432", "unix_socket_directories": f'"{where}"'}  # in quotes: it is a list
        lines = [
            f"{name} = {_quoted(value)}\n" for name, value in {**self._settings, **fixed}.items()
        ]
        new = self.home / "server.conf.new"
        new.unlink(missing_ok=True)
        with new.open("x", encoding="utf-8") as conf:
            conf.writelines(lines)
        new.chmod(0o644)  # the server's account reads it
        new.replace(self.home / "server.conf")

    def clear_away(self) -> None:
        """Remove what is outside the home, and of an ephemeral store all that is ours."""
        if self.socket_dir.parent != self.home:
            shutil.rmtree(self.socket_dir, ignore_errors=True)
        # What the store was made for decides, not how it was opened.
        if not self._marker.exists():
            return
        self._remove_all("data.new-*")
        with suppress(FileNotFoundError):
            self.data.rename(self.home / "data.new-removed")
        self._remove_all("data.new-*", "programs-*", "socket")
        for name in ("server.conf", "server.conf.new", "ephemeral", "clients.lock", "start.lock"):
            (self.home / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.home.rmdir()

    def _remove_all(self, *patterns: str) -> None:
        for pattern in patterns:
            for folder in self.home.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> str:
        """Run a PostgreSQL program as the account, in the home, and return what it printed.

        Raises EmbeddedPostgresError with that and the end of the server's log if it fails.
        """
        code, printed = self.call(program, *arguments)
        if code:
            raise EmbeddedPostgresError(
                f"{program} failed for {self.home} (exit {code}):\n{printed}{self._log_tail()}"
            )
        return printed

    def call(self, program: str, *arguments: str) -> tuple[int, str]:
        """Run a PostgreSQL program as the account, in the home; return its exit code and output."""
        other = is_root()
        # A file, because the server's logger would keep a pipe open.
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            ended = subprocess.run(  # noqa: S603  our own programs, and no shell
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.home,
                env=_environment(),
                user=self.account.uid if other else None,
                group=self.account.gid if other else None,
                extra_groups=[] if other else None,
                start_new_session=True,  # Ctrl-C ends our program, which then stops the server
                check=False,
            )
            output.seek(0)
            return ended.returncode, output.read()

    @cached_property
    def _programs(self) -> Path:
        return runnable_programs(self.home, self.account)

    def _log_tail(self) -> str:
        logs = sorted(self.log_dir.glob("server-*.log"), key=lambda log: log.stat().st_mtime)
        return logs[-1].read_text(errors="replace")[-2000:] if logs else ""


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _environment() -> dict[str, str]:
    """Return the variables that PostgreSQL's programs need.

    The server outlives this process, may belong to another account, and shows its environment to
    that account; so it gets no password or key of this process, and no variable that steers it.
    """
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}
