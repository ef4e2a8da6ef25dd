"""``kernel://{session_id}/{path}``: files of a session's workspace as MCP resources.

These are the addresses in resource links, so that a client can read what it was given without leaving MCP.
"""

import base64
from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from interpreter_api.errors import InterpreterError, NotFoundError
from interpreter_api.mcp.calls import caller

if TYPE_CHECKING:
    from interpreter_api.mcp.calls import ToolServices

MAX_RESOURCE_BYTES = 8 << 20


def register(server: MCPServer[Any], services: "ToolServices") -> None:
    """Add the template to the server."""

    @server.resource(
        "kernel://{session_id}/{+path}",
        name="workspace_file",
        title="Workspace file",
        description="A file in a session's workspace, of at most 8 MiB. Larger ones have download links.",
        mime_type="application/octet-stream",
    )
    async def workspace_file(ctx: Context[Any, Any], session_id: str, path: str) -> str | bytes:
        try:
            file = await services.workspace.read_file(caller(ctx), session_id, path, max_bytes=MAX_RESOURCE_BYTES)
        except NotFoundError as error:
            raise ResourceNotFoundError(error.message) from None
        except InterpreterError as error:
            raise ResourceError(f"{error.code}: {error.message}") from None
        if file.truncated:
            raise ResourceError(f"too_large: {path} has {file.size} bytes; resources end at {MAX_RESOURCE_BYTES}.")
        if file.content is not None:
            return file.content
        return base64.b64decode(file.content_base64 or "")
