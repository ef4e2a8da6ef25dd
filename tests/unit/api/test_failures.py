"""The limiter of bad credentials: a burst, then a slow refill, for each address, in bounded memory."""

from __future__ import annotations

import pytest

from interpreter_api.auth.failures import BURST, REFILL_SECONDS, FailureLimiter


class Clock:
    """Time that moves when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.attack("AU10")
def test_a_burst_may_fail_and_then_must_wait(clock: Clock) -> None:
    limiter = FailureLimiter(clock)
    for _ in range(BURST):
        assert limiter.wait_seconds("192.0.2.1") == 0
        limiter.failed("192.0.2.1")
    assert limiter.wait_seconds("192.0.2.1") == REFILL_SECONDS
    assert limiter.wait_seconds("192.0.2.2") == 0


@pytest.mark.attack("AU10")
def test_waiting_as_long_as_told_is_enough_for_one_more(clock: Clock) -> None:
    limiter = FailureLimiter(clock)
    for _ in range(BURST):
        limiter.failed("192.0.2.1")
    clock.now += limiter.wait_seconds("192.0.2.1")
    assert limiter.wait_seconds("192.0.2.1") == 0
    limiter.failed("192.0.2.1")
    assert limiter.wait_seconds("192.0.2.1") > 0


@pytest.mark.attack("AU10")
def test_an_ipv6_network_counts_as_one_address(clock: Clock) -> None:
    limiter = FailureLimiter(clock)
    for host in range(BURST):
        limiter.failed(f"2001:db8:1:2::{host:x}")
    assert limiter.wait_seconds("2001:db8:1:2:ffff::1") > 0
    assert limiter.wait_seconds("2001:db8:1:3::1") == 0


@pytest.mark.attack("AU10")
def test_memory_is_bounded_however_many_addresses_come(clock: Clock) -> None:
    limiter = FailureLimiter(clock)
    for number in range(30_000):
        limiter.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(limiter) == 10_000
