"""What a tool call knows besides its arguments: who calls, whether progress is wanted, and how it ends early."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import anyio
from starlette.requests import Request

from interpreter_api.mcp.transport import principal_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from mcp.server.mcpserver import Context

    from interpreter_api.services.ports import (
        ExecutionPort,
        IntrospectionPort,
        Principal,
        ScriptPort,
        SessionPort,
        WorkspacePort,
    )
    from interpreter_sandbox.protocol import Event

T = TypeVar("T")

_MAX_MESSAGE = 16_384
_FLUSH_SECONDS = 1.0


class ToolServices(Protocol):
    """The part of ``services.container.Services`` that tools use."""

    @property
    def executions(self) -> ExecutionPort:
        """Runs code."""
        ...

    @property
    def sessions(self) -> SessionPort:
        """Makes, lists and deletes sessions."""
        ...

    @property
    def scripts(self) -> ScriptPort:
        """Saves and runs scripts."""
        ...

    @property
    def workspace(self) -> WorkspacePort:
        """Reads and writes files in a session's sandbox."""
        ...

    @property
    def introspection(self) -> IntrospectionPort:
        """Looks into a session."""
        ...


def caller(ctx: Context[Any, Any]) -> Principal:
    """The principal of the HTTP request that carried this call."""
    request = ctx.request_context.request
    if not isinstance(request, Request):
        raise TypeError("every transport here carries messages in HTTP requests")
    return principal_of(request.scope)


async def cancelled_once(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` as a task of its own, so that a cancellation reaches it once and not at each of its awaits.

    The SDK cancels by anyio scopes, which cancel again whatever is awaited until the scope is left; the services
    interrupt code and write rows when they are cancelled, and need to await for that. Waits for their end.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: whoever called is gone
        raise


class Progress:
    """Sends ``started`` and stdout as progress notifications, in order, without ever holding up the execution.

    Use as ``async with``; give :attr:`on_event` to the execution. A client that reads slowly gets the newest text.
    """

    def __init__(self, ctx: Context[Any, Any]) -> None:
        self._ctx = ctx
        self._text = ""
        self._count = 0
        self._news = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._done = False

    @staticmethod
    def wanted(ctx: Context[Any, Any]) -> bool:
        """Whether the request carries a progress token."""
        meta = ctx.request_context.meta
        return meta is not None and meta.get("progress_token") is not None

    async def __aenter__(self) -> Self:
        """Start sending."""
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Send what is left, but wait for a slow client only so long."""
        assert self._sender is not None
        self._done = True
        self._news.set()
        try:
            await asyncio.wait([self._sender], timeout=_FLUSH_SECONDS)
        finally:
            self._sender.cancel()

    async def on_event(self, event: Event) -> None:
        """Take note of one event; returns at once."""
        if event.event == "started":
            self._text += "started\n"
        elif event.event == "stdout":
            self._text += str(event.data.get("text", ""))
        else:
            return
        self._text = self._text[-_MAX_MESSAGE:]
        self._news.set()

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._text:
                text, self._text = self._text, ""
                self._count += 1
                await self._ctx.report_progress(self._count, message=text)
            elif self._done:
                return
            if self._done:
                self._news.set()
