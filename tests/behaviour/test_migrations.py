"""Migrations on a real Postgres: once, in order, by one of many, and never backwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from interpreter_api.data.embedded import EmbeddedPostgres
from interpreter_api.data.postgres import Database, DatabaseError, load_migrations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
async def where(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    """An empty database, and what to connect with."""
    postgres = EmbeddedPostgres(tmp_path, tmp_path_factory.mktemp("run"))
    yield await postgres.start()
    await postgres.stop()


async def test_each_runs_once_however_many_servers_start_together(where: dict[str, Any]) -> None:
    servers = await asyncio.gather(*(Database.connect(**where, max_size=2) for _ in range(4)))
    ran = await asyncio.gather(*(server.migrate() for server in servers))
    names = [migration.name for migration in load_migrations()]
    assert sorted(name for names_of_one in ran for name in names_of_one) == names
    assert await servers[0].migrate() == []
    for server in servers:
        await server.close()


async def test_a_database_of_a_newer_version_is_refused(where: dict[str, Any]) -> None:
    database = await Database.connect(**where, max_size=2)
    await database.migrate()
    await database.pool.execute("INSERT INTO schema_migrations (number, name, digest) VALUES (9999, 'later', 'x')")
    with pytest.raises(DatabaseError, match="newer version"):
        await database.migrate()
    await database.close()


async def test_a_migration_that_changed_after_it_ran_is_refused(where: dict[str, Any]) -> None:
    database = await Database.connect(**where, max_size=2)
    await database.migrate()
    await database.pool.execute("UPDATE schema_migrations SET digest = 'other' WHERE number = 1")
    with pytest.raises(DatabaseError, match=r"0001_principals\.sql is not the one"):
        await database.migrate()
    await database.close()


async def test_a_wrong_password_is_said_without_showing_it(where: dict[str, Any]) -> None:
    with pytest.raises(DatabaseError, match="refused the connection") as caught:
        await Database.connect(**{**where, "password": "canary"})
    assert "canary" not in str(caught.value)
