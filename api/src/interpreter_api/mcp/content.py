"""Results of the services as MCP content: text and pictures for the model, structure for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_types import CallToolResult, ImageContent, ResourceLink, TextContent

from interpreter_api.services.text import render

if TYPE_CHECKING:
    from mcp_types import ContentBlock

    from interpreter_api.errors import InterpreterError
    from interpreter_api.services.models import ExecutionResult

INLINE_IMAGE_TYPES = frozenset({"image/png", "image/jpeg"})
MAX_IMAGE_BASE64 = 1 << 20
MAX_IMAGES_BASE64 = 4 << 20
"""Clients refuse answers of many megabytes; what is over stays a link."""


def execution_result(result: ExecutionResult) -> CallToolResult:
    """One execution: its text, each chart once, a link for each file; the whole as structured content.

    Code that raised is a tool error (``isError``), as the specification asks, so that the model sees that it must
    mend its code. The structured content is the same ``ExecutionResult`` either way.
    """
    content: list[ContentBlock] = []
    room = MAX_IMAGES_BASE64
    too_large: list[str] = []
    for chart in result.charts:
        data = chart.data_base64
        if data is None or chart.mime_type not in INLINE_IMAGE_TYPES:
            continue
        if len(data) > min(MAX_IMAGE_BASE64, room):
            too_large.append(chart.name)
            continue
        room -= len(data)
        content.append(ImageContent(data=data, mime_type=chart.mime_type))
    text = render(result)
    if too_large:
        text += f"\nToo large to show here, see the link: {', '.join(too_large)}"
    content.insert(0, TextContent(text=text))
    content.extend(
        ResourceLink(uri=file.uri, name=file.name, mime_type=file.mime_type, size=file.size)
        for file in {file.id: file for file in (*result.charts, *result.files)}.values()
    )
    return CallToolResult(
        content=content,
        structured_content=result.model_dump(mode="json", exclude={"charts": {"__all__": {"data_base64"}}}),
        is_error=not result.success,
    )


def error_result(error: InterpreterError) -> CallToolResult:
    """An error of the tree: ``code: message — remedy`` for the model, the fields for programs."""
    text = f"{error.code}: {error.message}" + (f" — {error.remedy}" if error.remedy else "")
    return CallToolResult(content=[TextContent(text=text)], structured_content=error.as_dict(), is_error=True)
