"""The tool that everything is about: run code.

No ``from __future__ import annotations`` in the tool modules: the SDK reads the signatures at run time.
"""

from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field

from interpreter_api.mcp.calls import Progress, caller, cancelled_once
from interpreter_api.mcp.content import execution_result
from interpreter_api.services.models import ExecutionResult
from interpreter_api.services.ports import ExecuteCommand

if TYPE_CHECKING:
    from interpreter_api.mcp.calls import ToolServices

EXECUTE_CODE = """\
Run Python code in a sandbox and get what it printed, the value of its last expression, charts and files.

State: variables, imports, functions and files stay for the next call in the same session. session_id "default" is \
your own session; "" or "0" starts a new one and its id is in session_info. One execution at a time runs in a session.
Python: IPython, so the last expression is the result, and !shell, %magic and top-level await work. pd, np, plt, sns, \
go, px and sm need no import. There is no network.
Charts: every matplotlib, seaborn or plotly figure is captured once, whether shown, saved or left open; do not encode \
pictures yourself.
Files: write them with relative paths (df.to_excel("report.xlsx")); documents, tables and pictures come back as \
download links that expire. Give the user the url, unchanged.
Errors: code that fails comes back as an error with its type, message and traceback; state up to there is kept. \
After the timeout the code is interrupted; state is kept where it stops in time.
Retries: send your own execution_id, and a repeated call gives the first answer instead of running twice."""


def register(server: MCPServer[Any], services: "ToolServices") -> None:
    """Add the tool to the server."""

    @server.tool(
        title="Run Python code",
        description=EXECUTE_CODE,
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
        ),
    )
    async def execute_code(
        ctx: Context[Any, Any],
        code: Annotated[str, Field(description="Python source; several lines are fine. At most 10 MB.")],
        session_id: Annotated[
            str, Field(description='A session id, "default" for your own, "" or "0" for a new session.')
        ] = "default",
        timeout: Annotated[  # noqa: ASYNC109 - the public name; the service enforces it
            float | None, Field(description="Seconds until the code is interrupted; null for the server's maximum.")
        ] = None,
        execution_id: Annotated[
            str | None,
            Field(description="Your own id for this run (letters, digits, _ and -, at most 64), to retry safely."),
        ] = None,
    ) -> Annotated[CallToolResult, ExecutionResult]:
        if not Progress.wanted(ctx):
            command = ExecuteCommand(code, session_id, timeout, execution_id, inline_images=True)
            return execution_result(await cancelled_once(services.executions.execute(caller(ctx), command)))
        async with Progress(ctx) as progress:
            command = ExecuteCommand(code, session_id, timeout, execution_id, True, progress.on_event)
            result = await cancelled_once(services.executions.execute(caller(ctx), command))
        return execution_result(result)
