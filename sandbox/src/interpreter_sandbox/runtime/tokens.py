"""The agent's check of the bearer token that every request carries.

Only what this protocol needs of RFC 7519: a compact JWS signed by Ed25519. Written on the signature itself because a
general library would double the agent's memory, and because an agent that knows one algorithm cannot be talked into
another. The other side signs with PyJWT (:mod:`interpreter_sandbox.client`), which keeps this honest.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from interpreter_sandbox.protocol import AUDIENCE, TOKEN_LIFETIME_SECONDS

_MAX_TOKEN_BYTES: Final = 4096
_CLOCK_SKEW_SECONDS: Final = 30
_CACHE_SIZE: Final = 16


class TokenVerifier:
    """Says whether a token is the api's, for this sandbox, now. Verified tokens are remembered until they expire."""

    def __init__(self, public_key: bytes, uid: str) -> None:
        """``public_key``: 32 raw bytes; ``ValueError`` for anything else."""
        self._key = Ed25519PublicKey.from_public_bytes(public_key)
        self._uid = uid
        self._expiry_of: dict[bytes, float] = {}

    def accepts(self, token: bytes) -> bool:
        """True for a valid token; the reason why not is nobody's business."""
        now = time.time()
        expiry = self._expiry_of.get(token)
        if expiry is not None and now < expiry:
            return True
        try:
            expiry = self._expiry(token, now)
        except (ValueError, TypeError, KeyError, RecursionError, binascii.Error, InvalidSignature):
            return False
        if now >= expiry:
            return False
        if len(self._expiry_of) >= _CACHE_SIZE:
            self._expiry_of.clear()
        self._expiry_of[token] = expiry
        return True

    def _expiry(self, token: bytes, now: float) -> float:
        if len(token) > _MAX_TOKEN_BYTES:
            raise ValueError("too long")
        header, payload, signature = token.split(b".")
        if json.loads(_base64url(header))["alg"] != "EdDSA":
            raise ValueError("algorithm")
        self._key.verify(_base64url(signature), header + b"." + payload)
        claims = json.loads(_base64url(payload))
        if claims["aud"] != AUDIENCE or claims["sub"] != self._uid:
            raise ValueError("for somebody else")
        expiry = float(claims["exp"])
        if not expiry <= now + TOKEN_LIFETIME_SECONDS + _CLOCK_SKEW_SECONDS:
            raise ValueError("lives too long")
        return expiry


def _base64url(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
