"""The agent's token check against tokens made by PyJWT, honest and forged."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from interpreter_sandbox.client import TokenSigner
from interpreter_sandbox.protocol import AUDIENCE
from interpreter_sandbox.runtime.tokens import TokenVerifier

KEY = Ed25519PrivateKey.generate()
CLAIMS = {"aud": AUDIENCE, "sub": "mine"}


@pytest.fixture
def verifier() -> TokenVerifier:
    return TokenVerifier(KEY.public_key().public_bytes_raw(), "mine")


def token(key: Ed25519PrivateKey = KEY, seconds: float = 60, **changes: object) -> bytes:
    claims = {**CLAIMS, "exp": int(time.time() + seconds), **changes}
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm="EdDSA").encode()


def unsigned(header: dict[str, object]) -> bytes:
    parts = (json.dumps(header).encode(), json.dumps({**CLAIMS, "exp": int(time.time() + 60)}).encode())
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts) + b"."


def test_the_signers_token_is_accepted_and_reused(verifier: TokenVerifier) -> None:
    current = TokenSigner(KEY).for_sandbox("mine")
    first = current()
    assert verifier.accepts(first.encode())
    assert verifier.accepts(first.encode())
    assert current() is first


def test_a_token_for_another_sandbox_is_refused(verifier: TokenVerifier) -> None:
    assert not verifier.accepts(TokenSigner(KEY).for_sandbox("yours")().encode())


@pytest.mark.parametrize(
    "forged",
    [
        lambda: b"",
        lambda: b"..",
        lambda: b"a.b.c",
        lambda: b"\xff" * 100,
        lambda: b"x" * (1 << 20),
        lambda: token(Ed25519PrivateKey.generate()),
        lambda: token(seconds=-1),
        lambda: token(seconds=100_000),
        lambda: token(exp=None),
        lambda: token(exp="soon"),
        lambda: token(exp=float("nan")),
        lambda: token(aud="somebody"),
        lambda: token(aud=None),
        lambda: token(sub=None),
        lambda: token()[:-1],
        lambda: token() + b"A",
        lambda: token() + b".x",
        lambda: unsigned({"alg": "none"}),
        lambda: unsigned({"alg": "EdDSA"}),
        lambda: unsigned({}),
        # the public key as an HMAC secret: the classic confusion of algorithms
        lambda: jwt.encode(
            {**CLAIMS, "exp": int(time.time() + 60)},
            KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
            algorithm="HS256",
        ).encode(),
    ],
)
def test_everything_else_is_refused(verifier: TokenVerifier, forged: object) -> None:
    assert verifier.accepts(token()), "the positive control"
    assert callable(forged)
    assert not verifier.accepts(forged())


def test_a_remembered_token_expires_too(verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    short = token(seconds=30)
    assert verifier.accepts(short)
    later = time.time() + 31
    monkeypatch.setattr(time, "time", lambda: later)
    assert not verifier.accepts(short)
