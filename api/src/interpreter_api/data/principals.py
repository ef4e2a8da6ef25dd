"""Principals, their tenants and their API keys, as rows. A key's text is never stored, only its SHA-256."""

from __future__ import annotations

import re
import secrets
from base64 import b32encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interpreter_api.errors import InvalidArgumentError

if TYPE_CHECKING:
    from datetime import datetime

    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

    from interpreter_api.data.postgres import Database

FIRST_TENANT = "default"
FIRST_PRINCIPAL = "admin"

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class PrincipalRow:
    """Who calls, as stored."""

    id: str
    tenant_id: str
    name: str
    is_admin: bool


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One API key as `keys list` shows it; the key itself cannot be shown again."""

    id: str
    name: str
    tenant_id: str
    is_admin: bool
    created_at: datetime
    revoked_at: datetime | None


class Principals:
    """The rows behind authentication."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure_first(self, key_digest: bytes) -> PrincipalRow:
        """The administrator whose key the setting names; another key replaces the one of an earlier start."""
        async with self._database.transaction() as connection:
            principal = await _ensure(connection, FIRST_TENANT, FIRST_PRINCIPAL, is_admin=True)
            await connection.execute("DELETE FROM api_keys WHERE from_setting AND key_sha256 <> $1", key_digest)
            await connection.execute(
                "INSERT INTO api_keys (id, principal_id, key_sha256, from_setting) VALUES ($1, $2, $3, true) "
                "ON CONFLICT (key_sha256) DO UPDATE "
                "SET principal_id = excluded.principal_id, from_setting = true, revoked_at = NULL",
                _new_id("key"),
                principal.id,
                key_digest,
            )
            return principal

    async def create_key(self, name: str, tenant_id: str, key_digest: bytes) -> KeyInfo:
        """A new key for the principal ``name`` of a tenant; both are made where they do not exist."""
        if not _TENANT.fullmatch(tenant_id):
            raise InvalidArgumentError(
                f"tenant {tenant_id[:80]!r} is not allowed: lower-case letters, digits, - and _, at most 63 characters"
            )
        if not 1 <= len(name) <= 200 or not name.isprintable():
            raise InvalidArgumentError("a key's name has 1 to 200 printable characters")
        async with self._database.transaction() as connection:
            principal = await _ensure(connection, tenant_id, name, is_admin=False)
            row = await connection.fetchrow(
                "INSERT INTO api_keys (id, principal_id, key_sha256) VALUES ($1, $2, $3) RETURNING id, created_at",
                _new_id("key"),
                principal.id,
                key_digest,
            )
            assert row is not None
            return KeyInfo(row["id"], name, tenant_id, principal.is_admin, row["created_at"], None)

    async def list_keys(self) -> list[KeyInfo]:
        """Every key, oldest first."""
        rows = await self._database.pool.fetch(
            "SELECT k.id, p.name, p.tenant_id, p.is_admin, k.created_at, k.revoked_at "
            "FROM api_keys k JOIN principals p ON p.id = k.principal_id ORDER BY k.created_at, k.id"
        )
        return [KeyInfo(**dict(row)) for row in rows]

    async def revoke_key(self, key_id: str) -> bool:
        """End a key; False where there is none with this id. Revoking twice is harmless."""
        found = await self._database.pool.fetchval(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING true", key_id
        )
        return bool(found)

    async def by_key(self, key_digest: bytes) -> PrincipalRow | None:
        """Who holds the key with this SHA-256."""
        row = await self._database.pool.fetchrow(
            "SELECT p.id, p.tenant_id, p.name, p.is_admin FROM api_keys k JOIN principals p ON p.id = k.principal_id "
            "WHERE k.key_sha256 = $1 AND k.revoked_at IS NULL",
            key_digest,
        )
        return _principal(row) if row else None

    async def by_subject(self, issuer: str, subject: str, name: str) -> PrincipalRow:
        """The principal behind a token's subject; made at its first token, in a tenant of its own."""
        identity = f"{issuer} {subject}"
        async with self._database.transaction() as connection:
            query = "SELECT id, tenant_id, name, is_admin FROM principals WHERE subject = $1"
            if row := await connection.fetchrow(query, identity):
                return _principal(row)
            principal_id = _new_id("prn")
            tenant_id = principal_id.replace("prn_", "oauth-")
            await connection.execute("INSERT INTO tenants (id) VALUES ($1)", tenant_id)
            await connection.execute(
                "INSERT INTO principals (id, tenant_id, name, kind, subject) VALUES ($1, $2, $3, 'oauth', $4) "
                "ON CONFLICT (subject) DO NOTHING",
                principal_id,
                tenant_id,
                (name or subject)[:200],
                identity,
            )
            row = await connection.fetchrow(query, identity)
            assert row is not None
            return _principal(row)


async def _ensure(connection: PoolConnectionProxy, tenant_id: str, name: str, *, is_admin: bool) -> PrincipalRow:
    await connection.execute("INSERT INTO tenants (id) VALUES ($1) ON CONFLICT DO NOTHING", tenant_id)
    row = await connection.fetchrow(
        "INSERT INTO principals (id, tenant_id, name, is_admin, kind) VALUES ($1, $2, $3, $4, 'key') "
        "ON CONFLICT (tenant_id, name) DO UPDATE SET is_admin = principals.is_admin OR excluded.is_admin "
        "RETURNING id, tenant_id, name, is_admin",
        _new_id("prn"),
        tenant_id,
        name,
        is_admin,
    )
    assert row is not None
    return _principal(row)


def _principal(row: Record) -> PrincipalRow:
    return PrincipalRow(id=row["id"], tenant_id=row["tenant_id"], name=row["name"], is_admin=row["is_admin"])


def _new_id(prefix: str) -> str:
    return f"{prefix}_" + b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()
