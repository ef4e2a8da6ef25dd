"""What the agent does, apart from HTTP: run one cell at a time, keep its events, say how the sandbox is."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from interpreter_sandbox.protocol import ExecuteRequest, Health, Introspected, IntrospectRequest, Stats
from interpreter_sandbox.runtime.changes import ChangeTracker
from interpreter_sandbox.runtime.channel import AbandonedPipes
from interpreter_sandbox.runtime.execution import Execution, ExecutionStore
from interpreter_sandbox.runtime.files import Refusal, Workspace
from interpreter_sandbox.runtime.look import Look, check_look
from interpreter_sandbox.runtime.processes import memory_bytes
from interpreter_sandbox.runtime.run import Run
from interpreter_sandbox.runtime.supervisor import Supervisor, Worker

if TYPE_CHECKING:
    from pathlib import Path

    from interpreter_sandbox.runtime.limits import Limits

_WORKER_SECONDS: Final = 30.0
_MAX_ID_CHARS: Final = 128
_MAX_LIMIT: Final = 1 << 30


class Engine:
    """One session's sandbox."""

    def __init__(self, limits: Limits, workspace: Path) -> None:
        """Nothing runs before :meth:`start`."""
        self.files = Workspace(workspace, limits.max_file_bytes)
        self._supervisor = Supervisor(limits, workspace)
        self._store = ExecutionStore()
        self._abandoned = AbandonedPipes()
        self._changes = ChangeTracker(self.files.root)
        self._limits = limits
        self._began = time.monotonic()
        self._run: Run | None = None
        self._look: Look | None = None
        self._reserved = False

    def start(self) -> None:
        """Start the processes."""
        self._supervisor.start()

    def close(self) -> None:
        """End them."""
        self._supervisor.kill_everything()

    def health(self) -> Health:
        """Ready when code can run."""
        return Health(self._supervisor.status, detail=self._supervisor.detail)

    async def execute(self, request: ExecuteRequest) -> Execution:
        """Run a cell, or find the earlier run of that id. ``Refusal`` where neither can be."""
        check(request)
        if self._look is not None:
            await self._look.ended.wait()  # a look is short, and killed where it is not
        known = self._store.get(request.execution_id)
        if known is not None:
            return known
        if self._store.is_gone(request.execution_id):
            raise Refusal("not_found", "this execution ran and was acknowledged; it does not run again")
        worker = await self._idle_worker()
        execution = Execution(request.execution_id)
        self._store.add(execution)
        self._changes.begin()
        run = self._run = Run(
            request, execution, worker, self._supervisor, self._abandoned, self._changes.collect, self._finished
        )
        run.lost_before, self._supervisor.lost_reason = self._supervisor.lost_reason, ""
        run.start()
        return execution

    async def introspect(self, request: IntrospectRequest) -> Introspected:
        """Look into the namespace between two cells. ``Refusal`` where a cell or another look is under way."""
        check_look(request)
        look = self._look = Look(request, await self._idle_worker(), self._supervisor, self._looked)
        look.start()
        return await look.answer

    def execution(self, execution_id: str) -> Execution:
        """A kept execution."""
        execution = self._store.get(execution_id)
        if execution is None:
            raise Refusal("not_found", "no such execution")
        return execution

    def acknowledge(self, execution_id: str) -> None:
        """Forget a finished execution's events."""
        if not self._store.acknowledge(execution_id):
            raise Refusal("not_found", "no finished execution of that id")

    def interrupt(self, execution_id: str) -> None:
        """Stop the running execution."""
        if self._run is None or self._run.execution.execution_id != execution_id:
            raise Refusal("not_found", "nothing with that id runs")
        self._run.stop("interrupted")

    async def restart(self) -> None:
        """A fresh worker; what runs now ends as interrupted."""
        if self._run is not None:
            self._run.stop("interrupted")
        worker = self._supervisor.worker
        if worker is not None:
            self._supervisor.kill(worker, "the session was restarted")
        if await self._supervisor.wait_worker(_WORKER_SECONDS, other_than=worker) is None:
            raise Refusal("worker_unavailable", "no process to run code in")
        self._supervisor.lost_reason = ""  # it was asked for

    async def stats(self) -> Stats:
        """The sandbox by numbers."""
        infos = self._supervisor.process_infos()
        zygote = self._supervisor.zygote_pid
        memory = sum(memory_bytes(info.pid) for info in infos if info.pid != zygote)
        used, size = self.files.usage()
        worker = self._supervisor.worker
        return Stats(
            worker_pid=worker.pid if worker else None,
            busy=self._run is not None,
            memory_bytes=memory + await self._supervisor.zygote_memory_bytes(),
            cpu_seconds=round(sum(info.cpu_seconds for info in infos), 2),
            threads=sum(info.threads for info in infos),
            processes=len(infos),
            uptime_seconds=round(time.monotonic() - self._began, 3),
            workspace_used_bytes=used,
            workspace_size_bytes=min(size, self._limits.workspace_bytes),
            restarts=self._supervisor.restarts,
        )

    async def _idle_worker(self) -> Worker:
        if self._run is not None or self._look is not None or self._reserved:
            raise Refusal("busy", "another execution runs in this sandbox")
        worker = self._supervisor.worker
        if worker is None:
            self._reserved = True
            try:
                worker = await self._supervisor.wait_worker(_WORKER_SECONDS)
            finally:
                self._reserved = False
            if worker is None:
                detail = self._supervisor.detail or "it did not start in time"
                raise Refusal("worker_unavailable", f"no process to run code in: {detail}")
        return worker

    def _finished(self) -> None:
        self._run = None

    def _looked(self) -> None:
        self._look = None


def check(request: ExecuteRequest) -> None:
    """``Refusal`` for a request whose fields make no sense."""
    if not 0 < len(request.execution_id) <= _MAX_ID_CHARS or not request.execution_id.isprintable():
        raise Refusal("invalid_argument", f"execution_id is 1 to {_MAX_ID_CHARS} printable characters")
    for name in ("timeout_seconds", "grace_seconds"):
        seconds: float = getattr(request, name)
        if not (math.isfinite(seconds) and seconds > 0):
            raise Refusal("invalid_argument", f"{name} is a positive number")
    for name in ("output_limit_bytes", "display_limit_bytes", "max_charts"):
        if not 0 <= getattr(request, name) <= _MAX_LIMIT:
            raise Refusal("invalid_argument", f"{name} is between 0 and {_MAX_LIMIT}")
