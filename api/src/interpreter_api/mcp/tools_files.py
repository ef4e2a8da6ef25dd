"""Tools about the files in a session's workspace: list, read, write, delete."""

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import CallToolResult, ImageContent, TextContent, ToolAnnotations
from pydantic import Field

from interpreter_api.errors import InvalidArgumentError
from interpreter_api.mcp.calls import caller
from interpreter_api.mcp.content import INLINE_IMAGE_TYPES, MAX_IMAGE_BASE64
from interpreter_api.services.models import Deleted, FileContent, FileWritten, WorkspaceListing

if TYPE_CHECKING:
    from interpreter_api.mcp.calls import ToolServices

SessionId = Annotated[str, Field(description='A session id, or "default" for your own session.')]
FilePath = Annotated[str, Field(description="Path relative to the session's workspace, such as data/sales.csv.")]
READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)

LIST_FILES = """\
List the files in a session's workspace, the folder where its code runs. Paths can be given to read_file, delete_file \
and to code as they are. Pass next_cursor back as cursor for the next page."""


def register(server: MCPServer[Any], services: "ToolServices") -> None:
    """Add the tools to the server."""

    async def list_files(
        ctx: Context[Any, Any],
        session_id: SessionId = "default",
        path: Annotated[str, Field(description="A folder; empty for the workspace itself.")] = "",
        recursive: Annotated[bool, Field(description="Also what is in folders below.")] = False,
        cursor: Annotated[str | None, Field(description="next_cursor of the page before.")] = None,
    ) -> WorkspaceListing:
        return await services.workspace.list_files(caller(ctx), session_id, path, recursive=recursive, cursor=cursor)

    for name in ("list_files", "list_session_files"):  # the second is the older name
        server.add_tool(list_files, name=name, title="List files", description=LIST_FILES, annotations=READ_ONLY)

    @server.tool(
        title="Read a file",
        description="Read a file of a session's workspace: text as it is, PNG and JPEG as a picture, anything else as "
        "base64 in the structured content. For large tables, read them with code instead.",
        annotations=READ_ONLY,
    )
    async def read_file(
        ctx: Context[Any, Any],
        path: FilePath,
        session_id: SessionId = "default",
        max_bytes: Annotated[int, Field(description="Read at most this much; truncated says if there is more.")] = (
            1 << 20
        ),
    ) -> Annotated[CallToolResult, FileContent]:
        return _file_result(await services.workspace.read_file(caller(ctx), session_id, path, max_bytes=max_bytes))

    @server.tool(
        title="Write a file",
        description="Write a file into a session's workspace, where code can open it by the same path; a file of that "
        "name is replaced, folders are made. Give content for text, or binary_base64 for anything else.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def write_file(
        ctx: Context[Any, Any],
        path: FilePath,
        content: Annotated[str | None, Field(description="The text to write, as UTF-8.")] = None,
        binary_base64: Annotated[str | None, Field(description="The bytes to write, as base64.")] = None,
        session_id: SessionId = "default",
    ) -> FileWritten:
        return await services.workspace.write_file(caller(ctx), session_id, path, _bytes(content, binary_base64))

    @server.tool(
        title="Delete a file",
        description="Delete a file, or a folder with all in it, from a session's workspace. Download links that were "
        "given out for it go on working until they expire.",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def delete_file(ctx: Context[Any, Any], path: FilePath, session_id: SessionId = "default") -> Deleted:
        return await services.workspace.delete_file(caller(ctx), session_id, path)


def _bytes(content: str | None, binary_base64: str | None) -> bytes:
    """What to write; exactly one of the two arguments says it."""
    if (content is None) == (binary_base64 is None):
        raise InvalidArgumentError("write_file needs exactly one of content and binary_base64.")
    if binary_base64 is not None:
        try:
            return base64.b64decode(binary_base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidArgumentError(f"binary_base64 is not base64: {error}.") from None
    assert content is not None
    try:
        return content.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"content has half of a surrogate pair at character {error.start}, which UTF-8 cannot hold."
        ) from None


def _file_result(file: FileContent) -> CallToolResult:
    """The content for the model in its natural form, and all of it as structure."""
    block: TextContent | ImageContent
    if file.content is not None:
        more = f"\n[cut; the file has {file.size} bytes]" if file.truncated else ""
        block = TextContent(text=file.content + more)
    elif (
        file.mime_type in INLINE_IMAGE_TYPES
        and file.content_base64 is not None
        and len(file.content_base64) <= MAX_IMAGE_BASE64
        and not file.truncated
    ):
        block = ImageContent(data=file.content_base64, mime_type=file.mime_type)
    else:
        block = TextContent(text=f"{file.path}: {file.mime_type}, {file.size} bytes, not text. Open it with code.")
    return CallToolResult(content=[block], structured_content=file.model_dump(mode="json"))
