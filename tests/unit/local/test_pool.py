"""The pool's decisions, with sandboxes that are only counted: nothing here starts a process."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from interpreter_api.backends.base import SandboxClass
from interpreter_api.backends.local.pool import Pool
from interpreter_api.errors import CapacityError, SandboxUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


class Yard:
    """Starts and stops sandboxes that are only names; a start waits while the gate is closed."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.cancelled: list[str] = []
        self.fail_with: Exception | None = None

    async def start(self, uid: str, sandbox_class: SandboxClass) -> str:
        self.started.append(sandbox_class.name)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(uid)
            raise
        if self.fail_with is not None:
            raise self.fail_with
        return uid

    async def stop(self, handle: str) -> None:
        self.stopped.append(handle)


@asynccontextmanager
async def pool_of(
    yard: Yard, *, limit: int, warm: int = 1, other: int = 0, wait: float = 5.0
) -> AsyncIterator[Pool[str]]:
    classes = {
        "default": SandboxClass(warm_pool_min=warm),
        "other": SandboxClass(name="other", warm_pool_min=other),
    }
    pool = Pool(classes, limit=limit, start=yard.start, stop=yard.stop, wait_seconds=wait)
    pool.open()
    try:
        yield pool
    finally:
        await pool.close()
    assert pool.slots() == []


async def settled(pool: Pool[str]) -> None:
    """Until every start that is under way has ended."""
    await asyncio.gather(*(slot.starter for slot in pool.slots() if slot.starter is not None))


def states(pool: Pool[str]) -> list[str]:
    return sorted(slot.state for slot in pool.slots())


async def test_a_warm_one_is_claimed_at_once_and_replaced() -> None:
    yard = Yard()
    async with pool_of(yard, limit=4) as pool:
        await settled(pool)
        warm = pool.slots()[0].uid
        slot = await pool.claim("default", "ses_a")
        assert (slot.uid, slot.state, slot.session_id) == (warm, "claimed", "ses_a")
        assert states(pool) == ["claimed"]  # the replacement does not compete with the session's first cell
        await asyncio.sleep(0.001)
        await settled(pool)
        assert states(pool) == ["claimed", "warm"]


async def test_a_claim_takes_the_one_that_is_starting_instead_of_starting_another() -> None:
    yard = Yard()
    yard.gate.clear()
    async with pool_of(yard, limit=1) as pool:
        claim = asyncio.create_task(pool.claim("default", "ses_a"))
        await asyncio.sleep(0)
        yard.gate.set()
        assert (await claim).session_id == "ses_a"
        assert yard.started == ["default"]


async def test_two_claims_never_get_the_same() -> None:
    yard = Yard()
    async with pool_of(yard, limit=8, warm=2) as pool:
        slots = await asyncio.gather(*(pool.claim("default", f"ses_{i}") for i in range(8)))
        assert len({slot.uid for slot in slots}) == 8


async def test_over_the_limit_is_a_typed_error_at_once_that_names_it() -> None:
    yard = Yard()
    async with pool_of(yard, limit=2) as pool:
        for i in range(2):
            await pool.claim("default", f"ses_{i}")
        with pytest.raises(CapacityError, match="all 2 sandboxes") as caught:
            await pool.claim("default", "ses_more")
        assert caught.value.retryable
        await pool.remove(pool.slots()[0].uid)
        assert (await pool.claim("default", "ses_more")).session_id == "ses_more"


async def test_a_warm_one_of_another_class_makes_room() -> None:
    yard = Yard()
    async with pool_of(yard, limit=1) as pool:
        await settled(pool)
        idle = pool.slots()[0].uid
        slot = await pool.claim("other", "ses_a")
        assert slot.class_name == "other"
        assert yard.stopped == [idle]


async def test_waiting_has_a_bound_and_the_sandbox_is_not_wasted() -> None:
    yard = Yard()
    yard.gate.clear()
    async with pool_of(yard, limit=1, wait=0.02) as pool:
        with pytest.raises(CapacityError, match="ready within"):
            await pool.claim("default", "ses_a")
        yard.gate.set()
        await settled(pool)
        assert states(pool) == ["warm"]
        assert (await pool.claim("default", "ses_b")).session_id == "ses_b"


async def test_a_cancelled_claim_leaves_the_sandbox_to_the_next() -> None:
    yard = Yard()
    yard.gate.clear()
    async with pool_of(yard, limit=1) as pool:
        claim = asyncio.create_task(pool.claim("default", "ses_a"))
        await asyncio.sleep(0)
        claim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claim
        yard.gate.set()
        assert (await pool.claim("default", "ses_b")).session_id == "ses_b"
        assert yard.started == ["default"]


async def test_a_start_that_fails_reaches_the_claim_and_is_not_repeated_in_a_hurry() -> None:
    yard = Yard()
    yard.fail_with = SandboxUnavailableError("broken", remedy="mend it")
    async with pool_of(yard, limit=4, warm=0) as pool:
        with pytest.raises(SandboxUnavailableError, match="broken"):
            await pool.claim("default", "ses_a")
        before = len(yard.started)
        pool.fill()
        await asyncio.sleep(0)
        assert len(yard.started) == before
        yard.fail_with = None
        assert (await pool.claim("default", "ses_a")).state == "claimed"


async def test_a_claimed_one_that_vanishes_is_named_and_its_place_is_free() -> None:
    yard = Yard()
    async with pool_of(yard, limit=1) as pool:
        slot = await pool.claim("default", "ses_a")
        assert pool.vanished(slot.uid) == "ses_a"
        assert pool.vanished(slot.uid) is None
        assert (await pool.claim("default", "ses_b")).uid != slot.uid


async def test_a_warm_one_that_vanishes_is_nobodys_loss() -> None:
    yard = Yard()
    async with pool_of(yard, limit=2) as pool:
        await settled(pool)
        assert pool.vanished(pool.slots()[0].uid) is None
        assert pool.slots() == []  # and not started again at once: it might vanish again


async def test_removing_twice_stops_once() -> None:
    yard = Yard()
    async with pool_of(yard, limit=1, warm=0) as pool:
        slot = await pool.claim("default", "ses_a")
        await asyncio.gather(pool.remove(slot.uid), pool.remove(slot.uid))
        await pool.remove(slot.uid)
        assert yard.stopped == [slot.uid]


async def test_close_ends_those_that_are_starting_and_tells_who_waits() -> None:
    yard = Yard()
    yard.gate.clear()
    async with pool_of(yard, limit=2) as pool:
        claim = asyncio.create_task(pool.claim("default", "ses_a"))
        await asyncio.sleep(0.01)
        await pool.close()
        with pytest.raises(SandboxUnavailableError, match="closing"):
            await claim
        assert yard.cancelled
