"""``GET /mcp/sse`` for older clients: an event stream that answers, and ``POST /mcp/messages`` that asks.

This transport (2024-11-05) is bound to one process by its nature: the answer to a POST leaves by the stream that the
client opened. Streams are counted, since each costs memory for as long as the client likes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.sse import SseServerTransport
from starlette.responses import JSONResponse

from interpreter_api.errors import RateLimitedError
from interpreter_api.mcp.transport import MAX_BODY_BYTES, principal_of

if TYPE_CHECKING:
    from typing import Any

    from mcp.server.lowlevel import Server
    from starlette.types import Receive, Scope, Send

MESSAGES_PATH = "/mcp/messages"
MAX_STREAMS = 256
MAX_STREAMS_PER_PRINCIPAL = 64


class LegacySse:
    """Both halves of the transport. A stream takes messages from the principal that opened it only."""

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self._transport = SseServerTransport(MESSAGES_PATH, max_request_body_size=MAX_BODY_BYTES)
        self._streams: Counter[str] = Counter()

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until it goes; its running calls are interrupted then."""
        owner = principal_of(scope).id
        if self._streams.total() >= MAX_STREAMS or self._streams[owner] >= MAX_STREAMS_PER_PRINCIPAL:
            error = RateLimitedError(
                f"too many open event streams (at most {MAX_STREAMS_PER_PRINCIPAL} for one key, {MAX_STREAMS} in all)",
                remedy="Close one, or use streamable HTTP at /mcp, which needs none.",
            )
            await JSONResponse(
                {"status": error.status, **error.as_dict()},
                error.status,
                {"Retry-After": "10"},
                media_type="application/problem+json",
            )(scope, receive, send)
            return
        self._streams[owner] += 1
        try:
            async with self._transport.connect_sse(_owned(scope), receive, send) as (incoming, outgoing):
                await self._server.run(incoming, outgoing, self._server.create_initialization_options())
        finally:
            self._streams[owner] -= 1
            if not self._streams[owner]:
                del self._streams[owner]

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one message for an open stream; 404 for a stream of someone else's, as for an unknown one."""
        await self._transport.handle_post_message(_owned(scope), receive, send)


def _owned(scope: Scope) -> Scope:
    """The scope with the principal in the SDK's form: it compares the opener of a stream with who posts to it."""
    principal = principal_of(scope)
    return {**scope, "user": AuthenticatedUser(AccessToken(token="", client_id=principal.id, scopes=[]))}
