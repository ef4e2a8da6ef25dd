"""The outermost layer of a request: an id, one access record, the metrics, and an answer for what went wrong."""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING

from interpreter_api import logs
from interpreter_api.data.postgres import as_unavailable
from interpreter_api.errors import InternalError
from interpreter_api.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from interpreter_api.auth.addresses import Addresses
    from interpreter_api.errors import InterpreterError
    from interpreter_api.metrics import Metrics

log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/health", "/ready", "/metrics"})


class Access:
    """Pure ASGI. Paths are logged without their query: links carry signatures there, and people put keys there."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, addresses: Addresses) -> None:
        self._app = app
        self._metrics = metrics
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        reference = secrets.token_hex(8)
        token = logs.request_id.set(reference)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", reference.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # the last place where a client can still be given an answer
            answer: InterpreterError | None = as_unavailable(error)
            if answer is None:
                log.exception("unexpected error, reference %s", reference)
                answer = InternalError(f"the server failed to answer (reference {reference})")
            if status:
                raise  # half an answer has left: the server cuts the connection, so that nobody takes it for a whole
            await problem(answer)(scope, receive, send_with_id)
        finally:
            self._record(scope, status, time.perf_counter() - started)
            logs.request_id.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.request(method, _route(scope), status or 499, seconds)
        level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
        if log.isEnabledFor(level):
            principal = scope.get("state", {}).get("principal")
            log.log(
                level,
                "%s %s %s %.1fms client=%s principal=%s",
                method,
                scope["path"][:500],
                status or "aborted",
                seconds * 1000,
                self._addresses.client(scope),
                principal.id if principal else "-",
            )


def _route(scope: Scope) -> str:
    """The route's template: a label from a fixed set, however many paths are asked for."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    if isinstance(path, str):
        return path
    return scope["path"] if scope["path"] in {"/mcp", "/mcp/sse", "/mcp/messages"} else "other"
