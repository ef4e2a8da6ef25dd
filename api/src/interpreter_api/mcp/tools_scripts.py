"""Tools about scripts: save one, run one."""

from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from interpreter_api.mcp.calls import Progress, caller, cancelled_once
from interpreter_api.mcp.content import execution_result
from interpreter_api.services.models import ExecutionResult, FileWritten
from interpreter_api.services.ports import RunScriptCommand

if TYPE_CHECKING:
    from interpreter_api.mcp.calls import ToolServices

SessionId = Annotated[str, Field(description='A session id, or "default" for your own session.')]


def register(server: MCPServer[Any], services: "ToolServices") -> None:
    """Add the tools to the server."""

    @server.tool(
        title="Save a script",
        description="Save Python source as scripts/{name}.py in a session's workspace, to run it with run_script or to "
        "import it later; a script of that name is replaced. The answer's path is what run_script takes.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def save_script(
        ctx: Context[Any, Any],
        name: Annotated[str, Field(description="A file name without folders; .py is added where it is missing.")],
        content: Annotated[str, Field(description="The Python source. At most 10 MB.")],
        session_id: SessionId = "default",
    ) -> FileWritten:
        return await services.scripts.save(caller(ctx), session_id, name, content)

    @server.tool(
        title="Run a script",
        description="Run a Python file of a session's workspace as `python path args...` does: a process of its own, "
        "with sys.argv and __main__, that starts in the workspace and neither sees nor changes the session's "
        "variables. Answers like execute_code; an exit code other than 0 is an error. Pictures and tables that the "
        "script should hand over must be saved to files; nothing is imported for it.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
        ),
    )
    async def run_script(
        ctx: Context[Any, Any],
        path: Annotated[str, Field(description="Relative to the workspace, such as scripts/report.py.")],
        args: Annotated[list[str], Field(description="The script's arguments: sys.argv[1:].")] = [],  # noqa: B006
        timeout: Annotated[  # noqa: ASYNC109 - the public name; the service enforces it
            float | None,
            Field(description="Seconds until the script is ended; null for 120, or the server's maximum if lower."),
        ] = None,
        session_id: SessionId = "default",
    ) -> Annotated[CallToolResult, ExecutionResult]:
        arguments = (path, args, session_id, timeout, True)
        if not Progress.wanted(ctx):
            command = RunScriptCommand(*arguments)
            return execution_result(await cancelled_once(services.scripts.run(caller(ctx), command)))
        async with Progress(ctx) as progress:
            command = RunScriptCommand(*arguments, progress.on_event)
            result = await cancelled_once(services.scripts.run(caller(ctx), command))
        return execution_result(result)
