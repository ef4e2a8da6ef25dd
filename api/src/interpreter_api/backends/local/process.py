"""One sandbox's process tree: started, watched by a pidfd, ended for certain.

The server's child is the launcher, which becomes bubblewrap; process 1 of the sandbox is bubblewrap's child. Killing
process 1 ends everything in its pid namespace, and the kernel lets bubblewrap see its end only when all of that is
gone. So :meth:`SandboxProcess.kill` kills process 1 and waits for bubblewrap: then no process is left.

Start processes from the thread that lives as long as the server (the event loop's): the kernel's death signal, which
ends every sandbox when the server is killed, follows the *thread* that started the launcher.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from interpreter_api.backends.local import host, launcher, profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interpreter_api.backends.base import SandboxClass
    from interpreter_api.backends.local.host import Machine

log = logging.getLogger(__name__)

AGENT_PROCESSES: Final = 32
"""The agent, its threads and the zygote, on top of what the class gives the user's code."""

AGENT_BYTES: Final = 192 << 20
"""The agent's and the zygote's memory, likewise."""

OOM_SCORE: Final = 300
"""Where the whole machine runs out of memory, sandboxes go before the server and its Postgres."""

KILL_SECONDS: Final = 5.0
STDERR_BYTES: Final = 4096


def process_limit(sandbox_class: SandboxClass) -> int:
    """How many processes and threads the whole sandbox may have."""
    return sandbox_class.max_processes + AGENT_PROCESSES


def memory_limit(sandbox_class: SandboxClass) -> int:
    """The cgroup's bound: what the code may use, what its files may use (they are in memory), and the agent."""
    files = sandbox_class.workspace_bytes + profile.TMP_BYTES + profile.SHM_BYTES
    return sandbox_class.memory_bytes + files + AGENT_BYTES


def launch_config(
    machine: Machine,
    sandbox_class: SandboxClass,
    command: Sequence[str],
    *,
    owner: int | None,
    cgroups: Sequence[str] = (),
    keep_fds: Sequence[int] = (),
    info_fd: int | None = None,
) -> launcher.Config:
    """The launcher's orders for one sandbox that runs ``command`` as process 1."""
    mounts = {
        name: launcher.Tmpfs(size_bytes=size, inodes=inodes, mode=mode)
        for name, (size, inodes, mode) in profile.workspace_mounts(
            sandbox_class.workspace_bytes, sandbox_class.workspace_inodes
        ).items()
    }
    binds = {"environment": str(machine.environment)}
    if machine.base is not None:
        binds["base"] = str(machine.base)
    rlimits = {"CORE": 0}
    if machine.nproc:
        rlimits["NPROC"] = process_limit(sandbox_class)
    return launcher.Config(
        parent=os.getpid(),
        binds=binds,
        tmpfs=mounts,
        files={f"etc/{name}": text for name, text in profile.ETC_FILES.items()},
        owner=owner,
        cgroups=list(cgroups),
        rlimits=rlimits,
        oom_score_adj=OOM_SCORE,
        keep_fds=[*keep_fds, *([] if info_fd is None else [info_fd])],
        argv=[
            machine.bwrap,
            *profile.bubblewrap_arguments(
                machine.layout, command, info_fd=info_fd, disable_userns=machine.bwrap_version >= (0, 8)
            ),
        ],
    )


def launcher_command(config: launcher.Config) -> list[str]:
    """The command that starts the launcher with these orders."""
    return [host.launcher_python(), "-I", "-S", launcher.__file__, json.dumps(config)]


class SandboxProcess:
    """A started sandbox. Made by :meth:`spawn`; belongs to the running event loop."""

    def __init__(self, child: subprocess.Popen[bytes], gate: socket.socket, info: int, stderr: int) -> None:
        """Watch the child. ``gate`` is its stdin and stdout, the others are pipes from it; all are closed here."""
        self._loop = asyncio.get_running_loop()
        self._child = child
        self._pidfd = os.pidfd_open(child.pid)
        self._first: int | None = None
        self._info = _Pipe(self._loop, info, limit=1024)
        self._stderr = _Pipe(self._loop, stderr, limit=STDERR_BYTES)
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._gate: socket.socket | None = gate
        gate.setblocking(False)
        self._loop.add_reader(gate.fileno(), self._open_gate)
        self._info.closed.add_done_callback(lambda _: self._found_first())
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def spawn(
        cls,
        machine: Machine,
        sandbox_class: SandboxClass,
        command: Sequence[str],
        *,
        owner: int | None,
        cgroups: Sequence[str],
        keep_fds: Sequence[int],
    ) -> SandboxProcess:
        """Start the launcher. Returns at once; what goes wrong shows as an early end and in :attr:`stderr`."""
        gate, gate_inside = socket.socketpair()
        info_read, info_write = os.pipe()
        error_read, error_write = os.pipe()
        try:
            config = launch_config(
                machine,
                sandbox_class,
                profile.gated(command),
                owner=owner,
                cgroups=cgroups,
                keep_fds=keep_fds,
                info_fd=info_write,
            )
            child = subprocess.Popen(
                launcher_command(config),
                stdin=gate_inside.fileno(),
                stdout=gate_inside.fileno(),
                stderr=error_write,
                pass_fds=config["keep_fds"],
                env={},
                cwd="/",
                start_new_session=True,  # a Ctrl-C at the server's terminal is the server's to handle
            )
        except BaseException:
            gate.close()
            os.close(info_read)
            os.close(error_read)
            raise
        finally:
            gate_inside.close()
            os.close(info_write)
            os.close(error_write)
        return cls(child, gate, info_read, error_read)

    @property
    def pid(self) -> int:
        """The launcher's, then bubblewrap's, on the host."""
        return self._child.pid

    @property
    def stderr(self) -> str:
        """The last of what the launcher, bubblewrap and the agent said. From inside: show it to no client."""
        return self._stderr.text()

    async def ended(self) -> int:
        """Wait for the end; the exit code, or the negative number of the signal."""
        return await asyncio.shield(self._ended)

    async def kill(self) -> None:
        """End everything in the sandbox, and return when it is gone."""
        if not self._ended.done() and self._first is None:
            # bubblewrap has not said yet which its process 1 is: a matter of milliseconds after the start
            waited: set[asyncio.Future[Any]] = {self._ended, self._info.closed}
            await asyncio.wait(waited, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        if not self._ended.done():
            if self._first is None:
                self._child.kill()
            else:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._first, signal.SIGKILL)
            done, _ = await asyncio.wait({self._ended}, timeout=KILL_SECONDS)
            if not done:  # process 1 is gone or stuck in the kernel; --die-with-parent takes it along
                log.error("sandbox process %s outlived SIGKILL to its process 1", self.pid)
                self._child.kill()
                await asyncio.wait({self._ended})

    def _open_gate(self) -> None:
        """Let the command run, now that the sandbox would die with the server; see ``profile.gated``."""
        if self._gate is None:
            return
        with suppress(OSError):
            if self._gate.recv(64):
                self._gate.send(b"\n")
        self._close_gate()

    def _close_gate(self) -> None:
        if self._gate is not None:
            self._loop.remove_reader(self._gate.fileno())
            self._gate.close()
            self._gate = None

    def _found_first(self) -> None:
        """Hold on to process 1 by a pidfd, once bubblewrap has named it."""
        found = re.search(r'"child-pid"\s*:\s*(\d+)', self._info.text())
        if found is None or self._ended.done():
            return
        with suppress(OSError):
            candidate = os.pidfd_open(int(found[1]))
            stat = Path(f"/proc/{found[1]}/stat").read_text()
            if int(stat.rpartition(")")[2].split()[1]) == self._child.pid:  # not a number that was given out again
                self._first = candidate
            else:
                os.close(candidate)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        code = self._child.wait()
        self._close_gate()
        self._info.drain()
        self._stderr.drain()
        for fd in (self._pidfd, self._first):
            if fd is not None:
                os.close(fd)
        self._first = None
        self._ended.set_result(code)


class _Pipe:
    """Reads a pipe to its end and keeps the last ``limit`` bytes. ``closed`` is done at the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, *, limit: int) -> None:
        self._loop, self._fd, self._limit = loop, fd, limit
        self._kept = b""
        self.closed: asyncio.Future[None] = loop.create_future()
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read)

    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if data:
            self._kept = (self._kept + data)[-self._limit :]
        else:
            self._close()

    def drain(self) -> None:
        """Take what is there and close, although someone may still hold the other end."""
        with suppress(OSError):
            while not self.closed.done() and (data := os.read(self._fd, 65536)):
                self._kept = (self._kept + data)[-self._limit :]
        if not self.closed.done():
            self._close()

    def _close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self.closed.set_result(None)
