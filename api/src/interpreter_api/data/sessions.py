"""Rows of ``sessions``. Every statement names the tenant: another tenant's id finds nothing, like an unknown one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

_LOCK_CLASS = 7303  # of the advisory locks that make "count, then insert" one step for a principal

_COLUMNS = (
    "id, tenant_id, principal_id, name, description, class_name, is_default, idle_timeout_seconds, "
    "sandbox_uid, executions, created_at, last_used_at"
)
_GET = f"SELECT {_COLUMNS} FROM sessions WHERE id = $1 AND tenant_id = $2"  # noqa: S608 - no value is interpolated
_GET_DEFAULT = f"SELECT {_COLUMNS} FROM sessions WHERE tenant_id = $1 AND principal_id = $2 AND is_default"  # noqa: S608
_INSERT_DEFAULT = f"""
INSERT INTO sessions (id, tenant_id, principal_id, class_name, is_default, idle_timeout_seconds)
VALUES ($1, $2, $3, $4, true, $5)
ON CONFLICT (tenant_id, principal_id) WHERE is_default DO NOTHING
RETURNING {_COLUMNS}"""  # noqa: S608
_COUNT = """
SELECT count(*) FROM sessions WHERE tenant_id = $1 AND principal_id = $2
AND last_used_at + make_interval(secs => idle_timeout_seconds) > now()"""
_INSERT = f"""
INSERT INTO sessions (id, tenant_id, principal_id, name, description, class_name, idle_timeout_seconds)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}"""  # noqa: S608
_LOCK_OWN = "SELECT true FROM sessions WHERE id = $1 AND tenant_id = $2 AND principal_id = $3 FOR UPDATE"
_UNSET_DEFAULT = """
UPDATE sessions SET is_default = false
WHERE tenant_id = $2 AND principal_id = $3 AND is_default AND id <> $1"""
_SET_DEFAULT = f"""
UPDATE sessions SET is_default = true WHERE id = $1 AND tenant_id = $2 AND principal_id = $3
RETURNING {_COLUMNS}"""  # noqa: S608
_LIST = f"""
SELECT {_COLUMNS} FROM sessions WHERE tenant_id = $1 AND principal_id = $2
AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
ORDER BY created_at DESC, id DESC LIMIT $5"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session. ``sandbox_uid``: the last sandbox that served it, None where there was none."""

    id: str
    tenant_id: str
    principal_id: str
    name: str
    description: str
    class_name: str
    is_default: bool
    idle_timeout_seconds: float
    sandbox_uid: str | None
    executions: int
    created_at: datetime
    last_used_at: datetime


def _row(record: asyncpg.Record | None) -> SessionRow | None:
    return None if record is None else SessionRow(*record)


class SessionRepository:
    """Plain SQL over the pool."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    async def get(self, tenant_id: str, session_id: str) -> SessionRow | None:
        """The tenant's session of that id."""
        return _row(await self._pool.fetchrow(_GET, session_id, tenant_id))

    async def get_default(self, tenant_id: str, principal_id: str) -> SessionRow | None:
        """The principal's own default session."""
        return _row(await self._pool.fetchrow(_GET_DEFAULT, tenant_id, principal_id))

    async def insert_default(
        self, tenant_id: str, principal_id: str, session_id: str, class_name: str, idle_timeout_seconds: float
    ) -> SessionRow | None:
        """The new default session, or None where another call made it first."""
        return _row(
            await self._pool.fetchrow(
                _INSERT_DEFAULT, session_id, tenant_id, principal_id, class_name, idle_timeout_seconds
            )
        )

    async def set_default(self, tenant_id: str, principal_id: str, session_id: str) -> SessionRow | None:
        """Make that session the principal's default, and the one before not; None where it is not the principal's.

        ``UniqueViolationError`` where a default is made at the same time, ``DeadlockDetectedError`` in a rare meeting
        with the history's writer: nothing is changed then, and the call can be repeated.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            # one change at a time for a principal, and never both rows in one statement: the unique index is
            # checked row by row
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK_CLASS, principal_id)
            found = await connection.fetchval(_LOCK_OWN, session_id, tenant_id, principal_id)
            if not found:
                return None
            await connection.execute(_UNSET_DEFAULT, session_id, tenant_id, principal_id)
            return _row(await connection.fetchrow(_SET_DEFAULT, session_id, tenant_id, principal_id))

    async def insert(
        self,
        tenant_id: str,
        principal_id: str,
        session_id: str,
        *,
        name: str,
        description: str,
        class_name: str,
        idle_timeout_seconds: float,
        maximum: int,
    ) -> SessionRow | None:
        """The new session, or None where the principal already has ``maximum`` live ones."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCK_CLASS, principal_id)
            if await connection.fetchval(_COUNT, tenant_id, principal_id) >= maximum:
                return None
            return _row(
                await connection.fetchrow(
                    _INSERT, session_id, tenant_id, principal_id, name, description, class_name, idle_timeout_seconds
                )
            )

    async def list(
        self, tenant_id: str, principal_id: str, *, before: tuple[datetime, str] | None, limit: int
    ) -> list[SessionRow]:
        """The principal's sessions, newest first, from ``before`` (created_at, id) on."""
        created_at, session_id = before or (None, None)
        rows = await self._pool.fetch(_LIST, tenant_id, principal_id, created_at, session_id, limit)
        return [SessionRow(*row) for row in rows]

    async def bind(self, tenant_id: str, session_id: str, sandbox_uid: str) -> bool:
        """Note which sandbox serves the session; False where the session was deleted meanwhile."""
        done = await self._pool.fetchval(
            "UPDATE sessions SET sandbox_uid = $3, last_used_at = clock_timestamp() "
            "WHERE id = $1 AND tenant_id = $2 RETURNING true",
            session_id,
            tenant_id,
            sandbox_uid,
        )
        return bool(done)

    async def delete(self, tenant_id: str, session_id: str) -> bool:
        """The session and its stored files; its executions' ids stay taken, their answers go."""
        async with self._pool.acquire() as connection, connection.transaction():
            deleted = await connection.fetchval(
                "DELETE FROM sessions WHERE id = $1 AND tenant_id = $2 RETURNING true", session_id, tenant_id
            )
            if deleted:
                await connection.execute(
                    "UPDATE executions SET state = 'deleted', answer = NULL "
                    "WHERE tenant_id = $2 AND session_id = $1 AND state <> 'running'",
                    session_id,
                    tenant_id,
                )
            return bool(deleted)

    async def forget_unused(self, days: int) -> int:
        """Delete sessions whose idle time ended ``days`` ago; housekeeping over all tenants."""
        status = await self._pool.execute(
            "DELETE FROM sessions WHERE last_used_at + make_interval(secs => idle_timeout_seconds, days => $1) < now()",
            days,
        )
        return int(status.rpartition(" ")[2])
