"""The tools are a public contract: names, arguments and answers are listed here and described for their reader."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema  # type: ignore[import-untyped]
import pytest

from interpreter_api.mcp import reference

if TYPE_CHECKING:
    from mcp_types import Tool

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "mcp-tools.md"

ARGUMENTS = {
    "execute_code": {"code": True, "session_id": False, "timeout": False, "execution_id": False},
    "create_session": {"name": False, "description": False, "class_name": False},
    "list_sessions": {"cursor": False, "limit": False},
    "clear_session": {"session_id": False},
    "restart_session": {"session_id": False, "preserve_state": False},
    "restart_kernel": {"session_id": False, "preserve_state": False},
    "switch_session": {"session_id": True},
    "delete_session": {"session_id": True},
    "save_script": {"name": True, "content": True, "session_id": False},
    "run_script": {"path": True, "args": False, "timeout": False, "session_id": False},
    "list_files": {"session_id": False, "path": False, "recursive": False, "cursor": False},
    "list_session_files": {"session_id": False, "path": False, "recursive": False, "cursor": False},
    "read_file": {"path": True, "session_id": False, "max_bytes": False},
    "write_file": {"path": True, "content": False, "binary_base64": False, "session_id": False},
    "delete_file": {"path": True, "session_id": False},
    "list_variables": {"session_id": False},
    "code_completion": {"code": True, "cursor_pos": True, "session_id": False},
    "inspect_object": {"code": True, "cursor_pos": True, "detail_level": False, "session_id": False},
    "get_kernel_health": {"session_id": False},
    "check_kernel_responsiveness": {"session_id": False},
    "get_workspace_info": {"session_id": False},
    "ping": {},
}
"""Every tool with its arguments, and whether each must be given (rows C01, C12, S01, F03)."""

READ_ONLY = {"list_sessions", "list_files", "list_session_files", "read_file"}
READ_ONLY |= {"list_variables", "code_completion", "inspect_object"}
READ_ONLY |= {"get_kernel_health", "check_kernel_responsiveness", "get_workspace_info", "ping"}


@pytest.fixture
async def tools() -> dict[str, Tool]:
    return {tool.name: tool for tool in await reference.tools()}


async def test_the_names_and_arguments_are_the_promised_ones(tools: dict[str, Tool]) -> None:
    found = {
        name: {
            argument: argument in tool.input_schema.get("required", ()) for argument in tool.input_schema["properties"]
        }
        for name, tool in tools.items()
    }
    assert found == ARGUMENTS


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_a_tool_is_described_for_a_model(tools: dict[str, Tool], name: str) -> None:
    tool = tools[name]
    assert tool.title
    assert len(tool.description or "") > 60
    for argument, schema in tool.input_schema["properties"].items():
        assert len(schema.get("description", "")) > 10, f"{name}({argument}) says nothing about itself"


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_a_tool_has_true_hints_and_a_schema_for_its_answer(tools: dict[str, Tool], name: str) -> None:
    tool = tools[name]
    assert tool.annotations is not None
    assert tool.annotations.read_only_hint is (name in READ_ONLY)
    assert tool.annotations.open_world_hint is False
    if name not in READ_ONLY:
        assert tool.annotations.destructive_hint is (name not in {"create_session", "switch_session"})
        assert tool.annotations.idempotent_hint is not None
    assert tool.output_schema is not None
    assert tool.output_schema["type"] == "object"
    jsonschema.Draft202012Validator.check_schema(tool.output_schema)
    jsonschema.Draft202012Validator.check_schema(tool.input_schema)


async def test_the_page_is_what_the_tools_say() -> None:
    assert PAGE.read_text() == await reference.markdown(), (
        "docs/mcp-tools.md is old; run: python -m interpreter_api.mcp.reference > docs/mcp-tools.md"
    )
