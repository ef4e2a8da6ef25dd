"""All services of one server, put together; and the housekeeping that runs while the server does."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg

from interpreter_api.data.executions import ExecutionRepository
from interpreter_api.data.files import FileRepository
from interpreter_api.data.servers import ServerPresence, shared_secret
from interpreter_api.data.sessions import SessionRepository
from interpreter_api.services.artifacts import ArtifactStore
from interpreter_api.services.executions import ExecutionService
from interpreter_api.services.files import StoredFileService
from interpreter_api.services.history import HistoryWriter
from interpreter_api.services.introspection import IntrospectionService
from interpreter_api.services.links import LinkSigner
from interpreter_api.services.sandboxes import Sandboxes
from interpreter_api.services.scripts import ScriptService
from interpreter_api.services.sessions import SessionService
from interpreter_api.services.workspace import WorkspaceService

if TYPE_CHECKING:
    from typing import Self

    from interpreter_api.backends.base import SandboxBackend
    from interpreter_api.data.postgres import Database
    from interpreter_api.metrics import Metrics
    from interpreter_api.settings import Settings

HOUSEKEEPING_SECONDS = 60.0
SESSION_DAYS = 7
"""A session that nobody used for this long after its idle time is forgotten, with its history."""
EXECUTION_DAYS = 7
"""So long an execution id is remembered, and its answer replayed."""
PURGE_GRACE_SECONDS = 60.0
"""A download that began just before the expiry may still end."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What routes and tools call. Made by :meth:`build`, alive between :meth:`start` and :meth:`close`."""

    executions: ExecutionService
    sessions: SessionService
    workspace: WorkspaceService
    scripts: ScriptService
    files: StoredFileService
    introspection: IntrospectionService
    _files: FileRepository
    _sessions: SessionRepository
    _executions: ExecutionRepository
    _presence: ServerPresence
    _sandboxes: Sandboxes
    _history: HistoryWriter
    _idle_seconds: float
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def build(cls, *, database: Database, backend: SandboxBackend, settings: Settings, metrics: Metrics) -> Self:
        """Over a migrated database and a started backend."""
        pool = database.pool
        presence = ServerPresence(pool)
        await presence.start()
        signer = LinkSigner(await shared_secret(pool, "download links"), settings.base_url)
        sessions, files = SessionRepository(pool), FileRepository(pool)
        executions = ExecutionRepository(pool, presence.number)
        history = HistoryWriter(executions)
        sandboxes = Sandboxes(backend, sessions)
        session_service = SessionService(
            sessions, sandboxes, backend, maximum=settings.max_sessions, settled=history.settled
        )
        artifacts = ArtifactStore(
            files,
            signer,
            max_bytes=settings.sandbox_file_max_mb << 20,
            max_total_bytes=settings.workspace_mb << 20,
            lifetime=timedelta(hours=settings.sandbox_file_ttl_hours),
        )
        file_service = StoredFileService(files, session_service, signer)
        execution_service = ExecutionService(
            executions,
            presence,
            session_service,
            sandboxes,
            artifacts,
            file_service,
            history,
            metrics.execution,
        )
        workspace = WorkspaceService(session_service, sandboxes, max_upload_bytes=settings.max_file_size_mb << 20)
        return cls(
            executions=execution_service,
            sessions=session_service,
            workspace=workspace,
            scripts=ScriptService(session_service, workspace, execution_service),
            files=file_service,
            introspection=IntrospectionService(session_service, sandboxes),
            _files=files,
            _sessions=sessions,
            _executions=executions,
            _presence=presence,
            _sandboxes=sandboxes,
            _history=history,
            _idle_seconds=min(15.0, settings.idle_timeout / 4),
        )

    async def start(self) -> None:
        """Begin the work behind the replies."""
        self._history.start()
        self._sandboxes.start()
        self._tasks.append(asyncio.create_task(self._release_idle(), name="release-idle"))
        self._tasks.append(asyncio.create_task(self._keep_house(), name="housekeeping"))

    async def close(self) -> None:
        """Interrupt what runs, write what is not written yet, stop. The backend is closed after this."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.executions.close()
        await self._sandboxes.close()
        await self._history.close()
        try:
            await self._presence.close()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            _log.info("Postgres ended before this server did: %s", error)

    async def _release_idle(self) -> None:
        while True:
            await asyncio.sleep(self._idle_seconds)
            if released := await self._sandboxes.release_idle():
                _log.info("released %d idle sandboxes", released)

    async def _keep_house(self) -> None:
        while True:
            try:
                await self._presence.keep()
                purged = await self._files.purge_expired(PURGE_GRACE_SECONDS)
                await self._sessions.forget_unused(SESSION_DAYS)
                await self._executions.forget_old(EXECUTION_DAYS)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                _log.warning("housekeeping failed and will be tried again: %s", error)
            else:
                if purged:
                    _log.info("purged %d expired files", purged)
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
