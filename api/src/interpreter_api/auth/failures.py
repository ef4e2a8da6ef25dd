"""How often one address may present a bad credential: a token bucket each, in bounded memory."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BURST = 20
REFILL_SECONDS = 3.0
_ADDRESSES = 10_000


class FailureLimiter:
    """``BURST`` failures at once, then one every ``REFILL_SECONDS``, for each client address.

    IPv6 clients have whole /64 networks to themselves, so those count as one address. The address that was seen
    longest ago is forgotten when there are too many.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_seconds(self, address: str) -> int:
        """0 where the address may try, else how long it must wait (whole seconds, at least 1)."""
        behind = self._full_at.get(_bucket(address), 0.0) - self._clock()
        return max(0, math.ceil(behind - (BURST - 1) * REFILL_SECONDS))

    def failed(self, address: str) -> None:
        """Count one bad credential."""
        bucket, now = _bucket(address), self._clock()
        self._full_at[bucket] = max(self._full_at.get(bucket, now), now) + REFILL_SECONDS
        self._full_at.move_to_end(bucket)
        if len(self._full_at) > _ADDRESSES:
            self._full_at.popitem(last=False)

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._full_at)


def _bucket(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
