"""How large and how slow a request's body may be: pure ASGI, counted as it streams, nothing is buffered."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING

from interpreter_api.errors import TooLargeError
from interpreter_api.problems import plain_problem, problem

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 32 << 20
#: After the first pause's worth of time a body must have come at this rate: drip-fed bodies hold a connection each.
MIN_BYTES_PER_SECOND = 1024
_DRAIN_SECONDS = 2.0

_UPLOADS = re.compile(r"/api/files(/.*)?|/api/sessions/[^/]+/files(/.*)?")


class _BodyRefusedError(Exception):
    """Raised into the application's ``receive``: it must stop reading."""


class BodyLimit:
    """413 for a body over its limit, declared or streamed; 408 for one that stops coming.

    Uploads may have ``max_upload_bytes``, everything else 32 MiB.
    """

    def __init__(self, app: ASGIApp, max_upload_bytes: int, pause_seconds: float) -> None:
        self._app = app
        self._max_upload_bytes = max_upload_bytes
        self._pause_seconds = pause_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._max_upload_bytes if _UPLOADS.fullmatch(scope["path"]) else MAX_BODY_BYTES
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > limit:
            await _send_and_drain(_too_large(limit), scope, receive, send)
            return
        if declared == b"0" and not any(name == b"transfer-encoding" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        await _Body(limit, self._pause_seconds, receive, send).run(self._app, scope)


class _Body:
    """One request whose body is being counted."""

    def __init__(self, limit: int, pause_seconds: float, receive: Receive, send: Send) -> None:
        self._limit = limit
        self._pause_seconds = pause_seconds
        self._receive = receive
        self._send = send
        self._started = time.monotonic()
        self._seen = 0
        self._complete = False
        self._answering = False
        self._refusal: Response | None = None

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        with contextlib.suppress(_BodyRefusedError):
            await app(scope, self.receive, self.send)
        if self._refusal is not None and not self._answering:
            await _send_and_drain(self._refusal, scope, self._receive, self._send)

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._refusal is not None:
            raise _BodyRefusedError
        try:
            async with asyncio.timeout(self._pause_seconds):
                message = await self._receive()
        except TimeoutError:
            raise self._refused(_too_slow()) from None
        self._seen += len(message.get("body", b""))
        self._complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        if self._seen > self._limit:
            raise self._refused(_too_large(self._limit))
        elapsed = time.monotonic() - self._started
        if not self._complete and elapsed > self._pause_seconds and self._seen < elapsed * MIN_BYTES_PER_SECOND:
            raise self._refused(_too_slow())
        return message

    async def send(self, message: Message) -> None:
        # Frameworks turn whatever fails while they read a body into an answer of their own: ours is the true one.
        if self._refusal is None or self._answering:
            self._answering = True
            await self._send(message)

    def _refused(self, response: Response) -> _BodyRefusedError:
        self._refusal = response
        return _BodyRefusedError()


def _too_large(limit: int) -> Response:
    error = TooLargeError(
        f"the request's body is larger than {limit >> 20} MiB", remedy="Send less at once.", limit_bytes=limit
    )
    return problem(error, {"Connection": "close"})


def _too_slow() -> Response:
    return plain_problem(408, "request_timeout", "the request's body came too slowly", {"Connection": "close"})


async def _send_and_drain(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, then read on for a moment before the connection closes.

    A client that is still sending would otherwise meet a reset connection and never see the answer.
    """
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
