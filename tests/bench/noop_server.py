"""The floor: the MCP SDK's own server with one tool that does nothing, served as the SDK serves it."""

from __future__ import annotations

import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("floor", log_level="WARNING")


@server.tool()
def noop() -> str:
    """Do nothing."""
    return "2"


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]), json_response=True, stateless_http=True)
