"""The record of one execution: its events, kept and bounded until the api acknowledges them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from interpreter_sandbox.protocol import Event, EventName

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_KEPT_EXECUTIONS: Final = 64
_GATHER_SECONDS: Final = 0.001
_KEPT_BYTES: Final = 128 << 20
_REMEMBERED_IDS: Final = 10_000


class Execution:
    """The events of one execution, encoded, and whoever follows them.

    A short cell's events go out as one piece, because each piece costs both sides as much as the cell itself: nothing
    is passed on before :meth:`go_live` or the end. From then on, what comes within a moment goes together.
    """

    def __init__(self, execution_id: str) -> None:
        """Nothing has happened yet."""
        self.execution_id = execution_id
        self.finished = False
        self.size_bytes = 0
        self._live = False
        self._lines: list[bytes] = []
        self._followers: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many events there are so far."""
        return len(self._lines)

    def append(self, name: EventName, data: dict[str, object]) -> None:
        """The next event; ``done`` ends the execution."""
        assert not self.finished
        line = Event(len(self._lines), name, data).encode()
        self._lines.append(line)
        self.size_bytes += len(line)
        self.finished = name == "done"
        if self.finished:
            self._wake()
        elif self._live and self._timer is None and self._followers:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._wake)

    def go_live(self) -> None:
        """The cell is not a short one: pass on what there is, and what comes."""
        self._live = True
        self._wake()

    async def follow(self, after: int = -1) -> AsyncIterator[tuple[bytes, bool]]:
        """NDJSON: the events with ``seq`` > ``after``, several at a time, up to ``done``; True with the last ones."""
        position = max(after + 1, 0)
        while True:
            if not self.finished and (not self._live or position >= len(self._lines)):
                follower = asyncio.get_running_loop().create_future()
                self._followers.append(follower)
                await follower
            lines = self._lines[position:]
            position += len(lines)
            if self.finished:
                yield b"".join(lines), True
                return
            if lines:
                yield b"".join(lines), False

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        followers, self._followers = self._followers, []
        for follower in followers:
            if not follower.done():
                follower.set_result(None)


class ExecutionStore:
    """The executions that may still be asked for, and the ids that must never run again."""

    def __init__(self) -> None:
        """Empty."""
        self._kept: OrderedDict[str, Execution] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()

    def get(self, execution_id: str) -> Execution | None:
        """The execution, where it is kept."""
        return self._kept.get(execution_id)

    def is_gone(self, execution_id: str) -> bool:
        """True where it ran and was forgotten."""
        return execution_id in self._gone

    def add(self, execution: Execution) -> None:
        """Keep it; where there are too many, the oldest finished ones are forgotten."""
        self._kept[execution.execution_id] = execution
        total = sum(kept.size_bytes for kept in self._kept.values())
        for kept in list(self._kept.values()):
            if len(self._kept) <= _KEPT_EXECUTIONS and total <= _KEPT_BYTES:
                return
            if kept.finished:
                total -= kept.size_bytes
                self._forget(kept.execution_id)

    def acknowledge(self, execution_id: str) -> bool:
        """Forget a finished execution's events; False where there is none to forget."""
        execution = self._kept.get(execution_id)
        if execution is None or not execution.finished:
            return False
        self._forget(execution_id)
        return True

    def _forget(self, execution_id: str) -> None:
        del self._kept[execution_id]
        self._gone[execution_id] = None
        if len(self._gone) > _REMEMBERED_IDS:
            self._gone.popitem(last=False)
