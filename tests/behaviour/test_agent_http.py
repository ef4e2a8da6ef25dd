"""The agent's HTTP, spoken by hand: what it refuses, and that it lives on."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import anyio
import pytest

from interpreter_sandbox.protocol import ExecuteRequest
from support import agent as agents

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio
GET = b"GET /health HTTP/1.1\r\nhost: agent\r\n"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[agents.Agent]:
    with agents.running(tmp_path_factory.mktemp("agent")) as started:
        yield started


class Wire:
    """A connection without a client library."""

    def __init__(self, agent: agents.Agent) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(agent.path)
        self._token = agent.signer.for_sandbox(agents.UID)()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def request(self, method: str, target: str, body: bytes = b"", *, token: bool = True) -> bytes:
        head = f"{method} {target} HTTP/1.1\r\nhost: agent\r\ncontent-length: {len(body)}\r\n"
        if token:
            head += f"authorization: Bearer {self._token}\r\n"
        return head.encode() + b"\r\n" + body

    def answer(self) -> tuple[int, bytes]:
        """The status and the body of an answer with a length."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
        while len(body) < length:
            body += self._more()
        return int(head.split()[1]), body

    def is_closed(self) -> bool:
        try:
            return self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> bytes:
        data = self._socket.recv(1 << 16)
        assert data, "the agent closed the connection"
        return data

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def wire(agent: agents.Agent) -> Iterator[Wire]:
    opened = Wire(agent)
    yield opened
    opened.close()
    with agent_answers(agent) as status:
        assert status == 200


class agent_answers:  # noqa: N801 - reads as a statement
    """Whether a fresh connection is served."""

    def __init__(self, agent: agents.Agent) -> None:
        self._wire = Wire(agent)

    def __enter__(self) -> int:
        self._wire.send(GET + b"\r\n")
        return self._wire.answer()[0]

    def __exit__(self, *_: object) -> None:
        self._wire.close()


HEAD = b"x: " + b"y" * (1 << 17)
REFUSED = {
    "a head without an end": GET + HEAD,
    "a long head": GET + HEAD + b"\r\n\r\n",
    "many headers": GET + b"a: b\r\n" * 20_000 + b"\r\n",
    "a long target": b"GET /" + b"a" * (1 << 17) + b" HTTP/1.1\r\nhost: agent\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00 hello\r\n\r\n",
    "another protocol": GET + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "a bad length": GET + b"content-length: -1\r\n\r\n",
    "two framings": GET + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    "a chunk without a size": b"POST /restart HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_acceptable_request_is_refused_and_closed(wire: Wire, data: bytes) -> None:
    try:
        wire.send(data)
        status, _ = wire.answer()
    except (BrokenPipeError, ConnectionResetError):
        return  # it was closed before all of it was sent
    assert status in {400, 401}
    assert wire.is_closed()


@pytest.mark.parametrize("rest", [b"0\r\nx: y\r\n\r\n", b"0\r\nx: " + b"y" * (1 << 20), b"1;" + b"e" * (1 << 20)])
def test_trailers_and_endless_framing_are_refused(agent: agents.Agent, wire: Wire, rest: bytes) -> None:
    token = agent.signer.for_sandbox(agents.UID)().encode()
    head = b"PUT /files/content?path=trailers HTTP/1.1\r\nauthorization: Bearer " + token + b"\r\n"
    wire.send(head + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    try:
        wire.send(rest)
        status, _ = wire.answer()
    except (BrokenPipeError, ConnectionResetError):
        return
    assert status == 400
    assert wire.is_closed()
    assert not (agent.workspace / "trailers").exists()


def test_a_second_request_before_the_answer_is_refused(agent: agents.Agent, wire: Wire) -> None:
    wire.send(wire.request("GET", "/stats") * 2)
    assert wire.answer()[0] == 400
    assert wire.is_closed()


def test_a_refused_upload_is_read_and_its_connection_serves_on(wire: Wire) -> None:
    wire.send(wire.request("PUT", "/files/content?path=a", b"x" * (4 << 20), token=False))
    status, body = wire.answer()
    assert (status, json.loads(body)["error"]["code"]) == (401, "unauthorized")
    wire.send(wire.request("GET", "/files"))
    assert wire.answer()[0] == 200


def test_a_request_in_single_bytes_is_understood(agent: agents.Agent, wire: Wire) -> None:
    for byte in wire.request("PUT", "/files/content?path=slow", b"abc"):
        wire.send(bytes([byte]))
    assert wire.answer()[0] == 200
    assert (agent.workspace / "slow").read_bytes() == b"abc"


async def test_a_client_that_leaves_in_the_middle_of_an_upload_leaves_nothing(agent: agents.Agent) -> None:
    before = {path.name for path in agent.workspace.iterdir()}
    wire = Wire(agent)
    wire.send(wire.request("PUT", "/files/content?path=half", b"x" * (1 << 20))[: 1 << 19])
    with anyio.fail_after(10):
        while {path.name for path in agent.workspace.iterdir()} == before:  # noqa: ASYNC110 - the agent tells nobody
            await anyio.sleep(0.01)
        wire.close()
        while {path.name for path in agent.workspace.iterdir()} != before:  # noqa: ASYNC110 - nor of its end
            await anyio.sleep(0.01)


async def test_a_long_cell_is_followed_while_it_runs(agent: agents.Agent) -> None:
    async with agent.client() as client:
        await agents.wait_ready(client)
        code = "import time\nprint('begun')\nwhile True: time.sleep(0.01)"
        async for event in client.execute(ExecuteRequest("exe_followed", code, 60.0)):
            if event.event == "stdout":
                await client.interrupt("exe_followed")
        assert event.data["status"] == "interrupted"


async def test_a_result_is_there_whatever_follows_it(agent: agents.Agent) -> None:
    async with agent.client() as client:
        await agents.wait_ready(client)
        outcome = await agents.run(client, "print('first')\nplt.plot([1])\n'second'")
    assert outcome.names == ["started", "stdout", "result", "display", "done"]
