"""MCP by every way in: what a client sees of code, sessions and files, and how a call is cancelled."""

from __future__ import annotations

import base64
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ImageContent, ResourceLink, TextContent, TextResourceContents

from support.mcp_transports import WAYS, Way, connect, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp import Client

    from support.server import Server

pytestmark = pytest.mark.anyio
every_way = pytest.mark.parametrize("way", WAYS)
both_revisions = pytest.mark.parametrize("way", ["http-2025-11-25", "http-2026-07-28"])

SLOW = """
import time
reached = "start"
print("running", flush=True)
try:
    time.sleep(60)
    reached = "end"
except KeyboardInterrupt:
    reached = "interrupted"
    raise
"""


@asynccontextmanager
async def new_session(client: Client) -> AsyncIterator[str]:
    made = await call(client, "create_session", name="test")
    session_id = structured(made)["session_id"]
    try:
        yield session_id
    finally:
        await call(client, "delete_session", session_id=session_id)


async def call(client: Client, tool: str, **arguments: Any) -> CallToolResult:
    return await client.call_tool(tool, arguments)


def structured(result: CallToolResult) -> dict[str, Any]:
    assert isinstance(result.structured_content, dict), result
    return result.structured_content


async def wait_until_free(client: Client, session_id: str) -> None:
    """Until nothing runs in the session any more; the deadline is the test's assertion."""
    with anyio.fail_after(15):
        while True:
            listed = structured(await call(client, "list_sessions", limit=1000))["sessions"]
            [state] = [s["sandbox"] for s in listed if s["session_id"] == session_id]
            if state != "busy":
                return
            await anyio.sleep(0.05)


@every_way
@pytest.mark.covers("C01", "C02", "R03", "S01")
async def test_code_runs_and_its_session_keeps_state(server: Server, way: Way) -> None:
    async with connect(way, server) as client, new_session(client) as session_id:
        first = await call(client, "execute_code", code="x = 20\nprint('hello')\nx + 1", session_id=session_id)
        assert not first.is_error
        answer = structured(first)
        assert (answer["success"], answer["stdout"], answer["result"]) == (True, "hello\n", "21")
        assert answer["error"] is None
        assert answer["session_info"]["session_id"] == session_id
        assert text_of(first) == "hello\n21"
        second = await call(client, "execute_code", code="x * 2", session_id=session_id)
        assert structured(second)["result"] == "40"
        assert structured(second)["execution_id"] != answer["execution_id"]


@both_revisions
@pytest.mark.covers("C01")
async def test_code_that_raises_is_a_tool_error_with_its_traceback(server: Server, way: Way) -> None:
    async with connect(way, server) as client, new_session(client) as session_id:
        result = await call(client, "execute_code", code="def f():\n    return {}['k']\nf()", session_id=session_id)
        assert result.is_error
        answer = structured(result)
        assert answer["success"] is False
        assert (answer["error"]["type"], answer["error"]["message"]) == ("KeyError", "'k'")
        assert any("in f" in line for line in answer["error"]["traceback"])
        assert "KeyError: 'k'" in text_of(result)
        after = await call(client, "execute_code", code="f.__name__", session_id=session_id)
        assert structured(after)["result"] == "'f'"


@both_revisions
@pytest.mark.covers("C01", "C05", "C06")
async def test_charts_are_pictures_and_files_are_links(server: Server, way: Way) -> None:
    code = "plt.plot([1, 4, 9])\nplt.savefig('curve.png')\npd.DataFrame({'a': [1]}).to_csv('table.csv', index=False)"
    async with connect(way, server) as client, new_session(client) as session_id:
        result = await call(client, "execute_code", code=code, session_id=session_id)
        answer = structured(result)
        [image] = [block for block in result.content if isinstance(block, ImageContent)]
        assert base64.b64decode(image.data).startswith(b"\x89PNG")
        assert image.mime_type == "image/png"
        assert all(chart["data_base64"] is None for chart in answer["charts"] if "data_base64" in chart)
        links = {block.name: block for block in result.content if isinstance(block, ResourceLink)}
        assert set(links) == {"curve.png", "table.csv"}
        assert str(links["table.csv"].uri) == f"kernel://{session_id}/table.csv"
        [file] = [file for file in answer["files"] if file["name"] == "table.csv"]
        assert file["url"] in text_of(result)
        async with httpx2.AsyncClient() as http:
            assert (await http.get(file["url"])).text == "a\n1\n"
        read = await client.read_resource(f"kernel://{session_id}/table.csv")
        [content] = read.contents
        assert isinstance(content, TextResourceContents)
        assert content.text == "a\n1\n"


@pytest.mark.covers("C01")
@pytest.mark.parametrize("new", ["", "0"])
async def test_an_empty_session_id_makes_a_session(server: Server, new: str) -> None:
    async with connect("http-2026-07-28", server) as client:
        info = structured(await call(client, "execute_code", code="1", session_id=new))["session_info"]
        assert info["created"] is True
        assert re.fullmatch(r"ses_[a-z2-7]{26}", info["session_id"])
        await call(client, "delete_session", session_id=info["session_id"])


@pytest.mark.covers("F03")
@pytest.mark.parametrize("listing", ["list_files", "list_session_files"])
async def test_files_are_written_listed_read_and_deleted(server: Server, listing: str) -> None:
    async with connect("http-2026-07-28", server) as client, new_session(client) as session_id:
        raw = bytes(range(256))
        await call(client, "write_file", session_id=session_id, path="in/text.txt", content="naïve\n")
        wrote = await call(
            client,
            "write_file",
            session_id=session_id,
            path="in/raw.bin",
            binary_base64=base64.b64encode(raw).decode(),
        )
        assert structured(wrote)["size"] == 256
        code = "open('in/text.txt', encoding='utf-8').read() + str(sum(open('in/raw.bin', 'rb').read()))"
        ran = await call(client, "execute_code", session_id=session_id, code=code)
        assert structured(ran)["result"] == repr(f"naïve\n{sum(raw)}")
        listed = await call(client, listing, session_id=session_id, path="in")
        assert {f["path"] for f in structured(listed)["files"]} == {"in/text.txt", "in/raw.bin"}
        text = await call(client, "read_file", session_id=session_id, path="in/text.txt")
        assert text_of(text) == "naïve\n"
        binary = structured(await call(client, "read_file", session_id=session_id, path="in/raw.bin"))
        assert base64.b64decode(binary["content_base64"]) == raw
        part = structured(await call(client, "read_file", session_id=session_id, path="in/raw.bin", max_bytes=10))
        assert (base64.b64decode(part["content_base64"]), part["size"], part["truncated"]) == (raw[:10], 256, True)
        await call(client, "delete_file", session_id=session_id, path="in/raw.bin")
        gone = await call(client, "read_file", session_id=session_id, path="in/raw.bin")
        assert (gone.is_error, structured(gone)["code"]) == (True, "not_found")


@pytest.mark.covers("F03")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"path": "a", "content": "x", "binary_base64": "eA=="}, "invalid_argument"),
        ({"path": "a"}, "invalid_argument"),
        ({"path": "a", "binary_base64": "not base64!"}, "invalid_argument"),
        ({"path": "../a", "content": "x"}, "invalid_argument"),
        ({"path": "/etc/a", "content": "x"}, "invalid_argument"),
        ({"content": "x"}, "invalid_argument"),
        ({"path": "a", "content": "x", "session_id": "ses_" + "a" * 26}, "not_found"),
    ],
)
async def test_a_wrong_call_says_what_to_change(server: Server, arguments: dict[str, str], code: str) -> None:
    async with connect("http-2026-07-28", server) as client, new_session(client) as session_id:
        result = await call(client, "write_file", **{"session_id": session_id, **arguments})
        assert result.is_error
        error = structured(result)
        assert error["code"] == code
        assert error["remedy"]
        assert error["retryable"] is False
        assert text_of(result) == f"{code}: {error['message']} — {error['remedy']}"


@both_revisions
@pytest.mark.covers("C10")
@pytest.mark.parametrize("seconds", [0, -1, 1e9])
async def test_a_timeout_out_of_bounds_is_refused(server: Server, way: Way, seconds: float) -> None:
    async with connect(way, server) as client:
        result = await call(client, "execute_code", code="1", timeout=seconds)
        assert (result.is_error, structured(result)["code"]) == (True, "invalid_argument")
        assert "timeout" in text_of(result)


@both_revisions
@pytest.mark.covers("C13")
async def test_the_same_execution_id_runs_once(server: Server, way: Way) -> None:
    async with connect(way, server) as client, new_session(client) as session_id:
        arguments = {"code": "n = globals().get('n', 0) + 1\nn", "session_id": session_id, "execution_id": session_id}
        first = structured(await call(client, "execute_code", **arguments))
        again = structured(await call(client, "execute_code", **arguments))
        assert (first["result"], again["result"]) == ("1", "1")
        assert (first["replayed"], again["replayed"]) == (False, True)
        other = await call(client, "execute_code", **{**arguments, "code": "2"})
        assert (other.is_error, structured(other)["code"]) == (True, "conflict")


@every_way
async def test_an_unknown_tool_is_a_protocol_error(server: Server, way: Way) -> None:
    async with connect(way, server) as client:
        with pytest.raises(MCPError) as caught:
            await call(client, "no_such_tool")
        assert caught.value.code == -32602


@every_way
async def test_progress_shows_output_as_it_comes(server: Server, way: Way) -> None:
    seen: list[tuple[float, str]] = []
    first_line = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        seen.append((progress, message or ""))
        if "one" in (message or ""):
            first_line.set()

    # The code ends once the test has seen its first line: proof that the line came before the end.
    code = "import os, time\nprint('one', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.02)\nprint('two')"
    async with connect(way, server) as client, connect("http-2026-07-28", server) as other, new_session(client) as sid:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                done: list[CallToolResult] = []

                async def run() -> None:
                    arguments = {"code": code, "session_id": sid}
                    done.append(await client.call_tool("execute_code", arguments, progress_callback=on_progress))

                group.start_soon(run)
                await first_line.wait()
                wrote = await call(other, "write_file", session_id=sid, path="go", content="")
                assert not wrote.is_error, text_of(wrote)
        assert structured(done[0])["stdout"] == "one\ntwo\n"
        assert "".join(message for _, message in seen) == "started\none\ntwo\n"
        assert [number for number, _ in seen] == sorted({number for number, _ in seen})


@every_way
async def test_cancelling_interrupts_the_code_and_keeps_the_state(server: Server, way: Way) -> None:
    async with connect(way, server) as client, new_session(client) as session_id:
        await call(client, "execute_code", code="before = 1", session_id=session_id)
        running = anyio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            if "running" in (message or ""):
                running.set()

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:

                async def run() -> None:
                    arguments = {"code": SLOW, "session_id": session_id}
                    await client.call_tool("execute_code", arguments, progress_callback=on_progress)

                group.start_soon(run)
                await running.wait()
                group.cancel_scope.cancel()
        began = time.monotonic()
        await wait_until_free(client, session_id)
        after = await call(client, "execute_code", code="(before, reached)", session_id=session_id)
        assert structured(after)["result"] == "(1, 'interrupted')"
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
async def test_a_closed_connection_interrupts_the_code(server: Server, version: str) -> None:
    async with connect("http-2026-07-28", server) as client, new_session(client) as session_id:
        async with httpx2.AsyncClient(headers=server.headers, timeout=30) as http:
            body = tool_call("execute_code", {"code": SLOW, "session_id": session_id}, version, progress="p")
            async with http.stream("POST", server.url + "/mcp", **body) as response:
                with anyio.fail_after(20):
                    async for line in response.aiter_lines():
                        if "running" in line:
                            break
        await wait_until_free(client, session_id)
        after = await call(client, "execute_code", code="reached", session_id=session_id)
        assert structured(after)["result"] == "'interrupted'"


def tool_call(tool: str, arguments: dict[str, Any], version: str, *, progress: str) -> dict[str, Any]:
    """One tools/call as bytes and headers, for httpx2."""
    meta: dict[str, Any] = {"progressToken": progress}
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": version}
    if version == "2026-07-28":
        headers |= {"mcp-method": "tools/call", "mcp-name": tool}
        meta |= {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    return {"headers": headers, "json": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}}


async def test_instructions_and_content_types_reach_the_client(server: Server) -> None:
    async with connect("http-2025-11-25", server) as client:
        assert client.server_info is not None
        assert client.server_info.name == "power-interpreter"
        assert "execute_code" in (client.instructions or "")
        listed = await call(client, "list_sessions")
        assert all(isinstance(block, TextContent) for block in listed.content)
