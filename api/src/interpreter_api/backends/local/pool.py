"""Who gets which sandbox, and how many there are: the bookkeeping of the local backend, without any process.

The pool is told how to start and stop one (``start``, ``stop``) and decides when. It belongs to one event loop;
between two awaits nothing else changes it, so it needs no lock.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar

from interpreter_api.errors import CapacityError, InterpreterError, SandboxUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from interpreter_api.backends.base import SandboxClass

log = logging.getLogger(__name__)

T = TypeVar("T")
State = Literal["starting", "warm", "claimed", "dying"]

RETRY_FIRST_SECONDS: Final = 0.5
RETRY_MOST_SECONDS: Final = 30.0


@dataclass(slots=True, eq=False)
class Slot(Generic[T]):
    """One sandbox, from the decision to start it to its end. ``session_id`` is set once it is promised to one."""

    uid: str
    class_name: str
    ready: asyncio.Future[None]
    state: State = "starting"
    session_id: str | None = None
    handle: T | None = None
    removal: asyncio.Task[None] | None = None
    starter: asyncio.Task[None] | None = field(default=None, repr=False)


class Pool(Generic[T]):
    """At most ``limit`` sandboxes of all classes; of each class ``warm_pool_min`` wait for a session."""

    def __init__(
        self,
        classes: Mapping[str, SandboxClass],
        *,
        limit: int,
        start: Callable[[str, SandboxClass], Awaitable[T]],
        stop: Callable[[T], Awaitable[None]],
        parallel_starts: int = 2,
        wait_seconds: float = 30.0,
        refill_seconds: float = 0.0,
    ) -> None:
        """``refill_seconds``: how long after a claim its replacement starts; until then the processor is the session's.

        ``start`` answers when the sandbox is ready; when it is cancelled or raises, it has cleaned up.
        """
        self._classes = classes
        self._limit = limit
        self._start = start
        self._stop = stop
        self._starting = asyncio.Semaphore(parallel_starts)
        self._wait_seconds = wait_seconds
        self._slots: dict[str, Slot[T]] = {}
        self._refill_seconds = refill_seconds
        self._refill: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._failures = 0
        self._retry: asyncio.TimerHandle | None = None
        self._open = False

    def open(self) -> None:
        """From here on the pool is kept filled."""
        self._open = True
        self.fill()

    def slots(self) -> list[Slot[T]]:
        """Every sandbox there is, in the order of their start."""
        return list(self._slots.values())

    def get(self, uid: str) -> Slot[T] | None:
        """The sandbox with that uid, while it exists."""
        return self._slots.get(uid)

    async def claim(self, class_name: str, session_id: str) -> Slot[T]:
        """A ready sandbox for the session. ``CapacityError`` where there is no room, or none is ready in time."""
        try:
            async with asyncio.timeout(self._wait_seconds):
                slot = await self._reserve(class_name, session_id)
                try:
                    await asyncio.shield(slot.ready)
                except BaseException:
                    self._unreserve(slot)
                    raise
        except TimeoutError:
            raise CapacityError(f"no sandbox was ready within {self._wait_seconds:.0f} s") from None
        return slot

    async def _reserve(self, class_name: str, session_id: str) -> Slot[T]:
        while True:
            slot = self._free(class_name, "warm") or self._free(class_name, "starting")
            if slot is None:
                if len(self._slots) < self._limit:
                    slot = self._launch(class_name)
                else:
                    await self._make_room()
                    continue
            slot.session_id = session_id
            if slot.state == "warm":
                slot.state = "claimed"
            self._fill_soon()
            return slot

    def _unreserve(self, slot: Slot[T]) -> None:
        """The claim was given up. No session has used the sandbox, so it waits for another."""
        slot.session_id = None
        if slot.state == "claimed":
            slot.state = "warm"

    async def _make_room(self) -> None:
        """Wait for one that is ending anyway, or end a warm one of another class."""
        leaving = next((slot for slot in self._slots.values() if slot.removal is not None), None)
        if leaving is None:
            leaving = next((slot for slot in self._slots.values() if slot.session_id is None), None)
        if leaving is None:
            raise CapacityError(f"all {self._limit} sandboxes of this server are in use", limit=self._limit)
        self._waiting += 1  # the place is for this claim: fill() must not take it for a warm one
        try:
            await self.remove(leaving.uid)
        finally:
            self._waiting -= 1

    def _free(self, class_name: str, state: State) -> Slot[T] | None:
        for slot in self._slots.values():
            if slot.class_name == class_name and slot.state == state and slot.session_id is None:
                return slot
        return None

    def fill(self) -> None:
        """Start what the warm pools lack, as far as there is room."""
        if not self._open or self._retry is not None:
            return
        for name, sandbox_class in self._classes.items():
            waiting = sum(
                slot.class_name == name and slot.session_id is None and slot.state in ("starting", "warm")
                for slot in self._slots.values()
            )
            for _ in range(min(sandbox_class.warm_pool_min - waiting, self._limit - len(self._slots) - self._waiting)):
                self._launch(name)

    def _fill_soon(self) -> None:
        if self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(self._refill_seconds, self._fill_now)

    def _fill_now(self) -> None:
        self._refill = None
        self.fill()

    def _launch(self, class_name: str) -> Slot[T]:
        uid = "sbx_" + base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()
        slot: Slot[T] = Slot(uid, class_name, asyncio.get_running_loop().create_future())
        slot.ready.add_done_callback(_mark_retrieved)
        self._slots[uid] = slot
        slot.starter = asyncio.create_task(self._run_start(slot), name=f"start {uid}")
        return slot

    async def _run_start(self, slot: Slot[T]) -> None:
        try:
            async with self._starting:
                slot.handle = await self._start(slot.uid, self._classes[slot.class_name])
        except asyncio.CancelledError:
            slot.ready.set_exception(SandboxUnavailableError("the server is closing"))
            raise
        except InterpreterError as error:
            self._failed(slot, error)
        except Exception as error:  # whatever it was, the claim that waits must hear of it
            log.exception("starting sandbox %s failed", slot.uid)
            refusal = SandboxUnavailableError("a sandbox could not be started")
            refusal.__cause__ = error
            self._failed(slot, refusal)
        else:
            self._failures = 0
            slot.state = "warm" if slot.session_id is None else "claimed"
            slot.ready.set_result(None)

    def _failed(self, slot: Slot[T], error: InterpreterError) -> None:
        self._slots.pop(slot.uid, None)
        slot.ready.set_exception(error)
        self.back_off()

    def back_off(self) -> None:
        """Something is wrong with the sandboxes: fill the pool a little later, and later each time."""
        delay = min(RETRY_MOST_SECONDS, RETRY_FIRST_SECONDS * 2**self._failures)
        self._failures += 1
        if self._retry is None and self._open:
            self._retry = asyncio.get_running_loop().call_later(delay, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.fill()

    async def remove(self, uid: str) -> None:
        """End a sandbox and wait for it; harmless where it is unknown or ending already."""
        slot = self._slots.get(uid)
        if slot is None:
            return
        if slot.removal is None:
            slot.removal = asyncio.create_task(self._run_removal(slot), name=f"end {uid}")
        await asyncio.shield(slot.removal)

    async def _run_removal(self, slot: Slot[T]) -> None:
        slot.state = "dying"
        try:
            if slot.handle is None and slot.starter is not None:
                slot.starter.cancel()
                await asyncio.wait({slot.starter})
            if slot.handle is not None:
                await self._stop(slot.handle)
        finally:
            self._slots.pop(slot.uid, None)
            self.fill()

    def vanished(self, uid: str) -> str | None:
        """A sandbox ended on its own. Returns the session that had it, None for one that nobody had."""
        slot = self._slots.get(uid)
        if slot is None or slot.state not in ("warm", "claimed"):
            return None
        del self._slots[uid]
        if slot.state == "warm":
            self.back_off()
            return None
        self.fill()
        return slot.session_id

    async def close(self) -> None:
        """End every sandbox; when this returns none is left."""
        self._open = False
        for timer in (self._retry, self._refill):
            if timer is not None:
                timer.cancel()
        self._retry = self._refill = None
        await asyncio.gather(*(self.remove(uid) for uid in list(self._slots)))


def _mark_retrieved(future: asyncio.Future[None]) -> None:
    """A start that nobody waits for may fail without a warning of asyncio's: it was logged."""
    if not future.cancelled():
        future.exception()
