"""Stored files: ``/api/files``, signed links at ``/dl``, pictures at ``/charts``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from interpreter_api.errors import RangeNotSatisfiableError
from interpreter_api.problems import problem
from interpreter_api.routes.dependencies import Caller, TheServices, problems
from interpreter_api.routes.headers import download_headers
from interpreter_api.services.models import FileLink, Model
from interpreter_api.services.ranges import etag_matches

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from interpreter_api.services.container import Services
    from interpreter_api.services.ports import Download

router = APIRouter(tags=["files"])

_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The file."},
    206: {"content": {"application/octet-stream": {}}, "description": "The range that was asked for."},
    304: {"description": "The file is the one whose ETag was sent."},
}
Expires = Annotated[str, Query(description="Unix time, seconds.")]
Signature = Annotated[str, Query(description="HMAC-SHA256 in hex.")]


class FileLinks(Model):
    """Stored files with their links."""

    files: list[FileLink]


@router.get("/api/files", responses=problems(404), summary="What a session's executions stored")
async def list_files(caller: Caller, services: TheServices, session_id: str = "default") -> FileLinks:
    """Newest first, at most 1000; what has expired is not there."""
    return FileLinks(files=await services.files.list(caller, session_id))


@router.head("/dl/{file_id}/{name}", include_in_schema=False)
@router.get(
    "/dl/{file_id}/{name}",
    responses=_BYTES | problems(403, 404, 416),
    response_class=Response,
    summary="Download by a signed link",
    operation_id="download_named",
)
async def download_named(
    file_id: str, name: str, request: Request, services: TheServices, expires: Expires = "", signature: Signature = ""
) -> Response:
    """No key is needed: the signature is the right to read. One byte range is honoured."""
    return await _signed(request, services, file_id, name, expires, signature)


@router.head("/dl/{file_id}", include_in_schema=False)
@router.get(
    "/dl/{file_id}",
    responses=_BYTES | problems(403, 416),
    response_class=Response,
    summary="The same link without the name",
    operation_id="download",
)
async def download(
    file_id: str, request: Request, services: TheServices, expires: Expires = "", signature: Signature = ""
) -> Response:
    """A link whose file is gone answers 403 here: without the name its signature cannot be checked."""
    return await _signed(request, services, file_id, None, expires, signature)


async def _signed(
    request: Request, services: Services, file_id: str, name: str | None, expires: str, signature: str
) -> Response:
    opening = services.files.open(
        file_id,
        name=name,
        expires=expires,
        signature=signature,
        byte_range=request.headers.get("range"),
        if_range=request.headers.get("if-range"),
    )
    return await _answer(request, opening)


@router.head("/charts/{session_id}/{filename}", include_in_schema=False)
@router.get(
    "/charts/{session_id}/{filename}",
    responses=_BYTES | problems(404, 416),
    response_class=Response,
    summary="The newest chart of that name in a session",
)
async def chart(session_id: str, filename: str, request: Request, caller: Caller, services: TheServices) -> Response:
    """The picture, by the caller's key."""
    headers = request.headers
    return await _answer(
        request,
        services.files.open_chart(caller, session_id, filename, headers.get("range"), headers.get("if-range")),
    )


async def _answer(request: Request, opening: Awaitable[Download]) -> Response:
    """Conditions, range and headers of RFC 9110 over a file that is read only if its bytes are sent."""
    try:
        found = await opening
    except RangeNotSatisfiableError as error:
        answer = problem(error)
        answer.headers["Content-Range"] = f"bytes */{error.details['size']}"
        return answer
    etag = f'"{found.file.sha256}"'
    headers = download_headers(found.file.name, found.file.mime_type) | {"ETag": etag, "Accept-Ranges": "bytes"}
    if etag_matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    headers["Content-Length"] = str(found.end - found.start)
    status = 200
    if (found.start, found.end) != (0, found.file.size):
        status = 206
        headers["Content-Range"] = f"bytes {found.start}-{found.end - 1}/{found.file.size}"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(found.chunks, status_code=status, headers=headers)
