"""Cancelling calls of clients that speak the 2025 revisions, without a server-side session.

Under 2026-07-28 a client cancels by closing the response stream, and the SDK does the rest. Before, it posts
``notifications/cancelled`` in a request of its own. The api keeps no MCP session (any replica answers any request),
so the call in flight is found by who asks: the principal, the ``Mcp-Session-Id`` that ``initialize`` handed to this
one client, and the request id. A client can therefore reach its own calls only, however the ids of others look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from mcp.shared.exceptions import MCPError
from starlette.requests import Request

from interpreter_api.mcp.headers import SESSION_HEADER

if TYPE_CHECKING:
    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

REQUEST_CANCELLED = -32800


class CallKey(NamedTuple):
    """One call in flight. ``request_id`` keeps its JSON type: ``"1"`` is not ``1``."""

    principal_id: str
    client_id: str
    request_id: str | int


class CallsInFlight:
    """A server middleware that remembers the running tool calls of each client, to cancel them by id."""

    def __init__(self) -> None:
        self._scopes: dict[CallKey, anyio.CancelScope] = {}

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Run the call in a scope that :meth:`cancel` can reach."""
        key = self._key(ctx)
        if key is None or key in self._scopes:
            return await call_next(ctx)
        scope = self._scopes[key] = anyio.CancelScope()
        result: HandlerResult = None
        try:
            with scope:
                result = await call_next(ctx)
        finally:
            del self._scopes[key]
        if scope.cancelled_caught:
            raise MCPError(code=REQUEST_CANCELLED, message="Request cancelled")
        return result

    def cancel(self, principal_id: str, client_id: str, request_id: str | int) -> bool:
        """Cancel one call; False where this client has none of that id."""
        scope = self._scopes.get(CallKey(principal_id, client_id, request_id))
        if scope is not None:
            scope.cancel()
        return scope is not None

    def cancel_client(self, principal_id: str, client_id: str) -> None:
        """Cancel all that a client left running: it said goodbye (DELETE)."""
        for key in [key for key in self._scopes if key[:2] == (principal_id, client_id)]:
            self._scopes[key].cancel()

    @staticmethod
    def _key(ctx: ServerRequestContext[Any, Any]) -> CallKey | None:
        if ctx.method != "tools/call" or ctx.request_id is None or not isinstance(ctx.request, Request):
            return None
        client_id = ctx.request.headers.get(SESSION_HEADER)
        if not client_id:
            return None
        return CallKey(ctx.request.scope["state"]["principal"].id, client_id, ctx.request_id)
