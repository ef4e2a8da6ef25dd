"""Postgres: one pool, and numbered SQL migrations that run once, in order, under a lock.

Migrations are ``data/migrations/NNNN_name.sql``. Several replicas may start together: an advisory lock lets one
migrate while the others wait. A database that a newer version migrated is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import asyncpg

from interpreter_api.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg.pool import PoolConnectionProxy

log = logging.getLogger(__name__)

#: Any number that nothing else in the database uses for ``pg_advisory_xact_lock``.
_MIGRATION_LOCK = 5_067_120_031

_NOT_YET = (
    ConnectionError,
    FileNotFoundError,
    TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)


#: What a statement raises where its connection has gone: killed, shut down, not yet up again.
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.TooManyConnectionsError,
)


class DatabaseError(Exception):
    """The database cannot be used; the message says why in words for whoever runs the server, without the url."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What the server's role may do beyond its own tables."""

    superuser: bool


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the text: a file that changed after it ran is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """Every migration in order. Raises ``DatabaseError`` for a number that is missing or there twice."""
    folder = resources.files("interpreter_api.data") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    found = [Migration(int(name[:4]), name, (folder / name).read_text("utf-8")) for name in names]
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise DatabaseError(f"migrations are not numbered 1, 2, 3...: {', '.join(names)}")
    return found


def as_unavailable(error: BaseException) -> DatabaseUnavailableError | None:
    """What a client is told where the error means that Postgres is away; None for any other error."""
    return DatabaseUnavailableError("The database does not answer.") if isinstance(error, _LOST) else None


async def _connect(*args: Any, **options: Any) -> asyncpg.Connection:
    """As asyncpg does; a server that is not there raises what the pool's users know, and no ``OSError``."""
    try:
        return await asyncpg.connect(*args, **options)
    except _NOT_YET as error:
        raise asyncpg.CannotConnectNowError(f"{type(error).__name__}: {error}") from error


async def _prepare(connection: asyncpg.Connection) -> None:
    """JSON columns hold Python values; text is what Postgres calls jsonb's wire form after its version byte."""
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


async def _leave_as_is(connection: asyncpg.Connection) -> None:
    """Nothing to put back: what we set on a connection, we set for a transaction.

    asyncpg would ask the server to reset everything at each release, a round trip for every statement.
    """


class Database:
    """A pool of connections to one database."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    @classmethod
    async def connect(cls, *, max_size: int = 10, wait_seconds: float = 30.0, **where: Any) -> Database:
        """Open the pool; ``where`` is what asyncpg takes: ``dsn``, or ``host``, ``user``, ``password``, ``database``.

        A Postgres that is still starting is waited for. Raises ``DatabaseError``.
        """
        deadline = time.monotonic() + wait_seconds
        delay = 0.02
        while True:
            try:
                pool = await asyncpg.create_pool(
                    **where,
                    min_size=min(2, max_size),
                    max_size=max_size,
                    connect=_connect,
                    init=_prepare,
                    reset=_leave_as_is,
                    timeout=10,
                    command_timeout=60,
                )
                return cls(pool)
            except _NOT_YET as error:
                if time.monotonic() + delay > deadline:
                    reason = f"Postgres did not answer within {wait_seconds:.0f} s ({type(error).__name__})"
                    raise DatabaseError(reason) from None
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
                raise DatabaseError(f"Postgres refused the connection: {error}") from None
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, 1.0)

    async def close(self) -> None:
        """Give every connection back; those still busy after 3 s are cut."""
        try:
            async with asyncio.timeout(3):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PoolConnectionProxy]:
        """One connection inside one transaction: committed at the end, rolled back on an exception."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    async def migrate(self) -> list[str]:
        """Run what has not run yet, each file in a transaction of its own; the names of those that ran."""
        migrations = load_migrations()
        ran = []
        for migration in migrations:
            async with self.transaction() as connection:
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
                done = await _done(connection)
                if unknown := sorted(set(done) - {known.number for known in migrations}):
                    raise DatabaseError(
                        f"the database was migrated by a newer version (migration {unknown[-1]:04d}; "
                        f"this version knows {len(migrations)}): run that version"
                    )
                if migration.number in done:
                    if done[migration.number] != migration.digest:
                        raise DatabaseError(f"migration {migration.name} is not the one that this database ran")
                    continue
                await connection.execute(migration.sql, timeout=600)
                await connection.execute(
                    "INSERT INTO schema_migrations (number, name, digest) VALUES ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.digest,
                )
                ran.append(migration.name)
        if ran:
            log.info("migrated the database: %s", ", ".join(ran))
        return ran

    async def health(self) -> bool:
        """True where a query is answered within 2 s."""
        return await self.rights() is not None

    async def rights(self) -> Rights | None:
        """What the server's role may do; None where the database does not answer within 2 s."""
        try:
            async with asyncio.timeout(2):
                superuser = await self.pool.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            return None
        return Rights(superuser=bool(superuser))


async def _done(connection: PoolConnectionProxy) -> dict[int, str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        "number integer PRIMARY KEY, name text NOT NULL, digest text NOT NULL, "
        "ran_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await connection.fetch("SELECT number, digest FROM schema_migrations")
    return {row["number"]: row["digest"] for row in rows}
