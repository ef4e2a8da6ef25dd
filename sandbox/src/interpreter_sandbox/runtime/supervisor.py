"""The agent's view of its children: one zygote, and one worker at a time.

As PID 1 (or subreaper) the agent is the parent of every worker and of all that user code leaves behind, and reaps
them. A worker that ends is replaced from the zygote at once; with it goes everything that it had started.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

from interpreter_sandbox.runtime import processes
from interpreter_sandbox.runtime.channel import ControlChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from interpreter_sandbox.runtime import wire
    from interpreter_sandbox.runtime.limits import Limits

_START_SECONDS: Final = 120.0
_REPLY_SECONDS: Final = 15.0
_LAST_WORD_SECONDS: Final = 0.25
_MAX_FAILED_STARTS: Final = 3

# What user code finds in its environment. One BLAS thread: with more, a memory limit aborts the process instead of
# raising MemoryError, and a fork would carry none of the threads. Arrow's own allocator reserves 1 GiB of address
# space at its first use, all of which counts as used towards a memory limit; its jemalloc would start a thread.
_ENVIRONMENT: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TERM": "dumb",
}
_PASSED_ON: Final = (
    "PATH",
    "HOME",
    "TMPDIR",
    "TZ",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "MPLCONFIGDIR",
    "IPYTHONDIR",
    "FONTCONFIG_PATH",
)


@dataclass(slots=True, eq=False)
class Worker:
    """A running worker. ``end_reason`` is set when it is known to be lost, before or after it is dead.

    ``execution_count`` is the number of its next cell.
    """

    pid: int
    channel: ControlChannel
    execution_count: int = 1
    on_message: Callable[[wire.Message], None] | None = None
    on_end: Callable[[str], None] | None = None
    end_reason: str = ""


class Supervisor:
    """Starts and replaces the processes; says ``ready`` when there is a worker."""

    def __init__(self, limits: Limits, workspace: Path) -> None:
        """Nothing runs before :meth:`start`."""
        self.worker: Worker | None = None
        self.restarts = 0
        self.lost_reason = ""
        """Why the last worker ended while nothing ran; whoever runs the next cell must be told."""
        self.detail = ""
        self.limits = limits
        self._workspace = workspace
        self._zygote: int | None = None
        self._control: socket.socket | None = None
        self._asking = asyncio.Lock()
        self._forking = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._status: Literal["starting", "ready", "failed"] = "starting"
        self._failed_starts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def status(self) -> Literal["starting", "ready", "failed"]:
        """As in :class:`~interpreter_sandbox.protocol.Health`."""
        return "ready" if self.worker is not None else self._status

    def start(self) -> None:
        """Begin: the zygote, then the first worker."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        self._spawn(self._start_zygote())

    async def wait_worker(self, seconds: float, *, other_than: Worker | None = None) -> Worker | None:
        """A worker that can run code, or ``None`` where there is none in time."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self.worker is not other_than and self.status != "starting")
        except TimeoutError:
            return None
        return self.worker

    def interrupt(self, worker: Worker) -> None:
        """SIGINT to the worker and to what runs in its foreground, as a terminal's Ctrl-C does."""
        processes.signal_group(worker.pid, signal.SIGINT)

    def kill(self, worker: Worker, reason: str) -> None:
        """End the worker and everything that user code has started; its replacement follows by itself."""
        worker.end_reason = worker.end_reason or reason
        processes.signal_process(worker.pid, signal.SIGKILL)
        self._kill_leftovers()

    def kill_everything(self) -> None:
        """The end of the sandbox."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        processes.kill_all_below(os.getpid(), spare=None)

    async def zygote_memory_bytes(self) -> int:
        """The zygote's share; it says so itself, as its /proc is closed to the agent. 0 where it does not answer."""
        answer = await self._ask(b"memory", [])
        memory = answer.get("memory_bytes")
        return memory if isinstance(memory, int) else 0

    def process_infos(self) -> list[processes.ProcessInfo]:
        """Everything in the sandbox, the agent first."""
        return [processes.own_info(), *processes.descendants(os.getpid())]

    @property
    def zygote_pid(self) -> int | None:
        """The zygote, while it runs."""
        return self._zygote

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_zygote(self) -> None:
        self._status = "starting"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _ENVIRONMENT
        limits = json.dumps(asdict(self.limits))
        module = "interpreter_sandbox.runtime.zygote"
        command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), limits, str(self._workspace)]
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220 - returns once the program is started
                command, env=environment, cwd=self._workspace, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        process.returncode = 0  # the reaper waits for it, nobody else may
        self._zygote, self._control = process.pid, ours
        async with self._asking:
            answer = await self._receive(_START_SECONDS)
        if answer.get("ready"):
            self._failed_starts = 0
            await self._fork_worker()
        else:
            processes.signal_process(process.pid, signal.SIGKILL)

    async def _fork_worker(self) -> None:
        async with self._forking:
            if self.worker is None:
                await self._fork_one()

    async def _fork_one(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            answer = await self._ask(b"fork", [theirs.fileno()])
        pid = answer.get("pid")
        if not isinstance(pid, int):
            ours.close()
            return  # the zygote is lost; its replacement makes the worker
        channel = ControlChannel(
            ours, lambda m: self._heard(worker, m), lambda r, at_end: self._broken(worker, r, at_end)
        )
        worker = Worker(pid, channel)
        self.worker = worker
        await self._announce()

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _heard(self, worker: Worker, message: wire.Message) -> None:
        if worker.on_message is None:
            self.kill(worker, "the worker spoke while nothing ran")
        else:
            worker.on_message(message)

    def _broken(self, worker: Worker, reason: str, at_end: bool) -> None:
        if at_end:
            # most often it is dead, and why is known in a moment; else it only closed its socket, and must go
            asyncio.get_running_loop().call_later(_LAST_WORD_SECONDS, self._kill_if_current, worker, reason)
        else:
            self.kill(worker, reason)

    def _kill_if_current(self, worker: Worker, reason: str) -> None:
        if worker is self.worker:
            self.kill(worker, reason)

    async def _ask(self, request: bytes, descriptors: list[int]) -> dict[str, object]:
        async with self._asking:
            if self._control is None or self._zygote is None:
                return {}
            processes.signal_process(self._zygote, signal.SIGCONT)  # user code can stop it, but not for long
            try:
                socket.send_fds(self._control, [request], descriptors)
            except OSError:
                return {}
            return await self._receive(_REPLY_SECONDS)

    async def _receive(self, seconds: float) -> dict[str, object]:
        """The zygote's next answer; a zygote that gives none is killed, which starts another one."""
        control, zygote = self._control, self._zygote
        assert control is not None
        try:
            async with asyncio.timeout(seconds):
                data = await asyncio.get_running_loop().sock_recv(control, 4096)
            answer = json.loads(data)
        except (TimeoutError, OSError, ValueError):
            if zygote is not None:
                processes.signal_process(zygote, signal.SIGKILL)
            return {}
        return answer if isinstance(answer, dict) else {}

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._zygote:
                self._zygote_ended(status)
            elif self.worker is not None and pid == self.worker.pid:
                self._worker_ended(self.worker, status)

    def _zygote_ended(self, status: int) -> None:
        self._zygote = None
        if self._control is not None:
            self._control.close()
            self._control = None
        self._failed_starts += 1
        if self._failed_starts <= _MAX_FAILED_STARTS:
            self._spawn(self._start_zygote())
            return
        self._status = "failed"
        self.detail = f"the zygote does not start: it {ending(status)}"
        self._spawn(self._announce())

    def _worker_ended(self, worker: Worker, status: int) -> None:
        worker.channel.read_all()
        self.worker = None
        self._status = "starting" if self._status != "failed" else "failed"
        self.restarts += 1
        worker.channel.close()
        self._kill_leftovers()
        reason = worker.end_reason or f"the process that runs the code {ending(status)}"
        if worker.on_end is not None:
            worker.on_end(reason)
        else:
            self.lost_reason = reason
        if self._zygote is not None:
            self._spawn(self._fork_worker())

    def _kill_leftovers(self) -> None:
        processes.kill_all_below(os.getpid(), spare=self._zygote)


def ending(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (most often: out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
