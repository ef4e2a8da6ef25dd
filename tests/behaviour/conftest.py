"""REST clients of two tenants, and a session that is gone after its test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support import rest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2

    from support.server import Server


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx2.Client]:
    """The first principal."""
    with rest.client(server) as made:
        yield made


@pytest.fixture(scope="session")
def other_tenant(server: Server) -> Iterator[httpx2.Client]:
    """Somebody of another tenant, with a valid key of their own."""
    with rest.client(server, rest.make_key(server, "neighbour", "neighbours")) as made:
        yield made


@pytest.fixture
def session_id(http: httpx2.Client) -> Iterator[str]:
    """A new session."""
    made = http.post("/api/sessions", json={"name": "test"})
    assert made.status_code == 201, made.text
    identifier = made.json()["session_id"]
    yield identifier
    http.delete(f"/api/sessions/{identifier}")
