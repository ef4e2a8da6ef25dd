"""``/api/sessions``: sessions, and the files in their workspaces."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from interpreter_api.routes.dependencies import Caller, TheServices, problems
from interpreter_api.routes.headers import download_headers
from interpreter_api.services.links import mime_type_of, safe_name
from interpreter_api.services.models import (  # noqa: TC001 - FastAPI reads the annotations
    Deleted,
    FileWritten,
    Restarted,
    Session,
    SessionList,
    WorkspaceListing,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

router = APIRouter(prefix="/api/sessions", tags=["sessions"])

Cursor = Annotated[str | None, Query(description="next_cursor of the page before.", max_length=4096)]
FilePath = Annotated[str, Query(description="Relative to the session's workspace.")]


class CreateSessionBody(BaseModel):
    """A session to make."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(default="", description="For people: up to 200 characters, no path.")
    description: str = Field(default="", description="Up to 2000 characters.")
    class_name: str = Field(default="", description="The kind of sandbox; the default one where empty.")


class RestartSessionBody(BaseModel):
    """How to restart."""

    model_config = ConfigDict(extra="forbid")

    preserve_state: bool = Field(
        default=False, description="Must be false: a restart that keeps the variables is not available yet."
    )


@router.post("", status_code=201, responses=problems(400, 409), summary="Make a session")
async def create_session(
    caller: Caller, services: TheServices, body: Annotated[CreateSessionBody | None, Body()] = None
) -> Session:
    """A new, empty session. Its sandbox is claimed when code first runs in it."""
    body = body or CreateSessionBody()
    return await services.sessions.create(
        caller, name=body.name, description=body.description, class_name=body.class_name
    )


@router.get("", responses=problems(400), summary="List the caller's sessions")
async def list_sessions(caller: Caller, services: TheServices, cursor: Cursor = None, limit: int = 100) -> SessionList:
    """Newest first, in pages."""
    return await services.sessions.list(caller, cursor=cursor, limit=limit)


@router.get("/{session_id}", responses=problems(404), summary="One session")
async def get_session(session_id: str, caller: Caller, services: TheServices) -> Session:
    """The id `default` is the caller's own session."""
    return await services.sessions.get(caller, session_id)


@router.delete("/{session_id}", responses=problems(404), summary="Delete a session")
async def delete_session(session_id: str, caller: Caller, services: TheServices) -> Deleted:
    """Ends what runs in it, its sandbox and its files; links to its files stop working."""
    return await services.sessions.delete(caller, session_id)


@router.post("/{session_id}/clear", responses=problems(404, 502), summary="Drop a session's variables")
async def clear_session(session_id: str, caller: Caller, services: TheServices) -> Restarted:
    """Id and files stay. Code that runs in the session ends as `interrupted`, and its caller is told so."""
    return await services.sessions.clear(caller, session_id)


@router.post("/{session_id}/restart", responses=problems(400, 404, 502), summary="A fresh process for a session")
async def restart_session(
    session_id: str,
    caller: Caller,
    services: TheServices,
    body: Annotated[RestartSessionBody | None, Body()] = None,
) -> Restarted:
    """Variables go, id and files stay. Code that runs in the session ends as `interrupted`."""
    body = body or RestartSessionBody()
    return await services.sessions.restart(caller, session_id, preserve_state=body.preserve_state)


@router.post("/{session_id}/switch", responses=problems(404, 409), summary="Make a session the caller's default")
async def switch_session(session_id: str, caller: Caller, services: TheServices) -> Session:
    """The id `default` means this session from now on, for this caller; it must be one of the caller's own."""
    return await services.sessions.switch(caller, session_id)


@router.get("/{session_id}/files", responses=problems(400, 404, 502), summary="List a workspace folder")
async def list_workspace(
    session_id: str,
    caller: Caller,
    services: TheServices,
    path: FilePath = "",
    *,
    recursive: bool = False,
    cursor: Cursor = None,
    limit: int = 200,
) -> WorkspaceListing:
    """Ordered by path, in pages. A session whose sandbox is not running has no files."""
    return await services.workspace.list_files(
        caller, session_id, path, recursive=recursive, cursor=cursor, limit=limit
    )


@router.get(
    "/{session_id}/files/content",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}, **problems(400, 404, 502)},
    summary="Read a workspace file",
)
async def read_workspace_file(
    session_id: str, path: FilePath, caller: Caller, services: TheServices
) -> StreamingResponse:
    """The whole file, streamed."""
    stack = AsyncExitStack()
    _, size, chunks = await stack.enter_async_context(services.workspace.stream_file(caller, session_id, path))

    async def body() -> AsyncIterator[bytes]:
        async with stack:
            async for chunk in chunks:
                yield chunk

    headers = download_headers(safe_name(path), mime_type_of(path)) | {"Content-Length": str(size)}
    return _ClosingResponse(body(), stack, headers=headers)


@router.put(
    "/{session_id}/files/content",
    status_code=201,
    responses=problems(400, 404, 413, 502, 503),
    summary="Write a workspace file",
    openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}, "required": True}},
)
async def write_workspace_file(
    session_id: str, path: FilePath, request: Request, caller: Caller, services: TheServices
) -> FileWritten:
    """The body is the file, streamed; folders above it are made. The file is absent or complete."""
    return await services.workspace.write_file(caller, session_id, path, request.stream())


@router.delete("/{session_id}/files", responses=problems(400, 404, 502), summary="Delete a workspace file or folder")
async def delete_workspace_file(session_id: str, path: FilePath, caller: Caller, services: TheServices) -> Deleted:
    """A folder goes with all that is in it."""
    return await services.workspace.delete_file(caller, session_id, path)


class _ClosingResponse(StreamingResponse):
    """Closes what the body reads from, also where the client is gone before the first byte."""

    def __init__(self, body: AsyncIterator[bytes], stack: AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(body, headers=headers)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)
