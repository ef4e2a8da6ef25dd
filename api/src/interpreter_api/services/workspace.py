"""Files inside a session's sandbox: always through its agent, never by a path of this machine.

Looking into a session that has no sandbox finds nothing and claims none; writing claims one.
"""

from __future__ import annotations

import base64
import binascii
import codecs
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from interpreter_api.errors import (
    InternalError,
    InterpreterError,
    InvalidArgumentError,
    NotFoundError,
    SandboxLostError,
    SessionBusyError,
    TooLargeError,
)
from interpreter_api.services.links import mime_type_of
from interpreter_api.services.models import Deleted, FileContent, FileWritten, WorkspaceFile, WorkspaceListing
from interpreter_api.services.validate import check_limit, workspace_path
from interpreter_sandbox.client import AgentError, AgentUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from interpreter_api.data.sessions import SessionRow
    from interpreter_api.services.ports import Principal
    from interpreter_api.services.sandboxes import Binding, Sandboxes
    from interpreter_api.services.sessions import SessionService
    from interpreter_sandbox.client import AgentClient

MAX_READ_BYTES = 10 << 20


class WorkspaceService:
    """``max_upload_bytes`` bounds one written file."""

    def __init__(self, sessions: SessionService, sandboxes: Sandboxes, *, max_upload_bytes: int) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._max_upload_bytes = max_upload_bytes

    async def list_files(
        self,
        principal: Principal,
        session_id: str,
        path: str = "",
        *,
        recursive: bool = False,
        cursor: str | None = None,
        limit: int = 200,
    ) -> WorkspaceListing:
        """One page of a folder, ordered by path. ``cursor`` is the last page's ``next_cursor``."""
        folder = workspace_path(path, allow_root=True)
        check_limit(limit)
        after = _decode_cursor(cursor) if cursor else None
        session = await self._sessions.row(principal, session_id)
        async with self._existing(session, folder) as client:
            entries, truncated = ([], False) if client is None else await client.list_files(folder, recursive)
        entries = sorted((e for e in entries if after is None or e.path > after), key=lambda e: e.path)
        page = entries[:limit]
        return WorkspaceListing(
            session_id=session.id,
            path=folder,
            files=[
                WorkspaceFile(path=e.path, size=e.size, modified_at=_moment(e.modified), is_dir=e.is_dir) for e in page
            ],
            next_cursor=_encode_cursor(page[-1].path) if len(entries) > limit else None,
            truncated=truncated,
        )

    async def read_file(
        self, principal: Principal, session_id: str, path: str, *, max_bytes: int = 1 << 20
    ) -> FileContent:
        """The first ``max_bytes`` of a file: as text where they are UTF-8, else as base64."""
        if not 1 <= max_bytes <= MAX_READ_BYTES:
            raise InvalidArgumentError(
                f"max_bytes is {max_bytes}; it must be 1 to {MAX_READ_BYTES}.",
                remedy="Larger files: GET /api/sessions/{session_id}/files/content streams them whole.",
                argument="max_bytes",
            )
        file = workspace_path(path)
        head = bytearray()
        async with self.stream_file(principal, session_id, file) as (session, size, chunks):
            async for chunk in chunks:
                head += chunk[: max_bytes - len(head)]
                if len(head) >= max_bytes:
                    break
        text = _as_text(bytes(head), cut=len(head) < size)
        return FileContent(
            session_id=session,
            path=file,
            size=size,
            mime_type=mime_type_of(file),
            content=text,
            content_base64=None if text is not None else base64.b64encode(head).decode(),
            truncated=len(head) < size,
        )

    @asynccontextmanager
    async def stream_file(
        self, principal: Principal, session_id: str, path: str
    ) -> AsyncIterator[tuple[str, int, AsyncIterator[bytes]]]:
        """``(session id, size, chunks)`` of a file of any size."""
        file = workspace_path(path)
        session = await self._sessions.row(principal, session_id)
        async with self._existing(session, file) as client:
            if client is None:
                raise _no_file(file)
            async with client.read_file(file) as (size, chunks):
                yield session.id, size, chunks

    async def write_file(
        self, principal: Principal, session_id: str, path: str, data: bytes | AsyncIterator[bytes]
    ) -> FileWritten:
        """Write or replace a file; parents are made. The file is absent or complete, whatever happens meanwhile."""
        file = workspace_path(path)
        if isinstance(data, bytes):
            if len(data) > self._max_upload_bytes:
                raise self._too_large()
            body: bytes | AsyncIterator[bytes] = data
        else:
            body = self._bounded(data)
        session = await self._sessions.row(principal, session_id)
        async with self._sandboxes.use(session) as binding:
            sandbox = await self._sandboxes.sandbox(binding, session)
            async with self._typed(binding, file):
                entry = await sandbox.client.write_file(file, body)
        return FileWritten(session_id=session.id, path=entry.path, size=entry.size)

    async def delete_file(self, principal: Principal, session_id: str, path: str) -> Deleted:
        """Remove a file or a folder with all in it."""
        file = workspace_path(path)
        session = await self._sessions.row(principal, session_id)
        async with self._existing(session, file) as client:
            if client is None:
                raise _no_file(file)
            await client.delete_file(file)
        return Deleted(deleted=file)

    @asynccontextmanager
    async def _existing(self, session: SessionRow, path: str) -> AsyncIterator[AgentClient | None]:
        """The agent of the session's sandbox, or None where it has none; the agent's refusals as our errors."""
        async with self._sandboxes.use(session) as binding:
            if binding.sandbox is None:
                yield None
                return
            async with self._typed(binding, path):
                yield binding.sandbox.client

    @asynccontextmanager
    async def _typed(self, binding: Binding, path: str) -> AsyncIterator[None]:
        try:
            yield
        except AgentUnavailable:
            reason = await self._sandboxes.died(binding)
            raise SandboxLostError(f"The session's sandbox was lost: {reason}.") from None
        except AgentError as error:
            raise _public(error, path) from None

    async def _bounded(self, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in data:
            size += len(chunk)
            if size > self._max_upload_bytes:
                raise self._too_large()
            yield chunk

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"The file is larger than {self._max_upload_bytes >> 20} MiB.",
            remedy="Send a smaller file, or split it.",
            limit_bytes=self._max_upload_bytes,
        )


def _public(error: AgentError, path: str) -> InterpreterError:
    match error.code:
        case "not_found":
            return _no_file(path)
        case "path_refused":
            return InvalidArgumentError("path leaves the session's workspace.", argument="path")
        case "not_a_file":
            return InvalidArgumentError(f"{path!r} is not a regular file.", argument="path")
        case "invalid_argument":
            return InvalidArgumentError(error.message, argument="path")
        case "too_large":
            return TooLargeError(f"{path!r} would be larger than one file in the sandbox may be.")
        case "no_space":
            return TooLargeError("The workspace is full.", remedy="Delete files of the session that are not needed.")
        case "busy":
            return SessionBusyError("The sandbox is busy.")
        case "worker_unavailable":
            return SandboxLostError("The sandbox cannot do that now.")
        case _:
            return InternalError("The sandbox refused the request.")


def _no_file(path: str) -> NotFoundError:
    return NotFoundError(f"There is no {path!r} in the session's workspace.", remedy="list_files shows what is there.")


def _as_text(data: bytes, *, cut: bool) -> str | None:
    """The bytes as text, None where they are not UTF-8; a character that the cut went through is left out."""
    if b"\0" in data:
        return None
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=not cut)
    except UnicodeDecodeError:
        return None


def _moment(seconds: float) -> datetime:
    """The agent's time stamp; code may set any, so one that no calendar has becomes the epoch."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _encode_cursor(path: str) -> str:
    return base64.urlsafe_b64encode(path.encode("utf-8", "surrogateescape")).decode()


def _decode_cursor(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode(
            "utf-8", "surrogateescape"
        )
    except (ValueError, binascii.Error):
        raise InvalidArgumentError("cursor is not one that a list answered.", argument="cursor") from None
