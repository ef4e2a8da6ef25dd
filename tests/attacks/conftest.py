"""The server under attack, its sessions, and the neighbour who must notice nothing."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import httpx2
import pytest

from support import server as real_server
from support.attack import Session, Target, canary
from support.attack_limits import MEMORY_MB, WORKSPACE_MB
from support.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKENDS = ("local",)
"""The kinds of backend that the list runs on; "kubernetes" joins with issue 5. ``attack(..., on="local")`` marks L."""


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The network that the server under attack lives in."""
    with Machine() as made:
        yield made


@pytest.fixture(scope="session", params=BACKENDS)
def target(
    request: pytest.FixtureRequest, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """A server with small limits and secrets in its environment, started as users start it."""
    assert request.param == "local"
    secret = canary()
    env = {
        "API_KEY": secret,
        "AZURE_CLIENT_SECRET": canary(),
        "MAX_MEMORY_MB": str(MEMORY_MB),
        "WORKSPACE_MB": str(WORKSPACE_MB),
        "MAX_SANDBOXES": "12",
        "WARM_POOL": "2",
        "MAX_EXECUTION_TIME": "60",
    }
    started = machine.call(real_server.start, tmp_path_factory.mktemp("attacked") / "data", env)
    with httpx2.Client(timeout=90) as client:
        yield Target(request.param, started, machine, client, secret)
    machine.call(started.stop)


@pytest.fixture(scope="session")
def neighbour(target: Target) -> Session:
    """Another session on the same server, with a secret in a variable, a file and the shared places."""
    session = target.session(name="neighbour")
    marker = canary()
    session.run(
        f"marker = {marker!r}\n"
        "for path in ('marker.txt', '/tmp/marker.txt', '/dev/shm/marker.txt'):\n"
        "    open(path, 'w').write(marker)"
    )
    return session


@pytest.fixture(autouse=True)
def neighbour_notices_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each attack the neighbour still answers, with its own state."""
    if "target" not in request.fixturenames:
        yield
        return
    session: Session = request.getfixturevalue("neighbour")
    before = session.run("marker, open('marker.txt').read(), open('/tmp/marker.txt').read()")
    assert before["success"], before
    yield
    session.assert_usable()
    after = session.run("marker, open('marker.txt').read(), open('/tmp/marker.txt').read()")
    assert after["result"] == before["result"]
    assert after["session_info"]["state"] == "kept"


@pytest.fixture(scope="module")
def session(target: Target) -> Iterator[Session]:
    """One session for a module's attacks that should leave it usable."""
    made = target.session(name=f"attacker {secrets.token_hex(4)}")
    yield made
    made.delete()


@pytest.fixture
def fresh_session(target: Target) -> Iterator[Session]:
    """A session of this test alone: for attacks that may cost it its sandbox."""
    made = target.session(name=f"attacker {secrets.token_hex(4)}")
    yield made
    made.delete()
