"""Python programs that start at once: forks of an interpreter that has the imports behind it.

An interpreter that imports Runfold costs 0.4 s of CPU before its first line, and the tests start
some 300. A fork is a process of its own in all that a test sees: pid, pipes, signals, environment
and exit code. Only the list of processes shows the words of the interpreter that it came from, so
tests of the start itself and of that list start an interpreter.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T", str, bytes)
ROOT = Path(__file__).parents[2]
SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of linux/prctl.h."""


class Forked(subprocess.Popen[T], Generic[T]):
    """`subprocess.Popen` of `[sys.executable, options…, "-m" or "-c", program, words…]`."""

    def _execute_child(self, args: Any, executable: Any, *more: Any) -> None:
        """Start the program: the step of `Popen` that has the ends of all pipes."""
        if sys.platform != "linux":
            super()._execute_child(args, executable, *more)  # type: ignore[misc]  # not public
            return
        if more[2] or more[7] or more[-2]:  # pass_fds, shell, start_new_session
            raise NotImplementedError("start an interpreter for what a fork cannot have")
        cwd, environment = more[3:5]
        ends: tuple[int, ...] = more[8:14]  # for each of the three pipes both; -1 for none
        given = (ends[0], ends[3], ends[5])
        theirs = [number if end == -1 else end for number, end in enumerate(given)]
        own = dict(os.environ if environment is None else environment)
        self.pid = _interpreter(args, own).fork(args, own, cwd, theirs)
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]  # not public


def run(
    words: Sequence[str], *, timeout: float = 120, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program as a fork to its end, as `subprocess.run` does, and return what it printed."""
    with Forked[str](
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(words, process.returncode, out, err)


class _Interpreter:
    """An interpreter with certain options and settings, which forks when it is asked to."""

    def __init__(self, options: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        words = [sys.executable, *options, "-m", "tests.support.forked", str(theirs.fileno())]
        self._process = subprocess.Popen(
            words, env=environment, cwd=ROOT, pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()

    def fork(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: str | os.PathLike[str] | None,
        ends: Sequence[int],
    ) -> int:
        """Start a program with these words and ends of pipes, and return its pid: a child of ours.

        The fork's parent ends at once. For that moment this process takes in orphans of its line.
        """
        request = os.memfd_create("request")
        os.write(
            request, json.dumps([words, dict(environment), str(folder or Path.cwd())]).encode()
        )
        with self._lock:
            libc = ctypes.CDLL(None)
            libc.prctl(SUBREAPER, 1)
            socket.send_fds(self._socket, [b"?"], [request, *ends])
            pid = int.from_bytes(self._socket.recv(4), "little")
            libc.prctl(SUBREAPER, 0)
        os.close(request)
        return pid


_interpreters: dict[tuple[str, ...], _Interpreter] = {}
_lock = threading.Lock()


def _interpreter(words: Sequence[str], environment: Mapping[str, str]) -> _Interpreter:
    """Return the interpreter with these options and the settings that it reads at its start."""
    program = next(place for place, word in enumerate(words) if word in {"-m", "-c"})
    read = {
        name: value
        for name, value in environment.items()
        if name.startswith(("PYTHON", "LC_", "LANG", "LD_", "FAKETIME", "TZ"))
    }
    key = (*words[1:program], *(f"{name}={value}" for name, value in sorted(read.items())))
    with _lock:
        if key not in _interpreters:
            started = {"PATH": os.environ["PATH"], **read}
            _interpreters[key] = _Interpreter(words[1:program], started)
        return _interpreters[key]


def spare_what_is_loaded() -> None:
    """Let the collector of garbage pass over all that is there, which stays, and come less often.

    By default it comes with every 700th object more: 6 % of the time of all tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def serve(number: int) -> None:
    """Fork for each request of a socket until its other side ends; in a fork, run the program."""
    gc.disable()
    import runfold.console.cli.commands.worker
    import runfold.console.cli.main  # noqa: F401  both bring nearly all that a program imports

    spare_what_is_loaded()
    gc.enable()
    with socket.socket(fileno=number) as asked:
        while True:
            said, received, _, _ = socket.recv_fds(asked, 1, 4)
            if not said:
                return
            pid = _fork()
            if pid == 0:
                break
            for each in received:
                os.close(each)
            asked.send(pid.to_bytes(4, "little"))
    request, *ends = received
    words, environment, folder = json.loads(os.pread(request, 10_000_000, 0))
    for theirs, ours in zip(ends, range(3), strict=True):
        os.dup2(theirs, ours)
    os.closerange(3, 256)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _renew_streams()
    _run(words)


def _fork() -> int:
    """Fork a process whose parent has ended; return its pid, or 0 in the process itself."""
    told, tell = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            return 0
        os.write(tell, pid.to_bytes(4, "little"))
        os._exit(0)
    os.waitpid(between, 0)
    pid = int.from_bytes(os.read(told, 4), "little")
    os.close(told)
    os.close(tell)
    return pid


def _renew_streams() -> None:
    """Make standard input, output and error anew, as the interpreter does at its start."""
    for name, number, mode in (("stdin", 0, "rb"), ("stdout", 1, "wb"), ("stderr", 2, "wb")):
        old = getattr(sys, name)
        new = io.TextIOWrapper(
            open(number, mode, closefd=False),  # noqa: SIM115  it stays open, as at a start
            encoding=old.encoding,
            errors=old.errors,
            line_buffering=number == 2 or os.isatty(number),
            write_through=old.write_through,
        )
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _run(words: Sequence[str]) -> None:
    """Run a program as the main module, and end as it does."""
    place = next(place for place, word in enumerate(words) if word in {"-m", "-c"})
    kind, program, *arguments = words[place:]
    sys.argv = [program if kind == "-m" else kind, *arguments]
    sys.path[0] = str(Path.cwd()) if kind == "-m" else ""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if kind == "-m":
        sys.exit(importlib.import_module(program).main())
    exec(compile(program, "<string>", "exec"), main.__dict__)  # noqa: S102  as -c does


if __name__ == "__main__":
    serve(int(sys.argv[1]))
