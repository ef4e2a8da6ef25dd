"""One introspection on an idle worker: its time, and what the worker answers.

It is no execution: it has no events, no output and no place in the store. The worker's word is checked for its shape,
as a cell's is; what stands in ``data`` is user code's own claim.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, Literal, get_args

from interpreter_sandbox.protocol import Introspected, IntrospectKind, IntrospectRequest
from interpreter_sandbox.runtime.files import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from interpreter_sandbox.runtime import wire
    from interpreter_sandbox.runtime.supervisor import Supervisor, Worker

_GRACE_SECONDS: Final = 1.0
_SILENT_SECONDS: Final = 8.0
"""A worker that is asked nothing and answers nothing is slow or stuck: it has so much more time before it is killed."""
_MAX_FRAME_BYTES: Final = 4 << 20
_MAX_MESSAGE_CHARS: Final = 500
_MAX_TIMEOUT_SECONDS: Final = 60.0


class Look:
    """``answer`` is done when there is something to say, ``ended`` set when the worker is free again or gone."""

    def __init__(
        self, request: IntrospectRequest, worker: Worker, supervisor: Supervisor, on_ended: Callable[[], None]
    ) -> None:
        """``on_ended`` is called once."""
        self.answer: asyncio.Future[Introspected] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self._request = request
        self._worker = worker
        self._supervisor = supervisor
        self._on_ended = on_ended
        self._token = secrets.token_hex(8)
        self._began = time.monotonic()
        self._late = False
        self._timers: list[asyncio.TimerHandle] = []

    def start(self) -> None:
        """Ask the worker and start the clock."""
        self._worker.on_message = self._heard
        self._worker.on_end = self._worker_ended
        self._worker.channel.limit_frames(_MAX_FRAME_BYTES)
        self._after(self._request.timeout_seconds, self._too_late)
        self._worker.channel.send({"token": self._token, "introspect": asdict(self._request)}, [])

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, action))

    def _too_late(self) -> None:
        self._late = True
        limit = f"{self._request.timeout_seconds:g} s"
        if self._request.kind == "nothing":
            self._say("timeout", f"the worker did not answer within {limit}")
            self._after(_SILENT_SECONDS, lambda: self._kill("the process that runs the code did not answer any more"))
            return
        self._supervisor.interrupt(self._worker)
        self._after(_GRACE_SECONDS / 2, lambda: self._supervisor.interrupt(self._worker))
        reason = f"an object's own code did not stop when it was looked at for more than {limit}"
        self._after(_GRACE_SECONDS, lambda: self._kill(reason))

    def _kill(self, reason: str) -> None:
        self._supervisor.kill(self._worker, reason)

    def _heard(self, message: wire.Message) -> None:
        if self.ended.is_set() or self._worker.end_reason:
            return
        data = message.get("data")
        if message.get("token") != self._token or message.get("event") != "introspected" or not isinstance(data, dict):
            self._kill("the worker broke the protocol (it answered what was not asked)")
            return
        match data:
            case {"status": "ok" | "failed" as status, "message": str(text), "data": dict(found)}:
                self._end()
                if self._late:
                    took = f"it took longer than {self._request.timeout_seconds:g} s and was interrupted"
                    self._say("timeout", took, found=found)
                else:
                    self._say("ok" if status == "ok" else "failed", text, found=found)
            case _:
                self._kill("the worker broke the protocol (an answer of another shape)")

    def _worker_ended(self, reason: str) -> None:
        self._end()
        self._supervisor.lost_reason = reason  # the next cell is told
        status: Literal["timeout", "crashed"] = "timeout" if self._late else "crashed"
        self._say(status, f"{reason}; the session's variables are lost", state="lost")

    def _end(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._worker.on_message = self._worker.on_end = None
        self.ended.set()
        self._on_ended()

    def _say(
        self,
        status: Literal["ok", "failed", "timeout", "crashed"],
        message: str,
        *,
        state: Literal["kept", "lost"] = "kept",
        found: dict[str, object] | None = None,
    ) -> None:
        if self.answer.done():
            return  # said at the timeout, or whoever asked is gone
        elapsed_ms = round((time.monotonic() - self._began) * 1000, 3)
        self.answer.set_result(Introspected(status, elapsed_ms, state, message[:_MAX_MESSAGE_CHARS], found or {}))


def check_look(request: IntrospectRequest) -> None:
    """``Refusal`` for a request whose fields make no sense."""
    if request.kind not in get_args(IntrospectKind):
        raise Refusal("invalid_argument", f"kind is one of {', '.join(get_args(IntrospectKind))}")
    if not 0 <= request.cursor_pos <= len(request.code):
        raise Refusal("invalid_argument", "cursor_pos is a position in code")
    if request.detail_level not in (0, 1):
        raise Refusal("invalid_argument", "detail_level is 0 or 1")
    if not (math.isfinite(request.timeout_seconds) and 0 < request.timeout_seconds <= _MAX_TIMEOUT_SECONDS):
        raise Refusal("invalid_argument", f"timeout_seconds is more than 0 and at most {_MAX_TIMEOUT_SECONDS:g}")
