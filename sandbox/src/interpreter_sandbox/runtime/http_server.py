"""The agent's HTTP/1.1: one request after the other on a connection, each handed to an ASGI application.

llhttp (by httptools) reads what comes in; what goes out is a head and a body that leave in one write where they are
there together. A general server would cost every sandbox several megabytes, and a short cell as much CPU as the cell.

What a client may not do: pipeline, upgrade, send trailers, or send a head or a chunk's framing of more than
:data:`MAX_HEAD_BYTES`. It is answered 400 and the connection is closed.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Final
from urllib.parse import unquote

import httptools

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

MAX_HEAD_BYTES: Final = 64 << 10
_HIGH_WATER_BYTES: Final = 64 << 10
_REFUSED: Final = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_REASONS: Final = {200: b"OK"}


class ClientGone(Exception):  # noqa: N818 - not a fault of anybody
    """The client closed the connection before its request was complete or its answer was."""


class _Unacceptable(Exception):  # noqa: N818 - raised through the parser, which turns it into its own error
    """The request is well-formed, but nothing that this server takes."""


class HttpConnection(asyncio.Protocol):
    """One connection."""

    def __init__(self, application: Application) -> None:
        """``application`` gets ``http`` scopes only; its exceptions are printed and become a 500."""
        self._application = application
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._exchange: _Exchange | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_complete = False
        self._unparsed = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writable: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever reads or writes."""
        if self._exchange is not None:
            self._exchange.lost()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """The next bytes of a request."""
        self._unparsed += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse()
        else:
            if self._unparsed > MAX_HEAD_BYTES:
                self._refuse()

    def pause_writing(self) -> None:
        """The client reads more slowly than the application writes."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    async def writable(self) -> None:
        """Until more may be written."""
        if self._writable is not None:
            await self._writable

    def _refuse(self) -> None:
        if self._exchange is None or not self._exchange.started:
            self.transport.write(_REFUSED)
        if self._exchange is not None:
            self._exchange.lost()
        self.transport.close()

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        if self._exchange is not None and not self._exchange.answered:
            raise _Unacceptable
        self._url, self._headers, self._head_complete = b"", [], False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_complete:
            raise _Unacceptable
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._headers) > MAX_HEAD_BYTES:
            raise _Unacceptable
        self._head_complete, self._unparsed = True, 0
        url = httptools.parse_url(self._url)
        scope: Scope = {
            "type": "http",
            "method": self._parser.get_method().decode("ascii"),
            "path": unquote(url.path.decode("ascii")),
            "query_string": url.query or b"",
            "headers": self._headers,
        }
        is_current, keep_alive = self._parser.get_http_version() == "1.1", self._parser.should_keep_alive()
        self._exchange = _Exchange(self, self._loop, chunked=is_current, last=not keep_alive)
        task = self._loop.create_task(self._exchange.run(self._application, scope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        assert self._exchange is not None
        self._exchange.heard(body)

    def on_message_complete(self) -> None:
        self._unparsed = 0
        assert self._exchange is not None
        self._exchange.heard_all()


class _Exchange:
    """A request and its answer."""

    def __init__(
        self, connection: HttpConnection, loop: asyncio.AbstractEventLoop, *, chunked: bool, last: bool
    ) -> None:
        self.started = False
        self.answered = False
        self._connection = connection
        self._loop = loop
        self._can_chunk = chunked
        self._last = last
        self._body = bytearray()
        self._complete = False
        self._lost = False
        self._paused = False
        self._waiting: asyncio.Future[None] | None = None
        self._head = b""
        self._chunked = False

    async def run(self, application: Application, scope: Scope) -> None:
        try:
            await application(scope, self.receive, self.send)
        except ClientGone:
            pass
        except Exception:  # noqa: BLE001 - one request's failure; the sandbox goes on
            traceback.print_exc(file=sys.stderr)
        if self.answered or self._lost:
            return
        if not self.started:
            self._connection.transport.write(b"HTTP/1.1 500 \r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.answered = True
        self._connection.transport.close()  # short of its announced end: the client sees that it is not whole

    def heard(self, body: bytes) -> None:
        if self.answered:
            return  # refused before it was sent
        self._body += body
        if len(self._body) > _HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._connection.transport.pause_reading()
        self._wake()

    def heard_all(self) -> None:
        self._complete = True
        self._wake()

    def lost(self) -> None:
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._connection.transport.resume_reading()

    async def receive(self) -> MutableMapping[str, Any]:
        """ASGI: the next part of the body."""
        while not (self._body or self._complete or self._lost):
            self._waiting = self._loop.create_future()
            await self._waiting
        if self._lost:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        self._resume()
        return {"type": "http.request", "body": body, "more_body": not self._complete}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """ASGI: the head, which waits for the first part of the body, and the parts of the body."""
        if self._lost:
            raise ClientGone
        if message["type"] == "http.response.start":
            self._head = self._make_head(message["status"], message["headers"])
            return
        body, more = message["body"], message.get("more_body", False)
        if self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        if self._head:
            self.started = True
            body, self._head = self._head + body, b""
        self.answered = not more
        self._connection.transport.write(body)
        if self.answered:
            self._resume()  # what is left of the request is read and forgotten
            if self._last:
                self._connection.transport.close()
        else:
            await self._connection.writable()

    def _make_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b""))]
        lines += [b"%b: %b" % header for header in headers]
        if not any(name == b"content-length" for name, _ in headers):
            if self._can_chunk:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked")
            else:
                self._last = True
        if self._last:
            lines.append(b"connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"
