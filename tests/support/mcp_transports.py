"""One MCP client a way in: both revisions of streamable HTTP, its older address, the old event stream, and stdio."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx2
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_types import CallToolResult

    from support.server import Server

Way = Literal["http-2025-11-25", "http-2026-07-28", "alias", "sse", "stdio-2025-11-25", "stdio-2026-07-28"]
WAYS: tuple[Way, ...] = (
    "http-2025-11-25",
    "http-2026-07-28",
    "alias",
    "sse",
    "stdio-2025-11-25",
    "stdio-2026-07-28",
)
PROGRAM = Path(sys.prefix) / "bin" / "power-interpreter"


def stdio_parameters(data_dir: Path, **settings: str) -> StdioServerParameters:
    """``power-interpreter stdio`` on a DATA_DIR, as a desktop client starts it."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "DATA_DIR": str(data_dir), **settings}
    return StdioServerParameters(command=str(PROGRAM), args=["stdio"], env=env)


@asynccontextmanager
async def connect(way: Way, server: Server, *, api_key: str | None = None) -> AsyncIterator[Client]:
    """The official client, connected as the first principal, or as the one with ``api_key``."""
    key = api_key or server.api_key
    headers = {"Authorization": f"Bearer {key}"}
    if way == "sse":
        async with Client(sse_client(server.url + "/mcp/sse", headers=headers), mode="legacy") as client:
            yield client
    elif way.startswith("stdio"):
        parameters = stdio_parameters(server.data_dir, API_KEY=key)
        async with Client(stdio_client(parameters), mode=_mode(way)) as client:
            yield client
    else:
        path = "/mcp/sse" if way == "alias" else "/mcp"
        async with (
            httpx2.AsyncClient(headers=headers, timeout=120) as http,
            Client(streamable_http_client(server.url + path, http_client=http), mode=_mode(way)) as client,
        ):
            yield client


def _mode(way: Way) -> str:
    return "2026-07-28" if way.endswith("2026-07-28") else "legacy"


def text_of(result: CallToolResult) -> str:
    """What a model reads."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))
