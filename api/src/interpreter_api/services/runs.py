"""One execution while it runs: who waits for it, who listens, and how it is interrupted."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from interpreter_api.services.fold import Folded
from interpreter_sandbox.client import AgentError, AgentUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from interpreter_api.services.models import ExecutionResult
    from interpreter_api.services.ports import ExecuteCommand, Principal
    from interpreter_sandbox.client import AgentClient
    from interpreter_sandbox.protocol import Event

LISTENER_SECONDS = 5.0
INTERRUPT_ATTEMPTS = 20
INTERRUPT_PAUSE_SECONDS = 0.05
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a run: its answer, and the pictures of its charts by file id while they are at hand."""

    result: ExecutionResult
    pictures: dict[str, bytes] = field(repr=False)


@dataclass(slots=True, eq=False)
class Run:
    """``started`` is True from the moment the code was sent; before, nothing happened that could not be undone."""

    principal: Principal
    command: ExecuteCommand
    execution_id: str
    digest: bytes
    task: asyncio.Task[Finished] | None = None
    client: AgentClient | None = None
    started: bool = False
    waiters: int = 0
    folded: Folded = field(default_factory=Folded)
    listeners: list[Callable[[Event], Awaitable[None]]] = field(default_factory=list)

    def start(self, client: AgentClient) -> None:
        """The code is about to be sent."""
        self.client, self.started = client, True

    async def take(self, events: AsyncIterator[Event]) -> None:
        """Fold events until they end, and show each to those who listen."""
        async for event in events:
            self.folded.add(event)
            if self.listeners:
                await self._tell(event)

    async def interrupt(self) -> None:
        """End the code (the agent kills what ignores the interrupt), or the call where it has not begun."""
        if not self.started:
            if self.task is not None:
                self.task.cancel()
            return
        for _ in range(INTERRUPT_ATTEMPTS):  # the code may still be on its way to the agent
            if self.client is None or self.task is None or self.task.done():
                return
            try:
                await self.client.interrupt(self.execution_id)
            except AgentUnavailable:
                return  # the sandbox is gone, and the code with it
            except AgentError as error:
                _log.debug("could not interrupt %s: %s", self.execution_id, error.code)
            else:
                return
            await asyncio.wait([self.task], timeout=INTERRUPT_PAUSE_SECONDS)

    async def _tell(self, event: Event) -> None:
        for listener in list(self.listeners):
            try:
                async with asyncio.timeout(LISTENER_SECONDS):
                    await listener(event)
            except Exception as error:  # noqa: BLE001 - a listener's failure, whatever it is, must not end the run
                _log.info("an event listener was dropped: %s", type(error).__name__)
                self.listeners.remove(listener)
