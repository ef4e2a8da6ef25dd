"""The services by signature: what routes and tools may call, and all that they may call.

Routes and tools depend on these protocols; ``container.Services`` holds the real ones. Every method takes the
caller's :class:`Principal` first, and answers ``NotFoundError`` for another tenant's objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from interpreter_api.services.models import (
        CodeCompletions,
        Deleted,
        ExecutionResult,
        FileContent,
        FileLink,
        FileWritten,
        KernelHealth,
        ObjectInfo,
        Responsiveness,
        Restarted,
        Session,
        SessionList,
        VariableList,
        WorkspaceInfo,
        WorkspaceListing,
    )
    from interpreter_sandbox.protocol import Event


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. ``tenant_id`` is the isolation boundary: every row, file and session belongs to one."""

    id: str
    tenant_id: str
    name: str
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class ExecuteCommand:
    """One call of ``execute_code``, before any check.

    ``session_id``: an id, ``"default"`` for the caller's own, ``""`` or ``"0"`` for a new session.
    ``timeout_seconds``: None for the class's limit. ``execution_id``: the idempotency key, None for a new one.
    ``inline_images``: put the pictures into the answer (MCP); ``on_event`` sees each event as it comes.
    """

    code: str
    session_id: str = "default"
    timeout_seconds: float | None = None
    execution_id: str | None = None
    inline_images: bool = False
    on_event: Callable[[Event], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class RunScriptCommand:
    """One call of ``run_script``, before any check.

    ``path``: relative to the workspace. ``timeout_seconds``: None for 120, or the class's limit where that is lower.
    The last two as in :class:`ExecuteCommand`.
    """

    path: str
    args: Sequence[str] = ()
    session_id: str = "default"
    timeout_seconds: float | None = None
    inline_images: bool = False
    on_event: Callable[[Event], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A stored file ready to be streamed: ``chunks`` yields bytes from ``start`` to ``end`` (exclusive)."""

    file: FileLink
    start: int
    end: int
    chunks: AsyncIterator[bytes] = field(repr=False)


class ExecutionPort(Protocol):
    """Runs code; an execution id never runs twice."""

    async def execute(self, principal: Principal, command: ExecuteCommand) -> ExecutionResult:
        """Run one cell and wait for its end. A cancelled await interrupts the code."""
        ...

    async def get(self, principal: Principal, execution_id: str) -> ExecutionResult:
        """The stored answer of an execution that ended; ``OutcomeUnknownError`` where the server died under it."""
        ...


class ScriptPort(Protocol):
    """Python files of a workspace, run as ``python script.py`` runs them."""

    async def save(self, principal: Principal, session_id: str, name: str, content: str) -> FileWritten:
        """Write ``scripts/{name}.py``, replacing one of that name."""
        ...

    async def run(self, principal: Principal, command: RunScriptCommand) -> ExecutionResult:
        """Run a script and wait for its end. An exit code other than 0 is ``success: false``."""
        ...


class SessionPort(Protocol):
    """Sessions: created, listed, emptied, made the default, deleted."""

    async def create(
        self, principal: Principal, *, name: str = "", description: str = "", class_name: str = ""
    ) -> Session:
        """A new session. Its sandbox is claimed at the first execution."""
        ...

    async def list(self, principal: Principal, *, cursor: str | None = None, limit: int = 100) -> SessionList:
        """The caller's sessions, newest first."""
        ...

    async def get(self, principal: Principal, session_id: str) -> Session:
        """One session; accepts ``"default"``."""
        ...

    async def clear(self, principal: Principal, session_id: str) -> Restarted:
        """Drop the variables, by a fresh process; id and files stay. Code that runs there ends as ``interrupted``."""
        ...

    async def restart(self, principal: Principal, session_id: str, *, preserve_state: bool = False) -> Restarted:
        """A fresh process. ``preserve_state=True`` is refused with ``InvalidArgumentError``: not available yet."""
        ...

    async def switch(self, principal: Principal, session_id: str) -> Session:
        """The caller's ``"default"`` is that session from now on; it must be the caller's own."""
        ...

    async def delete(self, principal: Principal, session_id: str) -> Deleted:
        """End the session, its sandbox and its files; links to its files stop working."""
        ...


class WorkspacePort(Protocol):
    """Files inside a session's sandbox. Paths are relative to the workspace; one that leaves it is refused."""

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
        """One page of a folder."""
        ...

    async def read_file(
        self, principal: Principal, session_id: str, path: str, *, max_bytes: int = 1 << 20
    ) -> FileContent:
        """The first ``max_bytes`` of a file."""
        ...

    async def write_file(
        self, principal: Principal, session_id: str, path: str, data: bytes | AsyncIterator[bytes]
    ) -> FileWritten:
        """Write or replace a file; parents are made."""
        ...

    async def delete_file(self, principal: Principal, session_id: str, path: str) -> Deleted:
        """Remove a file or a folder with all in it."""
        ...


class IntrospectionPort(Protocol):
    """Looks into a session and changes nothing; ``SessionBusyError`` where code runs that the look would wait for."""

    async def list_variables(self, principal: Principal, session_id: str) -> VariableList:
        """The names that the session's code made."""
        ...

    async def complete(self, principal: Principal, session_id: str, code: str, cursor_pos: int) -> CodeCompletions:
        """What could stand at ``cursor_pos``, in characters."""
        ...

    async def inspect(
        self, principal: Principal, session_id: str, code: str, cursor_pos: int, *, detail_level: int = 0
    ) -> ObjectInfo:
        """What the name at ``cursor_pos`` is."""
        ...

    async def health(self, principal: Principal, session_id: str) -> KernelHealth:
        """The session's sandbox by numbers, also while it is busy."""
        ...

    async def responsiveness(self, principal: Principal, session_id: str) -> Responsiveness:
        """Whether the process that runs the code answers."""
        ...

    async def workspace(self, principal: Principal, session_id: str) -> WorkspaceInfo:
        """How full the workspace is."""
        ...


class StoredFilePort(Protocol):
    """Files that outlive their sandbox, behind signed links."""

    async def open(
        self, file_id: str, *, name: str | None, expires: str, signature: str, byte_range: str | None = None
    ) -> Download:
        """The bytes behind ``/dl/{id}/{name}``; no principal: the signature is the right to read.

        ``ForbiddenError`` for an altered or expired link, ``NotFoundError`` for a purged file.
        """
        ...

    async def open_chart(self, principal: Principal, session_id: str, filename: str) -> Download:
        """The newest chart of that name in the caller's session."""
        ...

    async def list(self, principal: Principal, session_id: str) -> list[FileLink]:
        """What a session's executions stored and has not expired."""
        ...
