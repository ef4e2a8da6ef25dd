"""One execution on one worker: its time, its output, and what the worker says about it.

The worker's word is checked: a message with another shape than the ones below ends the worker. What it says about
itself (``ok``, a value, a chart) is user code's own claim and nobody else's harm.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final, Literal, get_args

from interpreter_sandbox.protocol import (
    DISPLAYED_VALUES,
    Chart,
    Done,
    ErrorInfo,
    Event,
    ExecuteRequest,
    FileEntry,
    Origin,
    Status,
    count_values,
)
from interpreter_sandbox.runtime.capped_output import CappedOutput
from interpreter_sandbox.runtime.channel import AbandonedPipes, OutputPipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from interpreter_sandbox.runtime import wire
    from interpreter_sandbox.runtime.execution import Execution
    from interpreter_sandbox.runtime.supervisor import Supervisor, Worker

_COALESCE_SECONDS: Final = 0.02
# A cell that is over by then costs the agent two wake-ups: no reader is registered for its pipes, no event travels
# alone. A longer one's first output is late by this much.
_SHORT_SECONDS: Final = 0.003
_MAX_ORDERED_EVENTS: Final = 2000
_MAX_DISPLAYS: Final = 1000
_DISPLAYS_IN_ALL: Final = 8  # times the limit of one
_MAX_NOTES: Final = 20
_MAX_NOTE_CHARS: Final = 500
_MAX_MESSAGE_CHARS: Final = 20_000
_MAX_TRACEBACK_LINES: Final = 400
_FRAME_OVERHEAD_BYTES: Final = 1 << 20

StreamName = Literal["stdout", "stderr"]
StopReason = Literal["timeout", "interrupted"]


class ProtocolError(ValueError):
    """A message of the worker that means nothing."""


class _Stream:
    """stdout or stderr: pieces that come within a moment of each other become one event."""

    def __init__(self, name: StreamName, run: Run, limit_bytes: int) -> None:
        self.name = name
        self.output = CappedOutput(limit_bytes)
        self.pipe = OutputPipe(self._heard)
        self._run = run
        self._pending: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at = 0.0

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            text = "".join(self._pending)
            self._pending.clear()
            self._sent_at = time.monotonic()
            self._run.execution.append(self.name, {"text": text})

    def finish(self) -> None:
        self.pipe.drain()
        if text := self.output.finish():
            self._pending.append(text)
        self.flush()

    def _heard(self, data: bytes) -> None:
        text = self.output.feed(data)
        if not text:
            return
        self._run.before_output(self.name)
        self._pending.append(text)
        wait = self._sent_at + _COALESCE_SECONDS - time.monotonic()
        if wait <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self.flush)


class Run:
    """Made when the worker is there; calls ``on_finished`` once, after the ``done`` event."""

    def __init__(
        self,
        request: ExecuteRequest,
        execution: Execution,
        worker: Worker,
        supervisor: Supervisor,
        abandoned: AbandonedPipes,
        changed_files: Callable[[], tuple[list[FileEntry], str]],
        on_finished: Callable[[], None],
    ) -> None:
        """``changed_files``: what the workspace saw since the cell began, and a note or an empty string."""
        self.execution = execution
        self.notes: list[str] = []
        self.lost_before = ""
        self._request = request
        self._worker = worker
        self._supervisor = supervisor
        self._abandoned = abandoned
        self._changed_files = changed_files
        self._on_finished = on_finished
        self._token = secrets.token_hex(8)
        self._streams: dict[StreamName, _Stream] = {
            name: _Stream(name, self, request.output_limit_bytes) for name in get_args(StreamName)
        }
        self._timers: list[asyncio.TimerHandle] = []
        self._stopped_for: StopReason | None = None
        self._began = time.monotonic()
        self._execution_count = worker.execution_count
        self._displays = 0
        self._values_left = DISPLAYED_VALUES

    def start(self) -> None:
        """Send the code to the worker and start the clock."""
        self.execution.append("started", {"execution_count": self._execution_count})
        self._timers.append(asyncio.get_running_loop().call_later(_SHORT_SECONDS, self._is_long))
        self._worker.on_message = self._heard
        self._worker.on_end = self._worker_ended
        self._worker.channel.limit_frames(self._request.display_limit_bytes + _FRAME_OVERHEAD_BYTES)
        message: wire.Message = {"token": self._token, "request": _shallow(self._request)}
        pipes = [stream.pipe for stream in self._streams.values()]
        self._worker.channel.send(message, [pipe.writer for pipe in pipes])
        for pipe in pipes:
            pipe.handed_over()

    def _is_long(self) -> None:
        """The cell goes on: listen to its output, pass events on as they come, and mind its time."""
        left = self._began + self._request.timeout_seconds - time.monotonic()
        self._timers.append(asyncio.get_running_loop().call_later(left, self.stop, "timeout"))
        for stream in self._streams.values():
            stream.pipe.listen()
        self.execution.go_live()

    def stop(self, reason: StopReason) -> None:
        """Interrupt the code, once more when half of the grace is over, and kill it at its end."""
        if self._stopped_for is not None or self.execution.finished:
            return
        self._stopped_for = reason
        self._supervisor.interrupt(self._worker)
        loop, grace = asyncio.get_running_loop(), self._request.grace_seconds
        self._timers.append(loop.call_later(grace / 2, self._supervisor.interrupt, self._worker))
        why = f"the code did not stop within {grace:g} s of being interrupted"
        self._timers.append(loop.call_later(grace, self._supervisor.kill, self._worker, why))

    def before_output(self, name: StreamName) -> None:
        """Keep the order of the two streams, unless a program alternates between them all the time."""
        if len(self.execution) < _MAX_ORDERED_EVENTS:
            self._streams["stderr" if name == "stdout" else "stdout"].flush()

    def note(self, text: str) -> None:
        """Something that the client should know; repeated and surplus notes are dropped."""
        text = text[:_MAX_NOTE_CHARS]
        if len(self.notes) < _MAX_NOTES and text not in self.notes:
            self.notes.append(text if len(self.notes) < _MAX_NOTES - 1 else "further notes were dropped")

    def _heard(self, message: wire.Message) -> None:
        if self.execution.finished or self._worker.end_reason:
            return
        try:
            self._handle(message)
        except ProtocolError as error:
            self._supervisor.kill(self._worker, f"the worker broke the protocol ({error})")

    def _handle(self, message: wire.Message) -> None:
        if message.get("token") != self._token:
            raise ProtocolError("a message of no execution")
        data = message.get("data")
        if not isinstance(data, dict):
            raise ProtocolError("data is an object")
        match message.get("event"):
            case "display" | "result" as name:
                self._display(name, data)
            case "done":
                self._done(data)
            case _:
                raise ProtocolError("an unknown event")

    def _display(self, name: Literal["display", "result"], data: dict[str, object]) -> None:
        for stream in self._streams.values():
            stream.pipe.drain()
            stream.flush()
        bundle, metadata = data.get("data"), data.get("metadata", {})
        if not isinstance(bundle, dict) or not isinstance(metadata, dict):
            raise ProtocolError("a display has data and metadata")
        self._displays += 1
        room = _DISPLAYS_IN_ALL * self._request.display_limit_bytes + 2 * self._request.output_limit_bytes
        if self._displays > _MAX_DISPLAYS or self.execution.size_bytes > room:
            self.note(f"displays after the first {self._displays - 1} were dropped: over the limit of one execution")
            return
        shown: dict[str, object] = {"data": bundle, "metadata": metadata, "chart": _chart(data.get("chart"))}
        text = ""
        if (size := len(Event(0, name, shown).encode())) > self._request.display_limit_bytes:
            text = f"[a display of {size} bytes was dropped: over the limit of {self._request.display_limit_bytes}]"
        elif (values := count_values(shown, self._values_left)) > self._values_left:
            text = f"[a display was dropped: one execution shows at most {DISPLAYED_VALUES} values as JSON]"
        else:
            self._values_left -= values
        if text:
            self.note(text)
            shown = {"data": {"text/plain": text}, "metadata": {}, "chart": None}
        self.execution.append(name, shown)

    def _done(self, data: dict[str, object]) -> None:
        status = data.get("status")
        if status not in ("ok", "error", "interrupted", "memory_limit"):
            raise ProtocolError("an unknown status")
        self._worker.execution_count = _next_count(data)
        for text in _texts(data, "notes")[:_MAX_NOTES]:
            self.note(text)
        error = None if status == "ok" else _error(data.get("error"))
        if status == "memory_limit" and error is not None:
            limit = self._supervisor.limits.memory_bytes >> 20
            error = replace(error, message=f"{error.message} (the memory limit of this sandbox is {limit} MiB)")
        if self._stopped_for == "timeout":
            status, error = "timeout", self._time_error(error, "it was interrupted")
        self._finish(status, error, "kept")

    def _worker_ended(self, reason: str) -> None:
        if self.execution.finished:
            return
        if self._stopped_for == "timeout":
            status: Status = "timeout"
            error = self._time_error(None, "it did not stop when interrupted and was killed; its variables are lost")
        elif self._stopped_for == "interrupted":
            status = "interrupted"
            message = f"interrupted: {reason}; its variables are lost"
            error = ErrorInfo("interrupted", "KeyboardInterrupt", message)
        else:
            status = "crashed"
            error = ErrorInfo("crashed", "SandboxCrash", f"{reason}; its variables are lost")
        self._finish(status, error, "lost")

    def _time_error(self, error: ErrorInfo | None, what: str) -> ErrorInfo:
        message = f"the code ran longer than {self._request.timeout_seconds:g} s: {what}"
        return ErrorInfo("timeout", "TimeoutError", message, error.traceback if error else [])

    def _finish(self, status: Status, error: ErrorInfo | None, state: Literal["kept", "lost"]) -> None:
        for timer in self._timers:
            timer.cancel()
        self._worker.on_message = self._worker.on_end = None
        for stream in self._streams.values():
            stream.finish()
            self._abandoned.add(stream.pipe)
        if error is not None:
            self.execution.append("error", asdict(error))
        files, note = self._changed_files()
        if note:
            self.note(note)
        done = Done(
            status=status,
            elapsed_ms=round((time.monotonic() - self._began) * 1000, 3),
            execution_count=self._execution_count,
            state=state,
            lost_before=self.lost_before,
            files=[],
            dropped_stdout_bytes=self._streams["stdout"].output.dropped_bytes,
            dropped_stderr_bytes=self._streams["stderr"].output.dropped_bytes,
            notes=self.notes,
        )
        self.execution.append("done", _shallow(done) | {"files": [asdict(entry) for entry in files]})
        self._on_finished()


def _shallow(message: Done | ExecuteRequest) -> dict[str, object]:
    """``asdict`` without its deep copies."""
    return {name: getattr(message, name) for name in message.__dataclass_fields__}


def _text(data: dict[str, object], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"{name} is a string")
    return value


def _texts(data: dict[str, object], name: str) -> list[str]:
    value = data.get(name)
    if not isinstance(value, list):
        raise ProtocolError(f"{name} is a list")
    lines = [line for line in value if isinstance(line, str)]
    if len(lines) < len(value):
        raise ProtocolError(f"{name} is a list of strings")
    return lines


def _next_count(data: dict[str, object]) -> int:
    value = data.get("next_count")
    if not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise ProtocolError("next_count is a number")
    return value


def _chart(value: object) -> dict[str, object] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("origin") not in get_args(Origin):
        raise ProtocolError("a chart has a known origin")
    path = None if value.get("path") is None else _text(value, "path")
    return asdict(Chart(_text(value, "name")[:255], value["origin"], _text(value, "mime_type")[:255], path))


def _error(value: object) -> ErrorInfo:
    if not isinstance(value, dict):
        raise ProtocolError("an error is an object")
    code = value.get("code")
    if code not in ("user_error", "syntax_error", "interrupted", "memory_limit"):
        raise ProtocolError("an unknown error code")
    lines = _texts(value, "traceback")
    message = _text(value, "message")[:_MAX_MESSAGE_CHARS]
    kept = [line[:_MAX_MESSAGE_CHARS] for line in lines[:_MAX_TRACEBACK_LINES]]
    return ErrorInfo(code, _text(value, "type")[:255], message, kept)
