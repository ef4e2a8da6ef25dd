"""What the replicas of the server share: who is alive, and the keys that are made once."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

_LOCK_CLASS = 7302  # of the advisory locks on server numbers
_log = logging.getLogger(__name__)


class ServerPresence:
    """This server's number, and an advisory lock on it for as long as this server lives.

    Postgres drops the lock with the connection, however the server ends, so no clock and no heartbeat is needed. A
    lock lost by a broken connection makes others answer "outcome unknown", never run anything twice.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | None = None
        self.number = 0

    async def start(self) -> None:
        """Take a number and its lock."""
        self._connection = await self._pool.acquire()
        self.number = await self._connection.fetchval("SELECT nextval('server_numbers')::integer")
        await self._connection.execute("SELECT pg_advisory_lock($1, $2)", _LOCK_CLASS, self.number)

    async def keep(self) -> None:
        """Take the lock again where its connection broke; call now and then."""
        if self._connection is None or not self._connection.is_closed():
            return
        _log.warning("the connection that shows this server alive broke; taking another")
        await self._pool.release(self._connection)
        self._connection = await self._pool.acquire()
        await self._connection.execute("SELECT pg_advisory_lock($1, $2)", _LOCK_CLASS, self.number)

    async def is_alive(self, number: int) -> bool:
        """Whether the server of that number still runs."""
        if number == self.number:
            return True
        async with self._pool.acquire() as connection, connection.transaction():
            free = await connection.fetchval("SELECT pg_try_advisory_xact_lock($1, $2)", _LOCK_CLASS, number)
            return not free

    async def close(self) -> None:
        """Give the number back: this server is gone."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            if not connection.is_closed():
                await connection.execute("SELECT pg_advisory_unlock($1, $2)", _LOCK_CLASS, self.number)
            await self._pool.release(connection)


async def shared_secret(pool: asyncpg.Pool[asyncpg.Record], name: str) -> bytes:
    """32 random bytes under that name, made by whoever asks first and the same for everyone after."""
    await pool.execute(
        "INSERT INTO server_secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        name,
        secrets.token_bytes(32),
    )
    return bytes(await pool.fetchval("SELECT value FROM server_secrets WHERE name = $1", name))
