"""Looking into a session without running code: names, completions, descriptions, and how its sandbox is.

A look at a session that has no sandbox finds nothing and claims none; completing and inspecting claim one, because
libraries can be completed before anything ran. What comes from the sandbox is user code's own word: its shape and size
are checked here, nothing else can be.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from interpreter_api.errors import (
    InterpreterError,
    InvalidArgumentError,
    SandboxLostError,
    SessionBusyError,
    TooLargeError,
)
from interpreter_api.services.models import (
    CodeCompletions,
    KernelHealth,
    ObjectInfo,
    Responsiveness,
    VariableList,
    WorkspaceInfo,
)
from interpreter_api.services.validate import encodable
from interpreter_sandbox.client import AgentError, AgentUnavailable
from interpreter_sandbox.protocol import IntrospectRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Literal

    from interpreter_api.data.sessions import SessionRow
    from interpreter_api.services.ports import Principal
    from interpreter_api.services.sandboxes import Binding, Sandboxes
    from interpreter_api.services.sessions import SessionService
    from interpreter_sandbox.client import AgentClient
    from interpreter_sandbox.protocol import Introspected

MAX_CODE_BYTES = 1 << 20
LOOK_SECONDS = 2.0

_Answer = TypeVar("_Answer", bound=BaseModel)


class IntrospectionService:
    """One for the server."""

    def __init__(self, sessions: SessionService, sandboxes: Sandboxes) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes

    async def list_variables(self, principal: Principal, session_id: str) -> VariableList:
        """The names that the session's code made, by name. ``SessionBusyError`` while code runs."""
        session = await self._sessions.row(principal, session_id)
        async with self._sandboxes.use(session) as binding:
            if binding.sandbox is None:
                return VariableList(session_id=session.id, variables=[], total=0)
            looked = await self._look(session, binding, IntrospectRequest("variables", timeout_seconds=LOOK_SECONDS))
        return _answer(VariableList, session, looked, {"variables": [], "total": 0})

    async def complete(self, principal: Principal, session_id: str, code: str, cursor_pos: int) -> CodeCompletions:
        """What could stand at ``cursor_pos`` (characters) of ``code``. ``SessionBusyError`` while code runs."""
        _check(code, cursor_pos)
        session = await self._sessions.row(principal, session_id)
        asked = IntrospectRequest("complete", code, cursor_pos, timeout_seconds=LOOK_SECONDS)
        async with self._sandboxes.use(session) as binding:
            looked = await self._look(session, binding, asked)
        nothing = {"matches": [], "total": 0, "cursor_start": cursor_pos, "cursor_end": cursor_pos}
        return _answer(CodeCompletions, session, looked, nothing)

    async def inspect(
        self, principal: Principal, session_id: str, code: str, cursor_pos: int, *, detail_level: int = 0
    ) -> ObjectInfo:
        """What the name at ``cursor_pos`` is; with its source at ``detail_level`` 1."""
        _check(code, cursor_pos)
        if detail_level not in {0, 1}:
            raise InvalidArgumentError(f"detail_level is {detail_level}; it must be 0 or 1.", argument="detail_level")
        session = await self._sessions.row(principal, session_id)
        asked = IntrospectRequest("inspect", code, cursor_pos, detail_level, LOOK_SECONDS)
        async with self._sandboxes.use(session) as binding:
            looked = await self._look(session, binding, asked)
        return _answer(ObjectInfo, session, looked, {"found": False, "name": "", "text": ""})

    async def health(self, principal: Principal, session_id: str) -> KernelHealth:
        """The sandbox by numbers; it answers while code runs, too."""
        session = await self._sessions.row(principal, session_id)
        async with self._sandboxes.use(session) as binding:
            if binding.sandbox is None:
                return KernelHealth(session_id=session.id, sandbox="none", busy=False)
            async with self._typed(binding):
                stats = await binding.sandbox.client.stats()
            return KernelHealth(
                session_id=session.id,
                sandbox=_state(binding),
                busy=stats.busy,
                pid=stats.worker_pid,
                memory_bytes=stats.memory_bytes,
                cpu_seconds=stats.cpu_seconds,
                threads=stats.threads,
                processes=stats.processes,
                uptime_seconds=stats.uptime_seconds,
                restarts=stats.restarts,
                workspace_used_bytes=stats.workspace_used_bytes,
                workspace_size_bytes=stats.workspace_size_bytes,
            )

    async def responsiveness(self, principal: Principal, session_id: str) -> Responsiveness:
        """A round trip through the process that runs the code, which is asked for nothing."""
        session = await self._sessions.row(principal, session_id)
        async with self._sandboxes.use(session) as binding:
            if binding.sandbox is None:
                detail = "The session has no sandbox now; its next execution starts one."
                return Responsiveness(
                    session_id=session.id, sandbox="none", responsive=False, busy=False, detail=detail
                )
            if binding.running is not None:
                return _busy(session)
            began = time.perf_counter()
            try:
                asked = IntrospectRequest("nothing", timeout_seconds=LOOK_SECONDS)
                looked = await self._look(session, binding, asked)
            except SessionBusyError:
                return _busy(session)
            latency_ms = round((time.perf_counter() - began) * 1000, 3)
        answered = looked.status == "ok"
        return Responsiveness(
            session_id=session.id,
            sandbox="running",
            responsive=answered,
            busy=False,
            latency_ms=latency_ms if answered else None,
            detail="" if answered else _note(looked),
        )

    async def workspace(self, principal: Principal, session_id: str) -> WorkspaceInfo:
        """How full the workspace is."""
        session = await self._sessions.row(principal, session_id)
        async with self._sandboxes.use(session) as binding:
            if binding.sandbox is None:
                return WorkspaceInfo(session_id=session.id, sandbox="none", files=0, folders=0, used_bytes=0)
            async with self._typed(binding):
                client = binding.sandbox.client
                entries, truncated = await client.list_files("", recursive=True)
                stats = await client.stats()
            folders = sum(entry.is_dir for entry in entries)
            return WorkspaceInfo(
                session_id=session.id,
                sandbox=_state(binding),
                files=len(entries) - folders,
                folders=folders,
                truncated=truncated,
                used_bytes=stats.workspace_used_bytes,
                size_bytes=stats.workspace_size_bytes,
            )

    async def _look(self, session: SessionRow, binding: Binding, asked: IntrospectRequest) -> Introspected:
        async with self._sandboxes.turn(binding, None):
            sandbox = await self._sandboxes.sandbox(binding, session)
            client: AgentClient = sandbox.client
            async with self._typed(binding):
                return await client.introspect(asked)

    @asynccontextmanager
    async def _typed(self, binding: Binding) -> AsyncIterator[None]:
        try:
            yield
        except AgentUnavailable:
            reason = await self._sandboxes.died(binding)
            raise SandboxLostError(f"The session's sandbox was lost: {reason}.") from None
        except AgentError as error:
            raise _public(error) from None


def _check(code: str, cursor_pos: int) -> None:
    if len(encodable("code", code)) > MAX_CODE_BYTES:
        raise TooLargeError(f"code is larger than {MAX_CODE_BYTES} bytes.", remedy="Send the lines around the cursor.")
    if not 0 <= cursor_pos <= len(code):
        raise InvalidArgumentError(
            f"cursor_pos is {cursor_pos}; it must be 0 to {len(code)}, the length of code in characters.",
            argument="cursor_pos",
        )


def _answer(kind: type[_Answer], session: SessionRow, looked: Introspected, nothing: dict[str, Any]) -> _Answer:
    """The found data as a public shape; ``nothing`` where there is none."""
    try:
        return kind.model_validate(
            {**(looked.data or nothing), "session_id": session.id, "note": _note(looked)},
        )
    except ValidationError:
        raise SandboxLostError("The session's sandbox answered something that is none of the protocol's.") from None


def _note(looked: Introspected) -> str:
    text = looked.message[:500]
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _state(binding: Binding) -> Literal["running", "busy"]:
    return "busy" if binding.running is not None else "running"


def _busy(session: SessionRow) -> Responsiveness:
    detail = "Code runs in the session, and its process answers when that ends."
    return Responsiveness(session_id=session.id, sandbox="busy", responsive=False, busy=True, detail=detail)


def _public(error: AgentError) -> InterpreterError:
    if error.code == "busy":
        return SessionBusyError("Another execution is running in this session.")
    return SandboxLostError("The sandbox cannot do that now.")
