"""``docs/mcp-tools.md``, from the tools themselves: ``python -m interpreter_api.mcp.reference > docs/mcp-tools.md``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any, cast

from interpreter_api.mcp.cancellation import CallsInFlight
from interpreter_api.mcp.server import INSTRUCTIONS, build

if TYPE_CHECKING:
    from mcp_types import Tool

    from interpreter_api.mcp.calls import ToolServices

HEADER = """\
# MCP tools

Written by `python -m interpreter_api.mcp.reference`; a contract test keeps it true.

Endpoints: `POST /mcp` (revisions 2025-11-25 and 2026-07-28), `/mcp/sse` for older clients (GET: an event stream; \
POST: the same as `/mcp`), and `power-interpreter stdio`. Every failed call is a tool error whose text is \
`code: message — remedy`, with `code`, `message`, `remedy`, `retryable` and `details` as structured content. Code that \
raised is a tool error too; its structured content is the whole `ExecutionResult`.

Files in a session are also resources: `kernel://{session_id}/{path}`.

## What the server tells a client

"""


async def tools() -> list[Tool]:
    """The tools as a client lists them. Nothing is called, so no service is needed."""
    return await build(cast("ToolServices", None), CallsInFlight()).list_tools()


async def markdown() -> str:
    """The whole page."""
    return HEADER + f"{INSTRUCTIONS}\n" + "".join(_section(tool) for tool in await tools())


def _section(tool: Tool) -> str:
    hints = tool.annotations.model_dump(exclude_none=True) if tool.annotations else {}
    lines = [
        f"\n## {tool.name}\n",
        f"*{tool.title}* · {', '.join(f'{name}: {str(value).lower()}' for name, value in hints.items())}\n",
        f"{tool.description}\n",
    ]
    properties: dict[str, dict[str, Any]] = tool.input_schema.get("properties", {})
    if properties:
        lines += ["| Argument | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
        required = set(tool.input_schema.get("required", ()))
        for name, schema in properties.items():
            default = "required" if name in required else f"`{json.dumps(schema.get('default'))}`"
            lines.append(f"| `{name}` | {_type(schema)} | {default} | {schema.get('description', '')} |")
        lines.append("")
    output = tool.output_schema or {}
    fields = ", ".join(f"`{name}`" for name in output.get("properties", {}))
    lines.append(f"Answers `{output.get('title')}`: {fields}.\n")
    return "\n".join(lines)


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    return str(schema.get("type", "any"))


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(markdown()))
