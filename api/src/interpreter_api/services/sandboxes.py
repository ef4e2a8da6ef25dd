"""Which sandbox serves which session: claimed at first use, let go when idle, noticed when it dies.

The bindings live in this server's memory; the session's row remembers that there was one. A session whose sandbox
is gone gets a new one at its next call, and that call's answer says that the variables are lost, and why.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from interpreter_api.errors import NotFoundError, SandboxLostError, SessionBusyError
from interpreter_sandbox.client import AgentError, AgentUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from interpreter_api.backends.base import Sandbox, SandboxBackend
    from interpreter_api.data.sessions import SessionRepository, SessionRow

BUSY_WAIT_SECONDS = 5.0
"""How long a second execution waits for the first one of its session before it is told ``session_busy``."""

REASON_SECONDS = 0.5

ENDED_SINCE = "its sandbox was ended since the last call (idle, or a restart of the server)"

_log = logging.getLogger(__name__)


def session_not_found() -> NotFoundError:
    """The one answer for a session that is unknown, deleted or another tenant's."""
    return NotFoundError("There is no session with that id.")


def _lost(reason: str) -> SandboxLostError:
    return SandboxLostError(f"The session's sandbox was lost: {reason}.")


@dataclass(slots=True)
class Binding:
    """One session's place in this server.

    ``lost`` is told to the next execution; None where nothing is lost. ``bound``: this server claimed a sandbox for
    it before; ``ran``: code ran in it since the last of its ``restarts``. ``users``: calls under way, executions and
    file operations alike.
    """

    tenant_id: str
    session_id: str
    idle_timeout_seconds: float
    sandbox: Sandbox | None = None
    lost: str | None = None
    bound: bool = False
    ran: bool = False
    restarts: int = 0
    deleted: bool = False
    running: str | None = None
    users: int = 0
    last_used: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Sandboxes:
    """The bindings of all sessions that this server serves."""

    def __init__(self, backend: SandboxBackend, sessions: SessionRepository) -> None:
        self._backend = backend
        self._sessions = sessions
        self._bindings: dict[str, Binding] = {}
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch for sandboxes that die on their own."""
        self._watcher = asyncio.create_task(self._watch(), name="watch-sandboxes")

    async def close(self) -> None:
        """Stop watching; the sandboxes end with the backend."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    def find(self, session_id: str) -> Binding | None:
        """The binding, where this server has one."""
        return self._bindings.get(session_id)

    @asynccontextmanager
    async def use(self, session: SessionRow) -> AsyncIterator[Binding]:
        """The session's binding, kept from idling out while it is in use. No sandbox is claimed yet."""
        binding = self._bindings.get(session.id)
        if binding is None:
            binding = Binding(session.tenant_id, session.id, session.idle_timeout_seconds)
            self._bindings[session.id] = binding
        binding.users += 1
        try:
            yield binding
        finally:
            binding.users -= 1
            binding.last_used = time.monotonic()

    @asynccontextmanager
    async def turn(self, binding: Binding, execution_id: str | None) -> AsyncIterator[None]:
        """The right to run code in the session: one execution at a time, the next waits a little.

        ``execution_id`` is None for a look into the namespace, which needs the same process and is no execution.
        """
        try:
            async with asyncio.timeout(BUSY_WAIT_SECONDS):
                await binding.turn.acquire()
        except TimeoutError:
            raise SessionBusyError(
                "Another execution is running in this session.",
                session_id=binding.session_id,
                running_execution_id=binding.running,
            ) from None
        binding.running = execution_id
        try:
            yield
        finally:
            binding.running = None
            binding.turn.release()

    async def sandbox(self, binding: Binding, session: SessionRow) -> Sandbox:
        """The session's sandbox; claims one where it has none.

        ``CapacityError`` and ``SandboxUnavailableError`` come from the backend; ``NotFoundError`` where the session
        is deleted at the same time.
        """
        async with binding.claiming:
            if binding.deleted:
                raise session_not_found()
            if binding.sandbox is not None:
                return binding.sandbox
            sandbox = await self._backend.claim(session.class_name, session.id, session.principal_id)
            kept = False
            try:
                kept = await self._sessions.bind(session.tenant_id, session.id, sandbox.uid) and not binding.deleted
            finally:
                if not kept:
                    await self._backend.release(sandbox.uid)
            if not kept:
                raise session_not_found()
            if not binding.bound and session.sandbox_uid is not None:
                binding.lost = ENDED_SINCE
            binding.sandbox, binding.bound = sandbox, True
            binding.ended.clear()
            return sandbox

    async def drop(self, binding: Binding, reason: str) -> None:
        """The sandbox is of no more use: end it; the next call gets a new one and is told ``reason``."""
        sandbox, binding.sandbox = binding.sandbox, None
        if sandbox is not None:
            binding.lost = binding.lost or reason
            await self._backend.release(sandbox.uid)

    async def died(self, binding: Binding) -> str:
        """The agent does not answer any more: end what is left of the sandbox, and say why as far as is known."""
        if binding.sandbox is not None:
            try:
                async with asyncio.timeout(REASON_SECONDS):
                    await binding.ended.wait()  # the backend knows the cause a moment later than the connection
            except TimeoutError:
                pass
            await self.drop(binding, "its sandbox stopped answering")
        return binding.lost or "its sandbox stopped answering"

    async def restart(self, binding: Binding) -> bool:
        """A fresh worker in the session's sandbox, files stay; False where it has no sandbox.

        ``SandboxLostError`` where the sandbox cannot: it is given up, and the next call gets a new one.
        """
        sandbox = binding.sandbox
        if sandbox is None:
            return False
        try:
            await sandbox.client.restart()
        except AgentUnavailable:
            raise _lost(await self.died(binding)) from None
        except AgentError as error:
            reason = f"its sandbox could not be restarted ({error.code})"
            await self.drop(binding, reason)
            raise _lost(reason) from None
        binding.ran = False
        binding.restarts += 1
        return True

    async def delete(self, session_id: str) -> None:
        """The session was deleted: no call gets a sandbox any more, and its own one ends."""
        binding = self._bindings.pop(session_id, None)
        if binding is not None:
            binding.deleted = True
            await self.drop(binding, "the session was deleted")

    async def release_idle(self) -> int:
        """End the sandboxes that nobody used for their class's idle time; forget bindings that hold nothing."""
        now, released = time.monotonic(), 0
        for binding in list(self._bindings.values()):
            if binding.users or now - binding.last_used < binding.idle_timeout_seconds:
                continue
            if binding.sandbox is not None:
                released += 1
                await self.drop(binding, f"the session was idle for {binding.idle_timeout_seconds:g} seconds")
            elif now - binding.last_used > 2 * binding.idle_timeout_seconds:
                # the row still says that there was a sandbox: a later call is told "lost" without the exact reason
                self._bindings.pop(binding.session_id, None)
        return released

    async def _watch(self) -> None:
        async for lost in self._backend.watch():
            binding = self._bindings.get(lost.session_id)
            if binding is not None and binding.sandbox is not None and binding.sandbox.uid == lost.uid:
                _log.warning("sandbox %s of a session was lost: %s", lost.uid, lost.reason)
                binding.lost = lost.reason.rstrip(".")  # it becomes part of a sentence
                binding.ended.set()
                if binding.running is None:
                    await self.drop(binding, binding.lost)
