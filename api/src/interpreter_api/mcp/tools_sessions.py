"""Tools about sessions: make, list, empty, make the default, delete."""

from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field

from interpreter_api.mcp.calls import caller
from interpreter_api.services.models import Deleted, Restarted, Session, SessionList

if TYPE_CHECKING:
    from interpreter_api.mcp.calls import ToolServices


DESTRUCTIVE = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
SessionId = Annotated[str, Field(description='A session id, or "default" for your own session.')]

RESTART = """\
Give a session a fresh Python process: its variables are gone, its id and files stay. Code that runs in it is \
interrupted. The way out when a session hangs. Keeping the variables (preserve_state) is not available yet."""


def register(server: MCPServer[Any], services: "ToolServices") -> None:
    """Add the tools to the server."""

    @server.tool(
        title="Create a session",
        description="Make a new, empty session and get its session_id. Only needed to keep pieces of work apart: "
        'execute_code works in your "default" session without this.',
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
        ),
    )
    async def create_session(
        ctx: Context[Any, Any],
        name: Annotated[str, Field(description="A name to recognise it by; at most 200 characters.")] = "",
        description: Annotated[str, Field(description="What it is for.")] = "",
        class_name: Annotated[str, Field(description="Sandbox size; empty for the server's default.")] = "",
    ) -> Session:
        return await services.sessions.create(caller(ctx), name=name, description=description, class_name=class_name)

    @server.tool(
        title="List sessions",
        description="List your sessions, newest first: id, name, when last used, when it expires, whether code runs "
        "in it now. Pass next_cursor back as cursor for the next page.",
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    async def list_sessions(
        ctx: Context[Any, Any],
        cursor: Annotated[str | None, Field(description="next_cursor of the page before.")] = None,
        limit: Annotated[int, Field(ge=1, le=1000, description="Most sessions in this page.")] = 100,
    ) -> SessionList:
        return await services.sessions.list(caller(ctx), cursor=cursor, limit=limit)

    @server.tool(
        title="Clear a session",
        description="Drop all variables, imports and functions of a session. Its id and files stay. Code that runs in "
        "it is interrupted.",
        annotations=DESTRUCTIVE,
    )
    async def clear_session(ctx: Context[Any, Any], session_id: SessionId = "default") -> Restarted:
        return await services.sessions.clear(caller(ctx), session_id)

    async def restart_session(
        ctx: Context[Any, Any],
        session_id: SessionId = "default",
        preserve_state: Annotated[
            bool, Field(description="Must be false: a restart that keeps the variables is not available yet.")
        ] = False,
    ) -> Restarted:
        return await services.sessions.restart(caller(ctx), session_id, preserve_state=preserve_state)

    for name in ("restart_session", "restart_kernel"):  # the second is the older name
        server.add_tool(
            restart_session, name=name, title="Restart a session", description=RESTART, annotations=DESTRUCTIVE
        )

    @server.tool(
        title="Switch the default session",
        description='Make one of your sessions your "default": calls without a session_id work in it from now on. The '
        "session that was the default before stays, under its own id.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def switch_session(
        ctx: Context[Any, Any],
        session_id: Annotated[str, Field(description="The id of one of your sessions, as list_sessions shows it.")],
    ) -> Session:
        return await services.sessions.switch(caller(ctx), session_id)

    @server.tool(
        title="Delete a session",
        description="End a session for good: its variables and files are gone, links to its files stop working, and "
        "code that runs in it is stopped.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def delete_session(
        ctx: Context[Any, Any],
        session_id: Annotated[str, Field(description='The id of the session, or "default".')],
    ) -> Deleted:
        return await services.sessions.delete(caller(ctx), session_id)
