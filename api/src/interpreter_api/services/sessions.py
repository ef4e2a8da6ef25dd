"""Sessions: made, found, listed, emptied, deleted. One is reached by id inside its tenant, and listed by its owner."""

from __future__ import annotations

import base64
import binascii
import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg

from interpreter_api.errors import ConflictError, InternalError, InvalidArgumentError, SessionLimitError
from interpreter_api.services.ids import new_id
from interpreter_api.services.models import Deleted, Restarted, Session, SessionList
from interpreter_api.services.sandboxes import session_not_found
from interpreter_api.services.validate import check_description, check_limit, check_session_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from interpreter_api.backends.base import SandboxBackend, SandboxClass
    from interpreter_api.data.sessions import SessionRepository, SessionRow
    from interpreter_api.services.ports import Principal
    from interpreter_api.services.sandboxes import Sandboxes

DEFAULT = "default"
NEW = frozenset({"", "0"})
_ID_CHARS = 64  # longer than any id: refused before the database sees it


class SessionService:
    """``settled`` waits until the history that is written behind the replies is in the database."""

    def __init__(
        self,
        sessions: SessionRepository,
        sandboxes: Sandboxes,
        backend: SandboxBackend,
        *,
        maximum: int,
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._backend = backend
        self._maximum = maximum
        self._settled = settled

    async def create(
        self, principal: Principal, *, name: str = "", description: str = "", class_name: str = ""
    ) -> Session:
        """A new session. Its sandbox is claimed at the first execution."""
        return self._public(await self.create_row(principal, name, description, class_name))

    async def create_row(
        self, principal: Principal, name: str = "", description: str = "", class_name: str = ""
    ) -> SessionRow:
        """The same, as a row. ``SessionLimitError`` where the principal has as many as one may have."""
        check_session_name(name)
        check_description(description)
        kind = self.sandbox_class(class_name)
        row = await self._sessions.insert(
            principal.tenant_id,
            principal.id,
            new_id("ses_"),
            name=name,
            description=description,
            class_name=kind.name,
            idle_timeout_seconds=kind.idle_timeout_seconds,
            maximum=self._maximum,
        )
        if row is None:
            raise SessionLimitError(f"You have {self._maximum} sessions, as many as one may have.", limit=self._maximum)
        return row

    def sandbox_class(self, class_name: str) -> SandboxClass:
        """The class of that name; the default one for ``""``."""
        classes = self._backend.classes()
        if (kind := classes.get(class_name or DEFAULT)) is None:
            raise InvalidArgumentError(
                f"There is no class {class_name[:100]!r}.",
                remedy=f"Use one of: {', '.join(sorted(classes))}.",
                argument="class_name",
                allowed=sorted(classes),
            )
        return kind

    def longest_timeout(self) -> float:
        """The highest time limit of any class, seconds."""
        return max(kind.execution_timeout_seconds for kind in self._backend.classes().values())

    async def row(self, principal: Principal, session_id: str) -> SessionRow:
        """The session that an id names for this caller; ``"default"`` is made where it is not there yet.

        ``NotFoundError`` for an unknown one, which is also the answer for another tenant's.
        """
        if session_id == DEFAULT:
            return await self._default(principal)
        row = None
        if 0 < len(session_id) <= _ID_CHARS and session_id.isascii() and session_id.isprintable():
            row = await self._sessions.get(principal.tenant_id, session_id)
        if row is None:
            raise session_not_found()
        return row

    async def _default(self, principal: Principal) -> SessionRow:
        kind = self.sandbox_class("")
        # Of two first calls one inserts and the other finds; a second round is for a default deleted in between.
        for _ in range(3):
            if row := await self._sessions.get_default(principal.tenant_id, principal.id):
                return row
            if row := await self._sessions.insert_default(
                principal.tenant_id, principal.id, new_id("ses_"), kind.name, kind.idle_timeout_seconds
            ):
                return row
        raise InternalError("The default session could not be made.")

    async def list(self, principal: Principal, *, cursor: str | None = None, limit: int = 100) -> SessionList:
        """The caller's own sessions, newest first."""
        check_limit(limit)
        before = _decode_cursor(cursor) if cursor else None
        await self._settled()
        rows = await self._sessions.list(principal.tenant_id, principal.id, before=before, limit=limit + 1)
        more = len(rows) > limit
        rows = rows[:limit]
        return SessionList(
            sessions=[self._public(row) for row in rows],
            next_cursor=_encode_cursor(rows[-1]) if more else None,
        )

    async def get(self, principal: Principal, session_id: str) -> Session:
        """One session."""
        await self._settled()
        return self._public(await self.row(principal, session_id))

    async def clear(self, principal: Principal, session_id: str) -> Restarted:
        """Drop the session's variables, by a fresh process: id and files stay.

        Code that runs in it is ended first, and its caller told that it was interrupted.
        """
        return await self.restart(principal, session_id)

    async def restart(self, principal: Principal, session_id: str, *, preserve_state: bool = False) -> Restarted:
        """A fresh process for the session's code. Keeping its variables is not available yet, and refused."""
        if preserve_state:
            raise InvalidArgumentError(
                "preserve_state=true is not available yet: a restart drops the session's variables.",
                remedy="Pass preserve_state=false; save what must stay to files first.",
                argument="preserve_state",
            )
        row = await self.row(principal, session_id)
        async with self._sandboxes.use(row) as binding:
            running = binding.running
            restarted = await self._sandboxes.restart(binding)
        return Restarted(
            session_id=row.id,
            restarted=restarted,
            interrupted_execution_id=running if restarted else None,
            message="The session's variables are gone, its files are kept."
            if restarted
            else "Nothing to do: the session has no running sandbox, so it holds no variables.",
        )

    async def switch(self, principal: Principal, session_id: str) -> Session:
        """``"default"`` means that session from now on, for this caller only. The one before becomes an ordinary one.

        ``NotFoundError`` also for a session of the same tenant that is not the caller's own.
        """
        row = await self.row(principal, session_id)
        for _ in range(3):  # a first call may make a default at the same time: the second round replaces that one
            with contextlib.suppress(asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
                chosen = await self._sessions.set_default(principal.tenant_id, principal.id, row.id)
                if chosen is None:
                    raise session_not_found()
                return self._public(chosen)
        raise ConflictError("The default session is being changed by other calls. Try again.")

    async def delete(self, principal: Principal, session_id: str) -> Deleted:
        """End the session, its sandbox and its files. Code that runs in it is ended too.

        ``"default"`` can be deleted as well: the next call that uses it makes an empty one.
        """
        row = await self.row(principal, session_id)
        await self._settled()
        if not await self._sessions.delete(principal.tenant_id, row.id):
            raise session_not_found()
        await self._sandboxes.delete(row.id)
        return Deleted(deleted=row.id)

    def expires_at(self, row: SessionRow) -> datetime:
        """When the session's sandbox is released if nobody uses it: last use (now, while in use) + idle time."""
        binding = self._sandboxes.find(row.id)
        last_used = datetime.now(UTC) if binding is not None and binding.users else row.last_used_at
        return last_used + timedelta(seconds=row.idle_timeout_seconds)

    def _public(self, row: SessionRow) -> Session:
        binding = self._sandboxes.find(row.id)
        running = binding is not None and binding.running is not None
        return Session(
            session_id=row.id,
            name=row.name,
            description=row.description,
            class_name=row.class_name,
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            expires_at=self.expires_at(row),
            is_default=row.is_default,
            sandbox="busy" if running else "running" if binding is not None and binding.sandbox else "none",
            executions=row.executions,
        )


def _encode_cursor(row: SessionRow) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at.isoformat()} {row.id}".encode()).decode()


def _decode_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        moment, session_id = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode().split(" ")
        created_at = datetime.fromisoformat(moment)
        if created_at.tzinfo is None or "\0" in session_id:
            raise ValueError("not one of ours")  # noqa: TRY301
        created_at = created_at.astimezone(UTC)  # the edges of the calendar have no such moment
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidArgumentError("cursor is not one that a list answered.", argument="cursor") from None
    return created_at, session_id
