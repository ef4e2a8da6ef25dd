"""Runs code. An execution id never runs twice; what an answer promises is stored before the answer is sent.

A call with an execution id takes that id in the database before its code starts. The same id again is answered by
the running execution (joined), by the stored answer (``replayed``), or by a typed error: never by a second run. A
call without one gets an id of ours, and its row is written behind the reply.

An execution runs in a task of its own: a caller that goes away does not leave it half done. When the last caller
that waits for it is gone, the code is interrupted and its end recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from interpreter_api.data.executions import Outcome
from interpreter_api.errors import (
    InterpreterError,
    NotFoundError,
    OutcomeUnknownError,
    SessionBusyError,
)
from interpreter_api.services.answers import answer
from interpreter_api.services.artifacts import INLINE_BYTES, INLINE_TYPES, with_pictures
from interpreter_api.services.history import Used
from interpreter_api.services.ids import new_id
from interpreter_api.services.models import SessionInfo
from interpreter_api.services.replay import (
    other_request,
    replay,
    request_digest,
    sandbox_lost,
    still_running,
    stored,
)
from interpreter_api.services.runs import Finished, Run
from interpreter_api.services.sandboxes import session_not_found
from interpreter_api.services.sessions import NEW
from interpreter_api.services.validate import check_code, check_execution_id, check_timeout
from interpreter_sandbox.client import AgentError, AgentUnavailable
from interpreter_sandbox.protocol import ExecuteRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from interpreter_api.data.executions import ExecutionRepository
    from interpreter_api.data.servers import ServerPresence
    from interpreter_api.data.sessions import SessionRow
    from interpreter_api.services.artifacts import ArtifactStore
    from interpreter_api.services.files import StoredFileService
    from interpreter_api.services.fold import Folded
    from interpreter_api.services.history import HistoryWriter
    from interpreter_api.services.models import ExecutionResult
    from interpreter_api.services.ports import ExecuteCommand, Principal
    from interpreter_api.services.sandboxes import Binding, Sandboxes
    from interpreter_api.services.sessions import SessionService
    from interpreter_sandbox.client import AgentClient

GRACE_SECONDS = 2.0
SILENCE_SECONDS = 30.0
"""How long after its time limit an execution may stay without its end before its sandbox is given up."""
CLOSE_SECONDS = 2.5
ACKNOWLEDGE_CHARS = 32 << 10
"""The agent keeps the last 64 executions anyway: only what is worth its memory gets a request of its own."""

_log = logging.getLogger(__name__)


class ExecutionService:
    """See the module. ``observe(status, seconds)`` is told of each execution that ended."""

    def __init__(
        self,
        executions: ExecutionRepository,
        presence: ServerPresence,
        sessions: SessionService,
        sandboxes: Sandboxes,
        artifacts: ArtifactStore,
        files: StoredFileService,
        history: HistoryWriter,
        observe: Callable[[str, float], None],
    ) -> None:
        self._executions = executions
        self._presence = presence
        self._sessions = sessions
        self._sandboxes = sandboxes
        self._artifacts = artifacts
        self._files = files
        self._history = history
        self._observe = observe
        self._runs: dict[tuple[str, str], Run] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def execute(self, principal: Principal, command: ExecuteCommand) -> ExecutionResult:
        """Run one cell and wait for its end. A cancelled await interrupts the code, unless others wait for it too."""
        check_code(command.code)
        check_timeout(command.timeout_seconds, self._sessions.longest_timeout())
        if command.execution_id is not None:
            check_execution_id(command.execution_id)
        run = self._find_or_start(principal, command)
        finished = await self._wait(run)
        result = finished.result
        if command.inline_images and result.charts:
            pictures = finished.pictures or await self._load_pictures(result)
            result = result.model_copy(update={"charts": with_pictures(result.charts, pictures)})
        return result

    async def get(self, principal: Principal, execution_id: str) -> ExecutionResult:
        """The stored answer of an execution that ended.

        ``SessionBusyError`` (retryable) while it runs, ``OutcomeUnknownError`` where the server died under it.
        """
        check_execution_id(execution_id)
        if (pending := self._history.pending(principal.tenant_id, execution_id)) and pending.answer:
            return stored(pending.answer)
        if (principal.tenant_id, execution_id) in self._runs:
            raise still_running(execution_id)
        row = await self._executions.get(principal.tenant_id, execution_id)
        if row is None:
            raise NotFoundError("There is no execution with that id.")
        return await replay(row, self._presence)

    async def close(self) -> None:
        """Interrupt what runs and give it a moment to be recorded; then cut it."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        await asyncio.gather(*(run.interrupt() for run in self._runs.values()), return_exceptions=True)
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for background in list(self._background):
            background.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def _find_or_start(self, principal: Principal, command: ExecuteCommand) -> Run:
        """The running execution of that id, or a new one: no await in between, so an id starts once."""
        digest = request_digest(command)
        execution_id = command.execution_id or new_id("exe_")
        key = principal.tenant_id, execution_id
        run = self._runs.get(key)
        if run is None:
            run = Run(principal, command, execution_id, digest)
            self._runs[key] = run
            run.task = asyncio.create_task(self._run(run), name=f"execution {execution_id}")
            run.task.add_done_callback(lambda task: self._ended(key, task))
        elif run.digest != digest:
            raise other_request(execution_id)
        if command.on_event is not None:
            run.listeners.append(command.on_event)
        return run

    def _ended(self, key: tuple[str, str], task: asyncio.Task[Finished]) -> None:
        self._runs.pop(key, None)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, InterpreterError):
            _log.error("an execution failed inside the server", exc_info=error)

    async def _wait(self, run: Run) -> Finished:
        assert run.task is not None
        run.waiters += 1
        try:
            return await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if run.task.cancelled():
                raise OutcomeUnknownError(
                    "The server stopped while the code ran.", execution_id=run.execution_id
                ) from None
            if run.waiters == 1:
                self._later(run.interrupt())
            raise
        finally:
            run.waiters -= 1

    async def _run(self, run: Run) -> Finished:
        keyed = run.command.execution_id is not None
        tenant_id = run.principal.tenant_id
        if keyed and not await self._executions.reserve(tenant_id, run.principal.id, run.execution_id, run.digest):
            row = await self._executions.get(tenant_id, run.execution_id)
            if row is None:  # given back between the two statements: its code never started
                raise SessionBusyError("Another call with this execution_id is just ending.")
            if row.request_hash != run.digest:
                raise other_request(run.execution_id)
            return Finished(await replay(row, self._presence), {})
        created: SessionRow | None = None
        try:
            if run.command.session_id in NEW:
                session = created = await self._sessions.create_row(run.principal)
            else:
                session = await self._sessions.row(run.principal, run.command.session_id)
            seconds = check_timeout(
                run.command.timeout_seconds, self._sessions.sandbox_class(session.class_name).execution_timeout_seconds
            )
            async with self._sandboxes.use(session) as binding, self._sandboxes.turn(binding, run.execution_id):
                return await self._run_in(run, session, binding, seconds, created=created is not None)
        finally:
            if not run.started:
                if keyed:
                    await self._executions.unreserve(tenant_id, run.execution_id)
                if created is not None:
                    await self._sessions.delete(run.principal, created.id)

    async def _run_in(
        self, run: Run, session: SessionRow, binding: Binding, seconds: float, *, created: bool
    ) -> Finished:
        sandbox = await self._sandboxes.sandbox(binding, session)
        restarts = binding.restarts
        try:
            folded = await self._stream(run, sandbox.client, seconds)
            artifacts = await self._artifacts.store(
                session.tenant_id, session.id, run.execution_id, folded, sandbox.client
            )
        except AgentUnavailable:
            raise await self._lost(run, session, binding) from None
        except AgentError as error:
            if error.code == "busy":  # refused before it began: a cell whose caller went away is still ending
                run.started = False
                raise SessionBusyError("Another execution is running in this session.", session_id=session.id) from None
            if binding.sandbox is not None:
                await self._sandboxes.drop(binding, f"its sandbox refused to run code ({error.code})")
            raise await self._lost(run, session, binding) from None
        info = self._session_info(session, binding, folded, restarts, created=created)
        result = answer(run.execution_id, folded, artifacts, info)
        await self._record(run, session, "done", folded.status or "crashed", result=result)
        self._observe(folded.status or "crashed", folded.elapsed_ms / 1000)
        if run.folded.size > ACKNOWLEDGE_CHARS:
            self._later(_acknowledge(sandbox.client, run.execution_id))
        return Finished(result, artifacts.pictures)

    async def _stream(self, run: Run, client: AgentClient, seconds: float) -> Folded:
        """Send the code and take its events to the end; one broken connection is taken up again where it broke."""
        request = ExecuteRequest(
            run.execution_id, run.command.code, timeout_seconds=seconds, grace_seconds=GRACE_SECONDS
        )
        run.start(client)
        try:
            async with asyncio.timeout(seconds + GRACE_SECONDS + SILENCE_SECONDS):
                try:
                    await run.take(client.execute(request))
                except AgentUnavailable:
                    await run.take(client.events(run.execution_id, run.folded.last_seq))
        except TimeoutError:
            raise AgentUnavailable("no end of the execution in time") from None
        except ValueError as error:
            raise AgentUnavailable("the agent sent what is no event") from error
        if run.folded.status is None:
            raise AgentUnavailable("the events ended without a last one")
        return run.folded

    async def _lost(self, run: Run, session: SessionRow, binding: Binding) -> InterpreterError:
        """The sandbox died under the code: record that, and say it."""
        if binding.deleted:
            await self._record(run, session, "lost", "crashed", reason="the session was deleted")
            return session_not_found()
        reason = await self._sandboxes.died(binding)
        await self._record(run, session, "lost", "crashed", reason=reason)
        self._observe("lost", 0.0)
        return sandbox_lost(run.execution_id, reason)

    async def _record(
        self,
        run: Run,
        session: SessionRow,
        state: str,
        status: str,
        *,
        reason: str = "",
        result: ExecutionResult | None = None,
    ) -> None:
        outcome = Outcome(
            tenant_id=run.principal.tenant_id,
            principal_id=run.principal.id,
            execution_id=run.execution_id,
            session_id=session.id,
            request_hash=run.digest,
            state="done" if state == "done" else "lost",
            status=status,
            reason=reason,
            answer=None if result is None else result.model_dump_json().encode(),
        )
        if run.command.execution_id is not None:
            await self._executions.finish(outcome)
            await self._history.add(Used(outcome.tenant_id, session.id, None))
        else:
            await self._history.add(Used(outcome.tenant_id, session.id, outcome))

    def _session_info(
        self, session: SessionRow, binding: Binding, folded: Folded, restarts: int, *, created: bool
    ) -> SessionInfo:
        lost, binding.lost = binding.lost, None
        ran = binding.ran
        if binding.restarts == restarts:  # else what ran was ended by a restart: the next call finds a fresh process
            binding.ran = True
        notice = ""
        if folded.state_lost:
            notice = "The Python process ended with this execution: its variables are gone, files are kept."
        elif lost is None and folded.lost_before:
            notice = f"Variables of earlier calls in this session are gone, files are kept: {folded.lost_before}."
        elif lost is not None:
            notice = f"Variables and files of earlier calls in this session are gone: {lost}."
        return SessionInfo(
            session_id=session.id,
            created=created,
            restored=False,
            state="lost" if notice else "kept" if ran else "fresh",
            notice=notice,
            expires_at=self._sessions.expires_at(session),
        )

    async def _load_pictures(self, result: ExecutionResult) -> dict[str, bytes]:
        pictures = {}
        for chart in result.charts:
            if chart.mime_type in INLINE_TYPES and (data := await self._files.read_small(chart.id, INLINE_BYTES)):
                pictures[chart.id] = data
        return pictures

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _acknowledge(client: AgentClient, execution_id: str) -> None:
    # where it cannot be told, nothing is lost but a little of its memory
    with contextlib.suppress(AgentError, AgentUnavailable):
        await client.acknowledge(execution_id)
