"""Writes history behind the replies: a call never waits for it, and it never grows without bound.

What a client was promised (idempotency keys, files) does not go this way: that is durable before the reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from interpreter_api.data.executions import ExecutionRepository, Outcome

BATCH = 100
PENDING_BYTES = 64 << 20
ATTEMPTS = 3
SETTLE_SECONDS = 2.0
GATHER_SECONDS = 0.05
"""So long entries gather before they are written, unless somebody waits for them: calls in a row share a write."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Used:
    """A session was used by one execution. ``outcome`` is None where the row was written with its key already."""

    tenant_id: str
    session_id: str
    outcome: Outcome | None


class HistoryWriter:
    """One background task that writes what was added, in batches, in order."""

    def __init__(self, executions: ExecutionRepository) -> None:
        self._executions = executions
        self._queue: deque[Used] = deque()
        self._pending: dict[tuple[str, str], Outcome] = {}
        self._bytes = 0
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._written = asyncio.Condition()
        self._added = self._done = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._work(), name="write-history")

    async def close(self) -> None:
        """Write what is left (a few seconds at most), then stop."""
        await self.settled()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def add(self, used: Used) -> None:
        """Take one entry; waits only while more than 64 MiB are not written yet."""
        if self._bytes > PENDING_BYTES:
            self._hurry.set()
            async with self._written:
                await self._written.wait_for(lambda: self._bytes <= PENDING_BYTES)
        if (outcome := used.outcome) is not None:
            self._pending[outcome.tenant_id, outcome.execution_id] = outcome
            self._bytes += len(outcome.answer or b"")
        self._queue.append(used)
        self._added += 1
        self._wake.set()

    def pending(self, tenant_id: str, execution_id: str) -> Outcome | None:
        """An outcome that was added and is not in the database yet."""
        return self._pending.get((tenant_id, execution_id))

    async def settled(self) -> None:
        """Wait until all that was added so far is in the database; gives up after 2 s (Postgres is down)."""
        goal = self._added
        if self._done >= goal:
            return
        self._hurry.set()
        try:
            async with asyncio.timeout(SETTLE_SECONDS), self._written:
                await self._written.wait_for(lambda: self._done >= goal)
        except TimeoutError:
            _log.warning("history is behind: %d entries are not written", self._added - self._done)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_SECONDS):
                    await self._hurry.wait()
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            if not self._queue:
                self._wake.clear()
                self._hurry.clear()
            if not batch:
                continue
            await self._write(batch)
            async with self._written:
                self._done += len(batch)
                for used in batch:
                    if (outcome := used.outcome) is not None:
                        self._pending.pop((outcome.tenant_id, outcome.execution_id), None)
                        self._bytes -= len(outcome.answer or b"")
                self._written.notify_all()

    async def _write(self, batch: list[Used]) -> None:
        counts: dict[tuple[str, str], int] = {}
        for used in batch:
            key = used.session_id, used.tenant_id
            counts[key] = counts.get(key, 0) + 1
        outcomes = [used.outcome for used in batch if used.outcome is not None]
        touched = [(session_id, tenant_id, count) for (session_id, tenant_id), count in counts.items()]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._executions.record(outcomes, touched)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                _log.warning("writing history failed (%s), attempt %d of %d", error, attempt, ATTEMPTS)
                await asyncio.sleep(0.2 * attempt)
            else:
                return
        _log.error("%d entries of history are lost", len(batch))
