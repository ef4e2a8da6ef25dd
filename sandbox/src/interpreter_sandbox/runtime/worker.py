"""The worker: the forked process that runs user code.

It owns one socket to the agent. Each execution brings two pipes, which become descriptors 1 and 2 for as long as the
cell runs: what C code and subprocesses print is captured like everything else, and what an older cell's leftovers
print goes into that cell's pipe, not into the next one's. Everything here shares the process with user code, so the
agent believes none of it; the care below is for honest code that gets interrupted at an unlucky moment.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import socket
import sys
import threading

# signal.signal also looks both handlers up in an enumeration, which costs more than the rest around a cell
from _signal import signal as _on_signal  # type: ignore[import-not-found]
from contextlib import suppress
from dataclasses import dataclass
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import TYPE_CHECKING, Final, NoReturn

from interpreter_sandbox.protocol import ExecuteRequest, IntrospectRequest
from interpreter_sandbox.runtime import linux, wire

if TYPE_CHECKING:
    from types import FrameType

    from interpreter_sandbox.runtime.limits import Limits
    from interpreter_sandbox.runtime.shell import Shell

_SPARE_DESCRIPTORS: Final = 8
_INTERRUPTED: Final = {
    "code": "interrupted",
    "type": "KeyboardInterrupt",
    "message": "the execution was interrupted",
    "traceback": [],
}


def no_session(name: str, data: dict[str, object]) -> None:
    """The shell's ``emit`` in the zygote, where there is nobody to hear it."""


class CellStream(io.TextIOWrapper):
    """``sys.stdout`` or ``sys.stderr``: line-buffered text on descriptor 1 or 2.

    What a thread of an earlier cell writes is dropped: its own cell is over, and the running one did not print it.
    """

    def __init__(self, descriptor: int) -> None:
        """The descriptor stays open when the stream is closed."""
        raw = open(descriptor, "wb", buffering=8192, closefd=False)  # noqa: SIM115
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self.strangers: frozenset[threading.Thread] = frozenset()

    def write(self, text: str, /) -> int:
        """As for any text file."""
        if self.strangers and threading.current_thread() in self.strangers:
            return len(text)
        return super().write(text)


@dataclass(slots=True)
class _Cell:
    """The execution that runs now."""

    token: str
    sending: bool = False
    interrupted: bool = False


class Worker:
    """The loop: receive a request, run it, report."""

    def __init__(self, shell: Shell, control: socket.socket) -> None:
        """``shell`` comes from the zygote and is this process's alone from now on."""
        self._shell = shell
        self._control = control
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a finaliser may display something while a frame is being encoded
        self._cell: _Cell | None = None
        self._held = b""
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._streams: dict[str, CellStream] = {}

    def run_forever(self) -> NoReturn:
        """Run cells until the agent closes the socket."""
        self._shell.emit = self.emit
        self._close_output()
        while True:
            _keep_descriptors_back(0)
            message, pipes = self._receive()
            if "introspect" in message:
                self._introspect(message)
                continue
            self._open_output(pipes)
            _keep_descriptors_back(_SPARE_DESCRIPTORS)
            request = ExecuteRequest(**message["request"])  # type: ignore[arg-type]
            cell = self._cell = _Cell(str(message["token"]))
            status, error = self._run(request)
            if os.getpid() != self._pid:
                self._flush()
                os._exit(0)  # user code forked, and the child came back as if it were the worker
            self._close_output()
            notes, next_count = self._shell.notes, self._shell.execution_count
            done = {"status": status, "error": error, "next_count": next_count, "notes": notes}
            with self._lock:
                self._cell = None  # nothing can be sent for this cell any more
                frame = wire.encode({"token": cell.token, "event": "done", "data": done})
                held, self._held = self._held, b""
                self._control.sendall(held + frame)

    def emit(self, name: str, data: dict[str, object]) -> None:
        """Send one event of the running cell; outside of one, or in a forked child, there is nobody to tell."""
        if os.getpid() != self._pid:
            return
        self._flush()
        with self._lock:
            cell = self._cell
            if cell is None:
                return
            frame = self._held + wire.encode({"token": cell.token, "event": name, "data": data})
            if name == "result" and not self._held:
                self._held = frame  # the cell is about to end: one message less to wake the agent for
                return
            self._held = b""
            # half a frame would end this worker: an interrupt waits until it is out
            cell.sending = threading.current_thread() is threading.main_thread()
            try:
                self._control.sendall(frame)
            finally:
                cell.sending = False
        if cell.interrupted and threading.current_thread() is threading.main_thread():
            cell.interrupted = False
            raise KeyboardInterrupt

    def _run(self, request: ExecuteRequest) -> tuple[str, dict[str, object] | None]:
        try:
            try:
                _on_signal(signal.SIGINT, self._interrupt)
                return self._shell.run(request)
            finally:
                _on_signal(signal.SIGINT, _nobody_to_interrupt)
        except KeyboardInterrupt:
            return "interrupted", dict(_INTERRUPTED)
        except MemoryError:
            message = "the cell used more memory than the sandbox may use"
            return "memory_limit", {"code": "memory_limit", "type": "MemoryError", "message": message, "traceback": []}
        except BaseException as error:  # noqa: BLE001 - user code may have broken anything that the shell stands on
            message = f"the shell failed: {error!s:.500}"
            name = type(error).__name__
            return "error", {"code": "user_error", "type": name, "message": message, "traceback": []}
        finally:
            _on_signal(signal.SIGINT, _nobody_to_interrupt)

    def _introspect(self, message: wire.Message) -> None:
        """No cell: there is no output, no event but the answer, and nobody counts it."""
        status, text, data = "failed", "", {}
        try:
            try:
                _on_signal(signal.SIGINT, self._interrupt)
                data = self._shell.introspect(IntrospectRequest(**message["introspect"]))  # type: ignore[arg-type]
                status = "ok"
            finally:
                _on_signal(signal.SIGINT, _nobody_to_interrupt)
        except BaseException as error:  # noqa: BLE001 - objects' own code may raise anything, an interrupt included
            text = f"an object's own code failed: {type(error).__name__}"
        finally:
            _on_signal(signal.SIGINT, _nobody_to_interrupt)
        if os.getpid() != self._pid:
            os._exit(0)  # as after a cell
        answer = {"status": status, "message": text, "data": data}
        with self._lock:
            self._control.sendall(wire.encode({"token": message["token"], "event": "introspected", "data": answer}))

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        cell = self._cell
        if cell is not None and cell.sending:
            cell.interrupted = True
            return
        raise KeyboardInterrupt

    def _receive(self) -> tuple[wire.Message, list[int]]:
        data, pipes, _, _ = socket.recv_fds(self._control, 1 << 16, 2, socket.MSG_CMSG_CLOEXEC)
        buffer = bytearray(data)
        while len(buffer) < wire.HEADER_BYTES or len(buffer) < wire.HEADER_BYTES + wire.frame_length(buffer):
            data = self._control.recv(1 << 20)
            if not data:
                os._exit(0)
            buffer += data
        return wire.decode_body(buffer[wire.HEADER_BYTES :]), list(pipes)

    def _open_output(self, pipes: list[int]) -> None:
        strangers = frozenset(threading.enumerate()) - {threading.main_thread()}
        for descriptor, name, pipe in zip((1, 2), ("stdout", "stderr"), pipes, strict=True):
            os.dup2(pipe, descriptor, inheritable=True)
            os.close(pipe)
            stream = self._streams.get(name)
            if stream is None or stream.closed:
                stream = self._streams[name] = CellStream(descriptor)
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)
            stream.strangers = strangers
        os.dup2(self._null, 0, inheritable=True)

    def _close_output(self) -> None:
        self._flush()
        for descriptor in (0, 1, 2):
            os.dup2(self._null, descriptor, inheritable=True)

    def _flush(self) -> None:
        out, err = self._streams.get("stdout"), self._streams.get("stderr")
        for stream in (out, err, None if sys.stdout is out else sys.stdout, None if sys.stderr is err else sys.stderr):
            # user code may have put anything there, or closed it
            with suppress(Exception):
                if stream is not None:
                    stream.flush()


def _keep_descriptors_back(spare: int) -> None:
    """Lower the soft limit by ``spare``: a cell that leaks every descriptor leaves enough to receive the next one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - spare, hard))


def _nobody_to_interrupt(number: int, frame: FrameType | None) -> None:
    """SIGINT between cells. A function, not SIG_IGN: programs that user code starts would inherit that."""


def main(shell: Shell, limits: Limits, control_fd: int) -> NoReturn:
    """Become the worker: called in the zygote's grandchild, never returns."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, _nobody_to_interrupt)
        control = socket.socket(fileno=fcntl(control_fd, F_DUPFD_CLOEXEC, limits.max_open_files - _SPARE_DESCRIPTORS))
        os.closerange(3, control.fileno())
        os.closerange(control.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        linux.set_dumpable(True)
        limits.apply()
        _reseed()
        Worker(shell, control).run_forever()
    finally:
        os._exit(70)


def _reseed() -> None:
    """Give numpy's global generator a new seed: with the zygote's, every worker would draw the same numbers."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
