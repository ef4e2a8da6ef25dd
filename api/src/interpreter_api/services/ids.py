"""Identifiers: a prefix that says what it names, and 128 random bits that nobody guesses."""

from __future__ import annotations

import base64
import secrets


def new_id(prefix: str) -> str:
    """``prefix`` + 26 characters of lower-case base32 (16 random bytes)."""
    return prefix + base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()
