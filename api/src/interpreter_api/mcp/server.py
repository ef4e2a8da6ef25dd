"""The MCP server: tools over the services, errors as the caller should see them, and its place in the app."""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.routing import Route

from interpreter_api import __version__
from interpreter_api.data.postgres import as_unavailable
from interpreter_api.errors import InternalError, InterpreterError, InvalidArgumentError
from interpreter_api.mcp import (
    resources,
    tools_execution,
    tools_files,
    tools_introspection,
    tools_scripts,
    tools_sessions,
)
from interpreter_api.mcp.cancellation import CallsInFlight
from interpreter_api.mcp.content import error_result
from interpreter_api.mcp.headers import SESSION_HEADER
from interpreter_api.mcp.sse import MESSAGES_PATH, LegacySse
from interpreter_api.mcp.transport import MAX_BODY_BYTES, StreamableHttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_types import CallToolResult, InputRequiredResult
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

    from interpreter_api.mcp.calls import ToolServices

logger = logging.getLogger(__name__)

INSTRUCTIONS = """\
Runs Python in an isolated sandbox and keeps its state. Call execute_code; variables, imports and files stay in the \
session between calls, and without a session_id you always work in your own "default" session. Charts (matplotlib, \
seaborn, plotly) come back as pictures; files that the code writes (xlsx, csv, pdf, png, ...) come back as links that \
you can give to the user as they are. pd, np, plt, sns, go and px are there without import. The sandbox has no \
network: bring data in with write_file."""


class InterpreterMcp(MCPServer[Any]):
    """The SDK's server, except that a failed call tells the caller ``code``, ``message`` and ``remedy``."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; what it raises becomes a tool error that a model can act on, and shows nothing internal."""
        if self._tool_input_schema(name) is None:
            raise MCPError(code=INVALID_PARAMS, message=f"Unknown tool: {name[:200]}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            return error_result(_as_interpreter_error(name, error.__cause__ or error))


def _as_interpreter_error(tool: str, cause: BaseException) -> InterpreterError:
    match cause:
        case InterpreterError():
            return cause
        case ValidationError() if cause.title == f"{tool}Arguments":
            # By field and reason; never the value, which may be the caller's data and as long as it likes.
            problems = [f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in cause.errors()]
            return InvalidArgumentError(f"{tool} was called wrongly. " + "; ".join(problems[:10]))
        case _ if unavailable := as_unavailable(cause):
            return unavailable
        case _:
            reference = secrets.token_hex(6)
            logger.error("tool %s failed, reference %s", tool, reference, exc_info=cause)
            return InternalError(f"The server failed to answer {tool} (reference {reference}).")


def build(services: ToolServices, calls: CallsInFlight) -> InterpreterMcp:
    """The server with every tool and resource; ``calls`` is how clients of the 2025 revisions cancel."""
    server = InterpreterMcp(
        name="power-interpreter",
        title="Power Interpreter",
        version=__version__,
        instructions=INSTRUCTIONS,
        middleware=[calls],
        subscriptions=False,  # nothing here changes that a client could listen for, and a listener is an idle stream
        log_level="WARNING",
    )
    tools_execution.register(server, services)
    tools_scripts.register(server, services)
    tools_sessions.register(server, services)
    tools_files.register(server, services)
    tools_introspection.register(server, services)
    resources.register(server, services)
    return server


@asynccontextmanager
async def mount(app: Starlette, services: ToolServices) -> AsyncIterator[InterpreterMcp]:
    """Serve MCP in ``app`` for the length of the ``async with``; enter it in the app's lifespan.

    The app's middleware must authenticate, check Host and Origin, and put the ``Principal`` into
    ``scope["state"]["principal"]``.
    """
    logging.getLogger("mcp").setLevel(logging.WARNING)  # the SDK logs each stateless request at INFO
    calls = CallsInFlight()
    server = build(services, calls)
    # Makes the manager. The SDK's own check of Host and Origin stays off: it knows localhost only, and would refuse
    # what the settings allow; the app's middleware has checked both.
    server.streamable_http_app(
        stateless_http=True,
        max_request_body_size=MAX_BODY_BYTES,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    manager = server.session_manager
    http = StreamableHttp(manager, calls)
    sse = LegacySse(manager.app)
    routes = [
        Route("/mcp", _Endpoint(http), include_in_schema=False),
        Route("/mcp/sse", _Endpoint(_SseAlias(sse, http)), include_in_schema=False),
        Route(MESSAGES_PATH, _Endpoint(sse.messages), include_in_schema=False),
    ]
    async with manager.run():
        app.router.routes[:0] = routes  # in front: no other route needs to be matched first
        try:
            yield server
        finally:
            for route in routes:
                app.router.routes.remove(route)


class _SseAlias:
    """``/mcp/sse``: GET opens the old event stream, anything else is streamable HTTP at its older address."""

    def __init__(self, sse: LegacySse, http: StreamableHttp) -> None:
        self._sse = sse
        self._http = http

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A GET that names its client comes from streamable HTTP, which is told 405 as at /mcp.
        old = scope["method"] == "GET" and SESSION_HEADER not in Headers(scope=scope)
        await (self._sse.stream if old else self._http)(scope, receive, send)


class _Endpoint:
    """An ASGI app that Starlette's ``Route`` takes for what it is: it would call a function with a ``Request``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
