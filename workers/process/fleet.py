"""Several processes: started together, restarted when one dies, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

from runfold.ledger import log, names
from runfold.workers.errors import NeverBegan
from runfold.workers.process.beginning import Telling
from runfold.workers.process.bounds import END_SECONDS, HURRY_SECONDS

RESTART_SECONDS: Final = 1.0
MAX_RESTART_SECONDS: Final = 60.0
_STDERR: Final = 2
MAX_TRIES: Final = 5
"""How often in a row a part that never began may end before it begins."""
PATIENCE_SECONDS: Final = 2.0
"""How much longer than its own bound a process may take to end."""
LOOK_SECONDS: Final = 1.0
"""How far apart looks are for a sign of life."""
SILENCE_SECONDS: Final = 60.0
"""The least silence after which a process is taken for frozen."""
BEFORE_IT_BEGINS: Final = 10
"""How many times longer before it has begun: loading a library may keep the interpreter's lock."""
LEASES_OF_SILENCE: Final = 2
"""After this many lease times another worker has taken over all that a frozen process held."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of a fleet: `runfold` with these words, under a name for the log.

    `sockets` are descriptors that it inherits; one that is `quiet` does not tell that it began.
    """

    name: str
    words: Sequence[str]
    sockets: Sequence[int] = ()
    quiet: bool = False


def silence_of(lease: float) -> float:
    """Return the seconds of silence after which a process is frozen, for this time of a lease."""
    return max(SILENCE_SECONDS, LEASES_OF_SILENCE * lease)


class Fleet:
    """Runs `runfold` in many processes, until a signal ends them."""

    def __init__(
        self,
        parts: Sequence[Part],
        environment: dict[str, str] | None = None,
        *,
        grace: float = 0.0,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        """Start nothing yet.

        `grace`: the seconds that the processes let their runs go on for; `silence`: those after
        which one that gives no sign of life is killed.
        """
        self._parts, self._grace = parts, grace
        self._silence = silence
        self._environment = {**os.environ, **(environment or {})}
        self._alive: set[Process] = set()
        self._stopping = asyncio.Event()
        self._failure: NeverBegan | None = None

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Keep the processes alive until SIGTERM or SIGINT, pass it on, return when all ended.

        `ready` is called once signals are heard.
        One that is frozen is killed and replaced, one that has not ended in its time killed. Raises
        NeverBegan, once the others have ended, if a part ends MAX_TRIES times and never begins.
        """
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._pass_on)
                stack.callback(loop.remove_signal_handler, number)
            try:
                ready()
                await asyncio.gather(*(self._keep(part) for part in self._parts))
            finally:
                self._kill()
        if self._failure is not None:
            raise self._failure

    async def _keep(self, part: Part) -> None:
        tries, has_begun = 0, False
        while not self._stopping.is_set():
            try:
                code, told = await self._lived(part)
            except OSError as error:  # no memory or no descriptors: the others go on
                log.logger().error(names.PROCESS_DIED, part=part.name, reason=str(error))
                await self._wait_to_restart(tries)
                continue
            if self._stopping.is_set():
                return
            log.logger().error(names.PROCESS_DIED, part=part.name, exit_code=code)
            has_begun = has_begun or told.has_begun
            tries = 0 if told.has_begun else tries + 1
            if tries == MAX_TRIES and not has_begun:
                self._give_up(NeverBegan(part.name, tries, code, told.reason))
                return
            await self._wait_to_restart(tries)

    async def _lived(self, part: Part) -> tuple[int, Telling]:
        """Start a process and wait for its end; return its exit code and what it told."""
        reading, writing = os.pipe()
        try:
            try:
                process = await self._start(part, writing)
            finally:
                os.close(writing)
            self._alive.add(process)
            if self._stopping.is_set():  # since its start: it was not among those that were told
                self._tell(process)
            told = Telling(reading)
            code = await self._outlived(part, process, told)
            self._alive.discard(process)
            told.hear()
            return code, told
        finally:
            os.close(reading)

    async def _outlived(self, part: Part, process: Process, told: Telling) -> int:
        """Wait for the end of a process, and kill it when it was silent for too long.

        What counts is looks, and no clock: whatever freezes this process as well is one look.
        """
        silent = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    return await process.wait()
            silent = 0.0 if told.hear() else silent + LOOK_SECONDS
            if silent > self._silence * (1 if told.has_begun else BEFORE_IT_BEGINS):
                facts = {"part": part.name, "pid": process.pid, "after_seconds": round(silent)}
                log.logger().error(names.PROCESS_SILENT, **facts)
                silent = 0.0
                with suppress(ProcessLookupError):  # it has just ended
                    process.kill()

    def _give_up(self, failure: NeverBegan) -> None:
        if not self._stopping.is_set():
            self._failure = failure
            self._pass_on()

    async def _wait_to_restart(self, tries: int) -> None:
        """Wait for a second, and after each further try without a beginning twice as long."""
        seconds = RESTART_SECONDS * 2 ** min(max(tries - 1, 0), MAX_TRIES + 1)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, MAX_RESTART_SECONDS)):
                await self._stopping.wait()

    async def _start(self, part: Part, telling: int) -> Process:
        # -P: a folder `runfold` in the current folder is not ours. In its own session, so that
        # Ctrl-C reaches this process alone; the pipe closes when this process dies.
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "runfold.console.cli.child",
            "--tell",
            str(telling),
            *(("--quiet",) if part.quiet else ()),
            *part.words,
            stdin=PIPE,
            stdout=_stdout(),
            env=self._environment,
            start_new_session=True,
            pass_fds=(telling, *part.sockets),
        )

    def _pass_on(self) -> None:
        seconds = HURRY_SECONDS if self._stopping.is_set() else self._grace + END_SECONDS
        self._stopping.set()
        for process in self._alive:
            self._tell(process)
        asyncio.get_running_loop().call_later(seconds + PATIENCE_SECONDS, self._kill)

    def _kill(self) -> None:
        for process in self._alive:
            with suppress(ProcessLookupError):
                process.kill()

    @staticmethod
    def _tell(process: Process) -> None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)


def _stdout() -> int:
    """Return where the processes print to: standard error, for the parent has data to print.

    A handler's `print` must not vanish.
    """
    try:
        os.fstat(_STDERR)
    except OSError:  # it was closed by who started this
        return DEVNULL
    return _STDERR
