"""Hostile MCP clients against the running server. Every refusal is followed by a good call that must work."""

from __future__ import annotations

import json
import secrets
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import httpx2
import psutil
import pytest

from support.mcp_transports import connect
from support.principals import second_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

pytestmark = pytest.mark.anyio

VERSIONS = ("2025-11-25", "2026-07-28")
DEEP = "[" * 100_000 + "]" * 100_000
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
MAX_STREAMS_OF_ONE_KEY = 64  # docs/adr/0003


@pytest.fixture
def http(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, headers={**server.headers, **ACCEPT}, timeout=30) as client:
        yield client


def headers(version: str, tool: str = "execute_code") -> dict[str, str]:
    """What a client of that revision sends beside a tools/call."""
    modern = {"mcp-method": "tools/call", "mcp-name": tool} if version == "2026-07-28" else {}
    return {"mcp-protocol-version": version, **modern}


def message(version: str, arguments: Any, *, tool: str = "execute_code", request_id: Any = 1) -> str:
    """One tools/call in that revision."""
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if version == "2026-07-28":
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "hostile", "version": "1"},
        }
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params})


def post(http: httpx2.Client, version: str, body: str | bytes, **more: str) -> tuple[int, dict[str, Any]]:
    """The status and the JSON-RPC message, whether it came as JSON or as an event."""
    response = http.post("/mcp", content=body, headers={**headers(version), **more})
    text = response.text
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        [text] = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return response.status_code, json.loads(text)


def assert_works(http: httpx2.Client, version: str) -> None:
    """The positive control: the same client's next good call."""
    status, answer = post(http, version, message(version, {"code": "6 * 7"}))
    assert status == 200
    assert answer["result"]["structuredContent"]["result"] == "42"


BAD_MESSAGES: dict[str, str | bytes] = {
    "not JSON": "{nope",
    "empty": "",
    "not UTF-8": b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
    "deep": DEEP,
    "a number of 100,000 digits": '{"jsonrpc":"2.0","method":"tools/list","id":' + "9" * 100_000 + "}",
    "a batch": "[]",
    "a string": '"tools/call"',
    "no method": '{"jsonrpc":"2.0","id":1}',
    "a number as method": '{"jsonrpc":"2.0","id":1,"method":5}',
    "an object as id": '{"jsonrpc":"2.0","id":{},"method":"tools/list"}',
    "null as id": '{"jsonrpc":"2.0","id":null,"method":"tools/list"}',
    "a list as params": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}',
}


@pytest.mark.attack("MC01")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_bad_message_is_a_json_rpc_error(http: httpx2.Client, version: str, name: str) -> None:
    status, answer = post(http, version, BAD_MESSAGES[name])
    assert status == 400
    assert answer["error"]["code"] in {-32700, -32600, -32602}
    assert len(json.dumps(answer)) < 2000
    assert "Traceback" not in json.dumps(answer)
    assert_works(http, version)


BAD_ARGUMENTS = {
    "deep code": f'{{"code": {DEEP}}}',
    "code as object": '{"code": {"a": 1}}',
    "no code": "{}",
    "a list": "[1]",
    "timeout NaN": '{"code": "1", "timeout": NaN}',
    "timeout Infinity": '{"code": "1", "timeout": Infinity}',
    "timeout as text": '{"code": "1", "timeout": "soon"}',
    "timeout of 400 digits": '{"code": "1", "timeout": ' + "9" * 400 + "}",
    "half a surrogate pair": '{"code": "\\ud800"}',
    "session id as list": '{"code": "1", "session_id": ["default"]}',
    "session id of a megabyte": '{"code": "1", "session_id": "' + "s" * 1_000_000 + '"}',
    "NUL in the session id": '{"code": "1", "session_id": "a\\u0000b"}',
}


@pytest.mark.attack("MC01")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_an_error_that_shows_nothing(http: httpx2.Client, version: str, name: str) -> None:
    body = message(version, "ARGUMENTS").replace('"ARGUMENTS"', BAD_ARGUMENTS[name])
    _, answer = post(http, version, body)
    text = json.dumps(answer)
    if "error" in answer:
        assert answer["error"]["code"] in {-32700, -32600, -32602}
    else:
        assert answer["result"]["isError"] is True
        assert answer["result"]["structuredContent"]["code"] in {"invalid_argument", "not_found"}
    assert len(text) < 4000
    assert "site-packages" not in text
    assert "pydantic" not in text
    assert_works(http, version)


@pytest.mark.attack("MC02")
def test_a_body_of_two_gigabytes_is_refused_before_it_is_sent(server: Server, http: httpx2.Client) -> None:
    where = urlsplit(server.url)
    assert where.hostname
    with socket.create_connection((where.hostname, where.port or 80), timeout=10) as connection:
        head = f"POST /mcp HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {server.api_key}\r\n"
        head += "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        connection.sendall(f"{head}Content-Length: {2 << 30}\r\n\r\n".encode() + b"{" * 1000)
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")
    assert_works(http, "2025-11-25")


@pytest.mark.attack("MC02")
@pytest.mark.parametrize("version", VERSIONS)
def test_a_body_without_a_length_is_cut_off_at_the_limit(server: Server, http: httpx2.Client, version: str) -> None:
    sent = 0
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 2 << 30:
            sent += 1 << 20
            yield b" " * (1 << 20)

    try:
        response = http.post("/mcp", content=endless(), headers=headers(version))
    except httpx2.WriteError:  # the server closed while we were still sending, which is its right
        pass
    else:
        assert response.status_code == 413
    assert sent > 32 << 20
    assert process.memory_info().rss - before < 128 << 20  # what came after the limit was not kept
    assert_works(http, version)


@pytest.mark.attack("MC02")
@pytest.mark.parametrize("version", VERSIONS)
def test_ten_megabytes_of_code_are_not_too_large(http: httpx2.Client, version: str) -> None:
    code = "answer = 42\nanswer #"
    code += "x" * ((10 << 20) - len(code))
    _, answer = post(http, version, message(version, {"code": code}))
    assert answer["result"]["structuredContent"]["result"] == "42"
    _, answer = post(http, version, message(version, {"code": code + "x"}))
    assert answer["result"]["structuredContent"]["code"] == "too_large"


@pytest.mark.attack("MC03")
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("execute_code", {"code": "1"}),
        ("list_files", {}),
        ("read_file", {"path": "secret.txt"}),
        ("write_file", {"path": "secret.txt", "content": "mine"}),
        ("delete_file", {"path": "secret.txt"}),
        ("delete_session", {}),
    ],
)
async def test_another_tenants_session_is_like_one_that_never_was(
    server: Server, tool: str, arguments: dict[str, str]
) -> None:
    unknown = "ses_" + "a" * 26
    async with (
        connect("http-2026-07-28", server) as owner,
        connect("http-2026-07-28", server, api_key=second_key(server)) as other,
    ):
        made = await owner.call_tool("create_session", {"name": "private"})
        mine = made.structured_content["session_id"]
        await owner.call_tool("write_file", {"session_id": mine, "path": "secret.txt", "content": "secret"})
        foreign = await other.call_tool(tool, {**arguments, "session_id": mine})
        never = await other.call_tool(tool, {**arguments, "session_id": unknown})
        assert foreign.is_error
        assert foreign.structured_content["code"] == "not_found"
        assert json.dumps(foreign.structured_content).replace(mine, unknown) == json.dumps(never.structured_content)
        kept = await owner.call_tool("read_file", {"session_id": mine, "path": "secret.txt"})
        assert kept.structured_content["content"] == "secret"
        await owner.call_tool("delete_session", {"session_id": mine})


@pytest.mark.attack("MC03")
async def test_an_event_stream_takes_messages_from_its_owner_only(server: Server) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with (
        httpx2.AsyncClient(base_url=server.url, timeout=20) as http,
        http.stream("GET", "/mcp/sse", headers=server.headers) as stream,
    ):
        lines = stream.aiter_lines()
        path = [line async for line in _until(lines, "data: ")][-1].removeprefix("data: ")
        theirs = {"Authorization": f"Bearer {second_key(server)}"}
        assert (await http.post(path, json=ping, headers=theirs)).status_code == 404
        unknown = path.split("=")[0] + "=" + "0" * 32
        assert (await http.post(unknown, json=ping, headers=server.headers)).status_code == 404
        assert (await http.post(path, json=ping)).status_code == 401
        assert (await http.post(path, json=ping, headers=server.headers)).status_code == 202


async def _until(lines: Any, start: str) -> Any:
    async for line in lines:
        yield line
        if line.startswith(start):
            return


@pytest.mark.attack("MC04")
@pytest.mark.parametrize("path", ["/mcp", "/mcp/sse", "/mcp/messages"])
@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Origin", "https://evil.example", 403),
        ("Origin", "null", 403),
        ("Host", "evil.example", 421),
        ("Host", "127.0.0.1.evil.example", 421),
    ],
)
def test_an_evil_origin_or_host_is_refused(http: httpx2.Client, path: str, name: str, value: str, status: int) -> None:
    body = message("2025-11-25", {"code": "1"})
    refused = http.post(path, content=body, headers={**headers("2025-11-25"), name: value})
    assert refused.status_code == status
    assert refused.headers["content-type"] == "application/problem+json"
    if path != "/mcp/messages":
        own = {"Origin": str(http.base_url).rstrip("/")}
        assert http.post(path, content=body, headers={**headers("2025-11-25"), **own}).status_code == 200


@pytest.mark.attack("MC06")
def test_an_unknown_revision_is_refused_with_the_known_ones(http: httpx2.Client) -> None:
    body = message("2026-07-28", {"code": "1"}).replace("2026-07-28", "2031-01-01")
    status, answer = post(http, "2026-07-28", body, **{"mcp-protocol-version": "2031-01-01"})
    assert status == 400
    assert answer["error"]["data"]["supported"] == ["2026-07-28"]
    offer = {"protocolVersion": "2031-01-01", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    handshake = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": offer})
    _, answer = post(http, "2025-11-25", handshake)
    assert answer["result"]["protocolVersion"] == "2025-11-25"  # the server's latest: the client may go
    assert_works(http, "2026-07-28")


@pytest.mark.attack("MC06")
async def test_nobody_cancels_the_call_of_another(server: Server) -> None:
    """By the same request id from another client of the same key, and with the victim's client id from another key."""
    version = "2025-11-25"
    name = secrets.token_hex(8)
    code = "import os, time\nprint('running', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.02)\n'finished'"
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    async with httpx2.AsyncClient(base_url=server.url, headers={**server.headers, **ACCEPT}, timeout=60) as http:
        body = message(version, {"code": "1", "session_id": ""})
        made = _event(await http.post("/mcp", content=body, headers=headers(version)))
        session = made["result"]["structuredContent"]["session_info"]["session_id"]
        call = json.loads(message(version, {"code": code, "session_id": session}, request_id=7))
        call["params"]["_meta"] = {"progressToken": "p"}
        victim = {**headers(version), "mcp-session-id": name}
        async with http.stream("POST", "/mcp", json=call, headers=victim) as stream:
            lines = stream.aiter_lines()
            async for line in lines:
                if "running" in line:
                    break
            theirs = {"Authorization": f"Bearer {second_key(server)}"}
            for attempt in ({**victim, **theirs}, {**victim, "mcp-session-id": name + "x"}, headers(version)):
                assert (await http.post("/mcp", json=cancel, headers=attempt)).status_code == 202
            write = {"session_id": session, "path": "go", "content": ""}
            await http.post("/mcp", content=message(version, write, tool="write_file"), headers=headers(version))
            with anyio.fail_after(20):
                rest = [line async for line in lines]
        answer = json.loads([line for line in rest if line.startswith("data: {")][-1].removeprefix("data: "))
        assert answer["result"]["structuredContent"]["result"] == "'finished'"

        # The control: the victim's own cancellation does reach the call.
        call["params"]["arguments"]["code"] = "print('running', flush=True)\nimport time\ntime.sleep(60)"
        async with http.stream("POST", "/mcp", json=call, headers=victim) as stream:
            lines = stream.aiter_lines()
            async for line in lines:
                if "running" in line:
                    break
            assert (await http.post("/mcp", json=cancel, headers=victim)).status_code == 202
            with anyio.fail_after(20):
                rest = [line async for line in lines]
        assert any('"code":-32800' in line for line in rest)


def _event(response: httpx2.Response) -> dict[str, Any]:
    [line] = [line for line in response.text.splitlines() if line.startswith("data: {")]
    answer: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return answer


@pytest.mark.attack("MC07")
@pytest.mark.parametrize("version", VERSIONS)
async def test_clients_with_the_same_ids_get_their_own_answers(server: Server, version: str) -> None:
    keys = [server.api_key, second_key(server)]
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx2.AsyncClient(
                    base_url=server.url, headers={**ACCEPT, "Authorization": f"Bearer {key}"}, timeout=60
                )
            )
            for key in keys
        ]
        answers: dict[int, list[str]] = {0: [], 1: []}

        async def ask(which: int) -> None:
            for turn in range(20):
                body = message(version, {"code": f"({which}, {turn})"}, request_id=1)
                response = await clients[which].post("/mcp", content=body, headers=headers(version))
                data = response.text
                answer = json.loads(data) if data.startswith("{") else _event(response)
                answers[which].append(answer["result"]["structuredContent"]["result"])

        async with anyio.create_task_group() as group:
            group.start_soon(ask, 0)
            group.start_soon(ask, 1)
    for which, seen in answers.items():
        assert seen == [f"({which}, {turn})" for turn in range(20)]


@pytest.mark.attack("MC09")
async def test_idle_streams_are_capped_and_given_back(server: Server) -> None:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=server.url, headers=server.headers, timeout=30, limits=limits) as http:
        assert (await http.get("/mcp", headers=ACCEPT)).status_code == 405  # no idle stream to open there at all
        async with AsyncExitStack() as streams:
            statuses = [
                (await streams.enter_async_context(http.stream("GET", "/mcp/sse"))).status_code
                for _ in range(MAX_STREAMS_OF_ONE_KEY + 20)
            ]
            assert set(statuses) == {200, 429}
            assert statuses.count(200) <= MAX_STREAMS_OF_ONE_KEY
            async with connect("http-2025-11-25", server) as client:
                assert not (await client.call_tool("list_sessions", {})).is_error
        with anyio.fail_after(20):
            while True:
                async with http.stream("GET", "/mcp/sse") as again:
                    if again.status_code == 200:
                        break
                    assert again.headers["retry-after"]
                await anyio.sleep(0.1)
