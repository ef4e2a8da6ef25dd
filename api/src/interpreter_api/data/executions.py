"""Rows of ``executions``: the idempotency keys, and the answers they replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

State = Literal["running", "done", "lost", "deleted"]

_RESERVE = """
INSERT INTO executions (tenant_id, id, principal_id, request_hash, server_number, state)
VALUES ($1, $2, $3, $4, $5, 'running') ON CONFLICT DO NOTHING RETURNING true"""
_GET = """
SELECT id, session_id, request_hash, server_number, state, reason, answer
FROM executions WHERE tenant_id = $1 AND id = $2"""
_FINISH = """
UPDATE executions
SET state = $3, session_id = $4, status = $5, reason = $6, answer = $7, finished_at = clock_timestamp()
WHERE tenant_id = $1 AND id = $2 AND state = 'running'"""
# One statement and one round trip for a whole batch, which does not wait for the disk: the setting holds until the end
# of the statement's own transaction.
_RECORD = """
WITH lazily AS (SELECT set_config('synchronous_commit', 'off', true)),
written AS (
    INSERT INTO executions
        (tenant_id, id, principal_id, session_id, request_hash,
         server_number, state, status, reason, answer, finished_at)
    SELECT o.*, clock_timestamp() FROM lazily, unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[],
        $6::integer[], $7::text[], $8::text[], $9::text[], $10::bytea[]) o
    ON CONFLICT DO NOTHING)
UPDATE sessions s SET executions = s.executions + used.count, last_used_at = clock_timestamp()
FROM lazily, unnest($11::text[], $12::text[], $13::integer[]) AS used (id, tenant_id, count)
WHERE s.id = used.id AND s.tenant_id = used.tenant_id"""


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """One execution as the database knows it. ``answer`` is an ``ExecutionResult`` in JSON, set when done."""

    id: str
    session_id: str | None
    request_hash: bytes
    server_number: int
    state: State
    reason: str
    answer: bytes | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended: what the history keeps of it."""

    tenant_id: str
    principal_id: str
    execution_id: str
    session_id: str
    request_hash: bytes
    state: Literal["done", "lost"]
    status: str
    reason: str = ""
    answer: bytes | None = None


class ExecutionRepository:
    """Plain SQL over the pool; ``server_number`` is this server's own (see ``data.servers``)."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], server_number: int) -> None:
        self._pool = pool
        self._server_number = server_number

    async def reserve(self, tenant_id: str, principal_id: str, execution_id: str, request_hash: bytes) -> bool:
        """Take the id before the code starts, durably; False where it is taken already."""
        return bool(
            await self._pool.fetchval(
                _RESERVE, tenant_id, execution_id, principal_id, request_hash, self._server_number
            )
        )

    async def unreserve(self, tenant_id: str, execution_id: str) -> None:
        """Give an id back whose code never started."""
        await self._pool.execute(
            "DELETE FROM executions WHERE tenant_id = $1 AND id = $2 AND state = 'running' AND server_number = $3",
            tenant_id,
            execution_id,
            self._server_number,
        )

    async def get(self, tenant_id: str, execution_id: str) -> ExecutionRow | None:
        """The tenant's execution of that id."""
        record = await self._pool.fetchrow(_GET, tenant_id, execution_id)
        return None if record is None else ExecutionRow(*record)

    async def finish(self, outcome: Outcome) -> None:
        """Store the end of a reserved execution, durably."""
        await self._pool.execute(
            _FINISH,
            outcome.tenant_id,
            outcome.execution_id,
            outcome.state,
            outcome.session_id,
            outcome.status,
            outcome.reason,
            outcome.answer,
        )

    async def record(self, outcomes: Sequence[Outcome], used: Sequence[tuple[str, str, int]]) -> None:
        """Write history after the reply.

        ``outcomes`` were not reserved; ``used`` is (session id, tenant id, executions) to count.
        """
        await self._pool.execute(
            _RECORD,
            [o.tenant_id for o in outcomes],
            [o.execution_id for o in outcomes],
            [o.principal_id for o in outcomes],
            [o.session_id for o in outcomes],
            [o.request_hash for o in outcomes],
            [self._server_number] * len(outcomes),
            [o.state for o in outcomes],
            [o.status for o in outcomes],
            [o.reason for o in outcomes],
            [o.answer for o in outcomes],
            [session_id for session_id, _, _ in used],
            [tenant_id for _, tenant_id, _ in used],
            [count for _, _, count in used],
        )

    async def forget_old(self, days: int) -> int:
        """Delete what began more than ``days`` ago; housekeeping over all tenants."""
        status = await self._pool.execute(
            "DELETE FROM executions WHERE created_at < now() - make_interval(days => $1)", days
        )
        return int(status.rpartition(" ")[2])
