"""What stands behind the app, started in order and ended in the opposite one: Postgres, sandboxes, services."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from interpreter_api import instance
from interpreter_api.auth.keys import ApiKeys, digest
from interpreter_api.backends.base import SandboxClass
from interpreter_api.backends.local.backend import LocalBackend
from interpreter_api.data.embedded import EmbeddedPostgres
from interpreter_api.data.postgres import Database, DatabaseError
from interpreter_api.data.principals import Principals
from interpreter_api.services.container import Services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from interpreter_api.backends.base import SandboxBackend
    from interpreter_api.metrics import Metrics
    from interpreter_api.settings import Settings

log = logging.getLogger(__name__)

_RESTART_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Platform:
    """The started parts."""

    database: Database
    database_kind: Literal["embedded", "external"]
    backend: SandboxBackend
    services: Services
    api_keys: ApiKeys
    principals: Principals


def default_class(settings: Settings) -> SandboxClass:
    """The limits that the settings describe."""
    return SandboxClass(
        memory_bytes=settings.max_memory_mb << 20,
        workspace_bytes=settings.workspace_mb << 20,
        max_file_bytes=min(settings.workspace_mb, settings.max_file_size_mb) << 20,
        execution_timeout_seconds=float(settings.max_execution_time),
        idle_timeout_seconds=float(settings.idle_timeout),
        warm_pool_min=min(settings.warm_pool, settings.max_sandboxes),
    )


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """The database of DATABASE_URL, or the embedded one of DATA_DIR (whose lock the caller holds); migrated.

    Raises ``DatabaseError``.
    """
    if settings.database_url is not None:
        database = await Database.connect(
            dsn=settings.database_url.get_secret_value(), max_size=settings.database_pool_size
        )
        try:
            await database.migrate()
            yield database
        finally:
            await database.close()
        return
    postgres = EmbeddedPostgres(settings.data_dir, settings.runtime_dir)
    where = await postgres.start()
    keeper = asyncio.create_task(_keep_running(postgres), name="postgres-keeper")
    try:
        database = await Database.connect(**where, max_size=settings.database_pool_size)
        try:
            await database.migrate()
            yield database
        finally:
            await database.close()
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await postgres.stop()


async def _keep_running(postgres: EmbeddedPostgres) -> None:
    """Start Postgres again when it ends under us (the kernel's out-of-memory killer, say)."""
    while True:
        status = await postgres.wait()
        log.error("the embedded Postgres ended with status %d; starting it again", status)
        while True:
            try:
                await postgres.start()
                break
            except (DatabaseError, OSError, TimeoutError):
                log.exception("the embedded Postgres cannot be started again; trying once more")
                await asyncio.sleep(_RESTART_SECONDS)


@asynccontextmanager
async def open_platform(settings: Settings, metrics: Metrics) -> AsyncIterator[Platform]:
    """Everything that requests need. The caller holds DATA_DIR (``instance.claim``)."""
    async with open_database(settings) as database:
        principals = Principals(database)
        await principals.ensure_first(digest(instance.api_key(settings)))
        backend = LocalBackend(
            {"default": default_class(settings)},
            environment=settings.sandbox_env,
            runtime_dir=settings.runtime_dir / "sandboxes",
            max_sandboxes=settings.max_sandboxes,
            bwrap=settings.bwrap,
        )
        try:
            await backend.start()
            services = await Services.build(database=database, backend=backend, settings=settings, metrics=metrics)
            try:
                await services.start()
                kind: Literal["embedded", "external"] = "external" if settings.database_url else "embedded"
                yield Platform(database, kind, backend, services, ApiKeys(principals), principals)
            finally:
                await services.close()
        finally:
            await backend.close()
