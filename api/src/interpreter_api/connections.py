"""A connection must say what it wants: uvicorn's HTTP/1.1 protocol with a limit on the time of a request's head.

uvicorn bounds how long a connection may be idle *between* requests only. One that never sends a whole head, or goes on
sending a body after its answer, would be held for ever; some thousands of them, without any key, are all the
connections that a server has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

HEAD_SECONDS: Final = 10.0
_TOO_LATE: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class PromptProtocol(H11Protocol):
    """Ends a connection whose request's head, or whose unwanted rest of a body, is not there in time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock of the first head starts."""
        super().connection_made(transport)
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Bytes do not set the clock back, only a whole head stops it."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._start_clock()
        elif self.cycle is None or not self.cycle.response_complete:
            self._stop_clock()

    def on_response_complete(self) -> None:
        """What is left of the body is of no use; the client gets some time to see the answer."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The clock goes with the connection."""
        self._stop_clock()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if self.conn.our_state is h11.IDLE:
            self.transport.write(_TOO_LATE)
        self.transport.close()
