"""Which credential a request carries, who its client is, and whether its Host and Origin are ours."""

from __future__ import annotations

from typing import Any

import pytest

from interpreter_api.auth.addresses import Addresses
from interpreter_api.auth.credentials import KEY_PARAMETERS, find, refuse_key_in_url
from interpreter_api.errors import InvalidArgumentError
from interpreter_api.settings import Settings


def scope(client: str = "192.0.2.9", **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "client": (client, 1234), "headers": pairs, "path": "/"}


def addresses(**settings: Any) -> Addresses:
    return Addresses(Settings(**settings))


@pytest.mark.covers("R04")
@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        (b"authorization", b"Bearer abc", "abc"),
        (b"authorization", b"bearer   abc ", "abc"),
        (b"x-api-key", b"abc", "abc"),
        (b"authorization", b"Basic abc", None),
        (b"authorization", b"Bearer", None),
        (b"authorization", b"abc", None),
        (b"x-api-key", b" ", None),
        (b"cookie", b"key=abc", None),
    ],
)
def test_one_header_carries_the_credential(name: bytes, value: bytes, found: str | None) -> None:
    credential = find([(b"host", b"x"), (name, value)])
    assert (credential.value if credential else None) == found


@pytest.mark.attack("AU04")
@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")],
        [(b"x-api-key", b"a"), (b"x-api-key", b"b")],
        [(b"authorization", b"Bearer a"), (b"x-api-key", b"a")],
    ],
)
def test_two_credentials_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidArgumentError):
        find(headers)


@pytest.mark.attack("AU03")
@pytest.mark.parametrize("name", sorted(KEY_PARAMETERS))
def test_a_key_in_the_url_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        refuse_key_in_url(f"a=1&{name.upper()}=canary".encode())
    assert "canary" not in str(caught.value.as_dict())
    refuse_key_in_url(b"cursor=x&limit=10&expires=1&signature=y")


@pytest.mark.attack("CR06")
def test_a_credential_has_no_repr() -> None:
    assert "canary" not in repr(find([(b"x-api-key", b"canary")]))


@pytest.mark.attack("AU04")
def test_forwarded_addresses_count_from_trusted_proxies_only() -> None:
    forged = scope(x_forwarded_for="198.51.100.7")
    assert addresses().client(forged) == "192.0.2.9"
    behind = addresses(trusted_proxies="192.0.2.0/24")
    assert behind.client(forged) == "198.51.100.7"
    assert behind.client(scope(x_forwarded_for="203.0.113.1, 198.51.100.7, 192.0.2.8")) == "198.51.100.7"
    assert behind.client(scope("203.0.113.5", x_forwarded_for="198.51.100.7")) == "203.0.113.5"
    assert behind.client(scope()) == "192.0.2.9"


@pytest.mark.attack("MC04")
@pytest.mark.parametrize(
    ("settings", "host", "ours"),
    [
        ({}, "127.0.0.1:8080", True),
        ({}, "LOCALHOST", True),
        ({}, "[::1]:8080", True),
        ({}, "evil.example", False),
        ({}, "127.0.0.1.evil.example", False),
        ({}, "localhost@evil.example", False),
        ({}, "[::1", False),
        ({"host": "0.0.0.0"}, "anything.example", True),
        ({"host": "0.0.0.0", "public_base_url": "https://code.example"}, "code.example", True),
        ({"host": "0.0.0.0", "public_base_url": "https://code.example"}, "evil.example", False),
        ({"allowed_hosts": "api.internal"}, "api.internal:80", True),
    ],
)
def test_hosts(settings: dict[str, str], host: str, ours: bool) -> None:
    assert addresses(**settings).host_is_ours(scope(host=host)) is ours


@pytest.mark.attack("MC04")
def test_a_missing_or_second_host_is_not_ours() -> None:
    rules = addresses()
    assert not rules.host_is_ours(scope())
    twice = scope(host="localhost")
    twice["headers"] *= 2
    assert not rules.host_is_ours(twice)


@pytest.mark.attack("MC04")
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://127.0.0.1:8080", True),
        ("https://app.example", True),
        ("HTTPS://APP.example", True),
        ("https://app.example.evil.example", False),
        ("https://evil.example", False),
        ("http://localhost:9999", False),
        ("null", False),
        ("", False),
    ],
)
def test_origins(origin: str, allowed: bool) -> None:
    rules = addresses(allowed_origins="https://app.example")
    assert rules.origin_is_allowed(scope(host="127.0.0.1:8080", origin=origin)) is allowed
