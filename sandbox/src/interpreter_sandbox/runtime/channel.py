"""The agent's side of one worker: its control socket, and the pipes that carry a cell's output.

Everything that is read here was written by user code. Reading never blocks and never reads more at a time than a
pipe holds, so that a worker that floods one channel cannot keep the agent from the others.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import socket
import termios
from collections import deque
from typing import TYPE_CHECKING, Final

from interpreter_sandbox.runtime import wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_READ_BYTES: Final = 1 << 16
_ABANDONED_PIPES: Final = 32
_LAST_READS: Final = 64  # more than a socket's buffer holds, and an end to it where a forked child goes on writing


class OutputPipe:
    """One stream of one cell. The reading end stays here; ``writer`` goes to the worker."""

    def __init__(self, on_data: Callable[[bytes], None]) -> None:
        """``on_data`` hears of every piece that is read after :meth:`listen` or by :meth:`drain`."""
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reader, False)
        self._on_data: Callable[[bytes], None] | None = on_data
        self._loop = asyncio.get_running_loop()
        self._listening = False

    def listen(self) -> None:
        """Read what comes, when it comes."""
        if self.reader >= 0 and not self._listening:
            self._listening = True
            self._loop.add_reader(self.reader, self._readable)

    def handed_over(self) -> None:
        """The worker has its copy of the writing end."""
        os.close(self.writer)
        self.writer = -1

    def drain(self) -> None:
        """Read what is in the pipe now, and no more than that."""
        if self.reader < 0 or self._readable() == 0:
            return  # most often there is nothing, or the end
        waiting = array.array("i", [0])
        fcntl.ioctl(self.reader, termios.FIONREAD, waiting)
        while waiting[0] > 0 and (count := self._readable()) > 0:
            waiting[0] -= count

    def abandon(self) -> None:
        """From now on read and forget: what older cells' leftovers print belongs to no cell."""
        self._on_data = None
        if self.reader >= 0:
            self._readable()  # most often the end: the worker has closed its copy, and nobody else has one
            self.listen()

    def close(self) -> None:
        """Close both ends. Who still writes gets EPIPE."""
        if self.reader >= 0:
            if self._listening:
                self._loop.remove_reader(self.reader)
            os.close(self.reader)
            self.reader = -1
        if self.writer >= 0:
            self.handed_over()

    def _readable(self) -> int:
        try:
            data = os.read(self.reader, _READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self.close()
        elif self._on_data is not None:
            self._on_data(data)
        return len(data)


class AbandonedPipes:
    """Pipes of cells that are over but still have writers; the oldest is closed when there are too many."""

    def __init__(self) -> None:
        """None yet."""
        self._pipes: deque[OutputPipe] = deque()

    def add(self, pipe: OutputPipe) -> None:
        """Keep reading it for as long as somebody writes."""
        pipe.abandon()
        if pipe.reader < 0:
            return
        open_ones = [kept for kept in self._pipes if kept.reader >= 0]
        self._pipes = deque([*open_ones, pipe])
        if len(self._pipes) > _ABANDONED_PIPES:
            self._pipes.popleft().close()


class ControlChannel:
    """The agent's end of a worker's socket."""

    def __init__(
        self, end: socket.socket, on_message: Callable[[wire.Message], None], on_broken: Callable[[str, bool], None]
    ) -> None:
        """``on_broken(reason, at_end)`` is called once: at the end of the stream, or for what is no frame."""
        self._socket = end
        self._socket.setblocking(False)
        self._decoder = wire.Decoder()
        self._on_message = on_message
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end.fileno(), self.read)
        self._sending: asyncio.Task[None] | None = None

    def limit_frames(self, max_frame_bytes: int) -> None:
        """The largest frame that the worker may send from now on."""
        self._decoder.max_frame_bytes = max_frame_bytes

    def send(self, message: wire.Message, descriptors: list[int]) -> None:
        """Send a frame and descriptors to an idle worker; what the socket does not take now follows when it can."""
        frame = wire.encode(message)
        try:
            sent = socket.send_fds(self._socket, [frame], descriptors)
        except OSError as error:
            self._break(f"the worker's socket is closed: {error.strerror}", at_end=True)
            return
        if sent < len(frame):
            rest = self._loop.sock_sendall(self._socket, memoryview(frame)[sent:])
            self._sending = self._loop.create_task(_send_rest(rest))

    def read(self) -> bool:
        """Read once and handle what is complete; False where there was nothing."""
        if self._socket.fileno() < 0:
            return False
        try:
            data = self._socket.recv(1 << 18)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._break("the worker closed its socket", at_end=True)
            return False
        try:
            messages = self._decoder.feed(data)
        except wire.WireError as error:
            self._break(f"the worker sent what is not a frame ({error})", at_end=False)
            return False
        for message in messages:
            self._on_message(message)
        return True

    def read_all(self) -> None:
        """After the worker's end: everything that it still had sent."""
        for _ in range(_LAST_READS):
            if not self.read():
                return

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            if self._sending is not None:
                self._sending.cancel()
            self._socket.close()

    def _break(self, reason: str, *, at_end: bool) -> None:
        if self._socket.fileno() >= 0:
            self.close()
            self._on_broken(reason, at_end)


async def _send_rest(rest: Awaitable[None]) -> None:
    try:
        await rest
    except OSError:
        return  # the reader sees the same end of the socket and says so
