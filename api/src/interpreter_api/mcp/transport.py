"""``/mcp`` and ``POST /mcp/sse``: streamable HTTP without a server-side session (ADR 0003).

The SDK's stateless manager answers both protocol revisions. What it leaves out for the 2025 ones is added here:
``initialize`` hands out an ``Mcp-Session-Id`` that names the client and nothing else, ``notifications/cancelled`` and
DELETE interrupt that client's calls. GET is refused (405, as the specification allows): the server has nothing to say
unasked, so there are no idle streams to hold open.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response

from interpreter_api.mcp.headers import PROTOCOL_VERSION_HEADER, SESSION_HEADER

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.types import Message, Receive, Scope, Send

    from interpreter_api.mcp.cancellation import CallsInFlight
    from interpreter_api.services.ports import Principal

MAX_BODY_BYTES = 32 << 20
"""Room for 10 MB of code in JSON escapes; the same limit as other JSON bodies."""

_MAX_CLIENT_ID = 128
_PEEK_BYTES = 64 << 10  # handshakes and cancellations are far smaller; a larger body is a call
_SDK_REFUSED_REQUEST = -32600


def principal_of(scope: Scope) -> Principal:
    """Who calls, as the authentication middleware found."""
    principal: Principal = scope["state"]["principal"]
    return principal


class StreamableHttp:
    """The ASGI endpoint; mount it for all methods of a path."""

    def __init__(self, manager: StreamableHTTPSessionManager, calls: CallsInFlight) -> None:
        self._manager = manager
        self._calls = calls
        self._post = RequestBodyLimitMiddleware(self._handle_post, MAX_BODY_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"MCP over {scope['type']} is not served")
        client_id = Headers(scope=scope).get(SESSION_HEADER, "")
        if len(client_id) > _MAX_CLIENT_ID:
            await _refuse(400, f"{SESSION_HEADER} is longer than {_MAX_CLIENT_ID} characters")(scope, receive, send)
        elif scope["method"] == "POST":
            await self._post(scope, receive, send)
        elif scope["method"] == "DELETE" and client_id:
            self._calls.cancel_client(principal_of(scope).id, client_id)
            await Response(status_code=204)(scope, receive, send)
        else:
            await _refuse(405, "Method Not Allowed", {"Allow": "POST, DELETE"})(scope, receive, send)

    async def _handle_post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called with the body complete in the first message: the limit above has read it."""
        headers = Headers(scope=scope)
        if headers.get(PROTOCOL_VERSION_HEADER, HANDSHAKE_PROTOCOL_VERSIONS[-1]) in HANDSHAKE_PROTOCOL_VERSIONS:
            first = await receive()
            receive = _replay(first, receive)
            message = _peek(first.get("body", b""))
            if problem := _problem(message):
                await _refuse(400, problem)(scope, receive, send)
                return
            method = message.get("method")
            client_id = headers.get(SESSION_HEADER)
            if method == "notifications/cancelled" and client_id and "id" not in message:
                params = message.get("params")
                request_id = params.get("requestId") if isinstance(params, dict) else None
                if isinstance(request_id, str | int):
                    self._calls.cancel(principal_of(scope).id, client_id, request_id)
                await Response(status_code=202)(scope, receive, send)
                return
            if method == "initialize" and client_id is None:
                send = _name_client(send)
        await self._manager.handle_request(scope, receive, send)


def _peek(body: bytes) -> dict[str, Any]:
    """A small message; empty where it is too large to be of interest, or is not JSON: then the SDK says so."""
    if len(body) > _PEEK_BYTES:
        return {}
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {"batch": message}


def _problem(message: dict[str, Any]) -> str:
    """What the SDK lets pass or answers with a page of its own validation: a request that is none."""
    if "batch" in message:
        return "A body is one JSON-RPC message"
    if message and not isinstance(message.get("method"), str) and not ("result" in message or "error" in message):
        return "A JSON-RPC message needs a method"
    if "id" in message and (isinstance(message["id"], bool) or not isinstance(message["id"], str | int)):
        return "A request id is a string or an integer"
    return ""


def _replay(first: Message, receive: Receive) -> Receive:
    """``receive`` with its first message put back."""
    pending: list[Message] = [first]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


def _name_client(send: Send) -> Send:
    """Give the client that initializes a name that no other has."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)[SESSION_HEADER] = secrets.token_hex(16)
        await send(message)

    return named


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    error = {"code": _SDK_REFUSED_REQUEST, "message": message}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status, headers)
