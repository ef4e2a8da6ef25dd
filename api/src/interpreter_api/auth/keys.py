"""API keys: checked by their hash, remembered for a moment, so that a revoked key stops working within seconds."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from interpreter_api.services.ports import Principal

if TYPE_CHECKING:
    from interpreter_api.data.principals import Principals

REMEMBER_SECONDS = 2.0
_REMEMBER_KEYS = 10_000
_LONGEST_KEY = 512


def digest(key: str) -> bytes:
    """SHA-256 of a key: what is stored and looked up. Keys are random, so a slow hash would protect nothing."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class ApiKeys:
    """From a presented key to its principal.

    The lookup goes by the hash of what was presented: how long it takes says nothing about how much of a guess was
    right. Only good keys are remembered, so guessing fills no memory.
    """

    def __init__(self, principals: Principals) -> None:
        self._principals = principals
        self._known: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()

    def familiar(self, key: str) -> bool:
        """True for a key that was good at its last use: one that an address full of bad guesses may still present."""
        return len(key) <= _LONGEST_KEY and digest(key) in self._known

    async def principal(self, key: str) -> Principal | None:
        """The principal of a good key, else None, whatever is wrong with it."""
        if not key or len(key) > _LONGEST_KEY:
            return None
        key_digest = digest(key)
        known = self._known.get(key_digest)
        if known and known[1] > time.monotonic():
            return known[0]
        row = await self._principals.by_key(key_digest)
        if row is None:
            self._known.pop(key_digest, None)
            return None
        principal = Principal(row.id, row.tenant_id, row.name, row.is_admin)
        self._known[key_digest] = (principal, time.monotonic() + REMEMBER_SECONDS)
        self._known.move_to_end(key_digest)
        if len(self._known) > _REMEMBER_KEYS:
            self._known.popitem(last=False)
        return principal
