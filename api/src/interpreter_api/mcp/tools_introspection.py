"""Tools that look and change nothing: variables, completions, descriptions, and how a session's sandbox is."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field

from interpreter_api import __version__
from interpreter_api.mcp.calls import caller
from interpreter_api.services.models import (
    CodeCompletions,
    KernelHealth,
    ObjectInfo,
    Pong,
    Responsiveness,
    VariableList,
    WorkspaceInfo,
)

if TYPE_CHECKING:
    from interpreter_api.mcp.calls import ToolServices

SessionId = Annotated[str, Field(description='A session id, or "default" for your own session.')]
CursorPos = Annotated[int, Field(description="Where the cursor is in code, in characters from its start.")]
READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)


def register(server: MCPServer[Any], services: "ToolServices") -> None:
    """Add the tools to the server."""
    _about_code(server, services)
    _about_the_sandbox(server, services)


def _about_code(server: MCPServer[Any], services: "ToolServices") -> None:
    @server.tool(
        title="List variables",
        description="List what the session's code has made: name, type, length or shape, bytes and a short preview. "
        "Runs no code and is not counted as an execution; while code runs the session is busy.",
        annotations=READ_ONLY,
    )
    async def list_variables(ctx: Context[Any, Any], session_id: SessionId = "default") -> VariableList:
        return await services.introspection.list_variables(caller(ctx), session_id)

    @server.tool(
        title="Complete code",
        description="What could stand at the cursor: names, attributes of the session's living objects, modules, "
        "magics and files. Each match takes the place of the characters from cursor_start to cursor_end.",
        annotations=READ_ONLY,
    )
    async def code_completion(
        ctx: Context[Any, Any],
        code: Annotated[str, Field(description="The code as far as it is written.")],
        cursor_pos: CursorPos,
        session_id: SessionId = "default",
    ) -> CodeCompletions:
        return await services.introspection.complete(caller(ctx), session_id, code, cursor_pos)

    @server.tool(
        title="Describe an object",
        description="What the name at the cursor is (inside a call: the function that is called): signature, "
        "docstring, type and, at detail_level 1, source. For variables of the session and for any library.",
        annotations=READ_ONLY,
    )
    async def inspect_object(
        ctx: Context[Any, Any],
        code: Annotated[str, Field(description="Code that names the object, such as df.groupby.")],
        cursor_pos: CursorPos,
        detail_level: Annotated[int, Field(ge=0, le=1, description="1 adds the source, where there is one.")] = 0,
        session_id: SessionId = "default",
    ) -> ObjectInfo:
        return await services.introspection.inspect(
            caller(ctx), session_id, code, cursor_pos, detail_level=detail_level
        )


def _about_the_sandbox(server: MCPServer[Any], services: "ToolServices") -> None:
    @server.tool(
        title="Kernel health",
        description="A session's sandbox by numbers: process id, memory, CPU time, threads, uptime, restarts, "
        "workspace. Answers while code runs, too; a session without a sandbox says so and starts none.",
        annotations=READ_ONLY,
    )
    async def get_kernel_health(ctx: Context[Any, Any], session_id: SessionId = "default") -> KernelHealth:
        return await services.introspection.health(caller(ctx), session_id)

    @server.tool(
        title="Check that a kernel answers",
        description="Ask the process that runs a session's code for nothing and wait at most two seconds: whether it "
        "answers, how fast, and whether it is busy with code.",
        annotations=READ_ONLY,
    )
    async def check_kernel_responsiveness(ctx: Context[Any, Any], session_id: SessionId = "default") -> Responsiveness:
        return await services.introspection.responsiveness(caller(ctx), session_id)

    @server.tool(
        title="Workspace info",
        description="How many files and folders a session's workspace holds, how many bytes they take and how many "
        "fit in all.",
        annotations=READ_ONLY,
    )
    async def get_workspace_info(ctx: Context[Any, Any], session_id: SessionId = "default") -> WorkspaceInfo:
        return await services.introspection.workspace(caller(ctx), session_id)

    @server.tool(
        title="Ping",
        description="Whether the server is there: its name, its version and its time. Touches no session.",
        annotations=READ_ONLY,
    )
    async def ping() -> Pong:
        return Pong(name="power-interpreter", version=__version__, time=datetime.now(UTC))
