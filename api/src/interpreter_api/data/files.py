"""Rows of ``files`` and their chunks: bytes go in and out one chunk at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    import asyncpg

CHUNK_BYTES = 1 << 20

_COLUMNS = (
    "id, tenant_id, session_id, execution_id, is_chart, name, path, mime_type, size, sha256, created_at, expires_at"
)
_INSERT = f"""
INSERT INTO files ({_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp(), $11)"""  # noqa: S608 - no value is interpolated
# Without a tenant: the signature of a link is the right to read, and it names the id.
_BY_LINK = f"SELECT {_COLUMNS} FROM files WHERE id = $1 AND expires_at > now()"  # noqa: S608
_CHART = f"""
SELECT {_COLUMNS} FROM files
WHERE tenant_id = $1 AND session_id = $2 AND name = $3 AND is_chart AND expires_at > now()
ORDER BY created_at DESC, id LIMIT 1"""  # noqa: S608
_LIST = f"""
SELECT {_COLUMNS} FROM files WHERE tenant_id = $1 AND session_id = $2 AND expires_at > now()
ORDER BY created_at DESC, id LIMIT $3"""  # noqa: S608


class FileTooLarge(Exception):  # noqa: N818 - a signal between two layers, never shown
    """The source gave more bytes than the limit."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One stored file; ``sha256`` in hex, ``path`` relative to the session's workspace."""

    id: str
    tenant_id: str
    session_id: str
    execution_id: str
    is_chart: bool
    name: str
    path: str
    mime_type: str
    size: int
    sha256: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is known of a file before its bytes were read."""

    id: str
    tenant_id: str
    session_id: str
    execution_id: str
    is_chart: bool
    name: str
    path: str
    mime_type: str
    expires_at: datetime


class FileWriter:
    """Stores files inside one transaction: they appear together, complete, or not at all."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> None:
        self._connection = connection

    async def store(self, new: NewFile, source: AsyncIterator[bytes], max_bytes: int) -> tuple[int, str]:
        """Write the bytes of ``source``; answers (size, sha256). A failure takes back this file only.

        ``FileTooLarge`` as soon as the source gives more than ``max_bytes``.
        """
        digest, size, position, buffer = hashlib.sha256(), 0, 0, bytearray()
        async with self._connection.transaction():  # a savepoint
            async for piece in source:
                size += len(piece)
                if size > max_bytes:
                    raise FileTooLarge
                digest.update(piece)
                buffer += piece
                while len(buffer) >= CHUNK_BYTES:
                    await self._chunk(new.id, position, bytes(buffer[:CHUNK_BYTES]))
                    del buffer[:CHUNK_BYTES]
                    position += 1
            if buffer:
                await self._chunk(new.id, position, bytes(buffer))
            await self._connection.execute(
                _INSERT,
                new.id,
                new.tenant_id,
                new.session_id,
                new.execution_id,
                new.is_chart,
                new.name,
                new.path,
                new.mime_type,
                size,
                digest.hexdigest(),
                new.expires_at,
            )
        return size, digest.hexdigest()

    async def _chunk(self, file_id: str, position: int, data: bytes) -> None:
        await self._connection.execute(
            "INSERT INTO file_chunks (file_id, position, data) VALUES ($1, $2, $3)", file_id, position, data
        )


class FileRepository:
    """Plain SQL over the pool."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self.pool = pool

    async def by_link(self, file_id: str) -> FileRow | None:
        """The file of a link whose signature was checked; None where it expired or was deleted."""
        record = await self.pool.fetchrow(_BY_LINK, file_id)
        return None if record is None else FileRow(*record)

    async def newest_chart(self, tenant_id: str, session_id: str, name: str) -> FileRow | None:
        """The session's last chart of that name."""
        record = await self.pool.fetchrow(_CHART, tenant_id, session_id, name)
        return None if record is None else FileRow(*record)

    async def list(self, tenant_id: str, session_id: str, limit: int) -> list[FileRow]:
        """The session's stored files, newest first."""
        return [FileRow(*record) for record in await self.pool.fetch(_LIST, tenant_id, session_id, limit)]

    async def read(self, row: FileRow, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` to ``end`` (exclusive).

        A statement a chunk: a slow reader holds neither a connection nor a transaction. Ends early where the file
        is deleted meanwhile; the reader sees fewer bytes than Content-Length promised.
        """
        for position in range(start // CHUNK_BYTES, (end + CHUNK_BYTES - 1) // CHUNK_BYTES):
            first = position * CHUNK_BYTES
            offset, length = max(start - first, 0), min(end - first, CHUNK_BYTES) - max(start - first, 0)
            data = await self.pool.fetchval(
                "SELECT substr(c.data, $3, $4) FROM file_chunks c JOIN files f ON f.id = c.file_id "
                "WHERE c.file_id = $1 AND c.position = $2 AND f.tenant_id = $5",
                row.id,
                position,
                offset + 1,
                length,
                row.tenant_id,
            )
            if data is None:
                return
            yield data

    async def purge_expired(self, grace_seconds: float) -> int:
        """Delete what expired ``grace_seconds`` ago; housekeeping over all tenants."""
        status = await self.pool.execute(
            "DELETE FROM files WHERE expires_at < now() - make_interval(secs => $1)", grace_seconds
        )
        return int(status.rpartition(" ")[2])
