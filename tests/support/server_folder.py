"""The folder for the data of test servers.

`python3 -m tests.support.server_folder` prints it, by the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BYTES = 8 << 30
"""Bytes that must be free: an engine's images, and a write-ahead log that grows to a gigabyte."""
MEMORY = Path("/dev/shm")  # noqa: S108  folders of their own are made there
DISK = Path("/tmp")  # noqa: S108  as above; whatever TMPDIR says: a socket's path must stay short, and its server reach it


def server_folder() -> Path:
    """Return a folder in memory, if it has room and runs programs: a test copies some 350 files."""
    if (
        not MEMORY.is_dir()
        or not os.access(MEMORY, os.W_OK)
        or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    ):
        return DISK
    return MEMORY if min(shutil.disk_usage(MEMORY).free, *_free()) > BYTES else DISK


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a folder for servers: its path is short, and every account can enter it."""
    folder = Path(tempfile.mkdtemp(prefix="runfold-", dir=server_folder()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free() -> list[int]:
    """Return the bytes that the machine and the control group still have."""
    known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    found = [int(known["MemAvailable"].split()[0]) * 1024]
    with suppress(OSError, ValueError):  # no group, or one without a limit
        group = Path("/sys/fs/cgroup")
        found.append(
            int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        )
    return found


if __name__ == "__main__":
    print(server_folder())
