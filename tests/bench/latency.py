"""execute `1+1` in a warm session against the SDK's no-op tool, and session start to first result."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from bench.report import Sample, heading, verdict
from support.server import Server, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

ROUNDS = 300
WARM_UP = 20
SESSIONS = 30
MODES = {"2025-11-25": "legacy", "2026-07-28": "2026-07-28"}


@asynccontextmanager
async def mcp_client(url: str, mode: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Client]:
    """The SDK's own client over streamable HTTP."""
    async with (
        httpx2.AsyncClient(headers=headers or {}, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@asynccontextmanager
async def noop_server() -> AsyncIterator[str]:
    """The floor's server in a process of its own; yields its MCP url."""
    port = free_port()
    program = Path(__file__).with_name("noop_server.py")
    process = subprocess.Popen([sys.executable, str(program), str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait()


async def execute_against_noop(server: Server) -> None:
    """In turn, call by call: the floor's no-op tool, our execute_code, and our REST route."""
    for revision, mode in MODES.items():
        heading(f"execute 1+1 in a warm session, MCP {revision} (interleaved with the SDK's no-op tool)")
        async with AsyncExitStack() as stack:
            floor = await stack.enter_async_context(mcp_client(await stack.enter_async_context(noop_server()), mode))
            ours = await stack.enter_async_context(mcp_client(server.url + "/mcp", mode, server.headers))
            rest = await stack.enter_async_context(httpx2.AsyncClient(base_url=server.url, headers=server.headers))
            await interleave(floor, ours, rest)


async def interleave(floor: Client, ours: Client, rest: httpx2.AsyncClient) -> None:
    """One call of each, ROUNDS times, so that a drift of the machine's speed meets all three alike."""
    noop, execute = Sample("SDK no-op tool (floor)"), Sample("execute_code 1+1")
    post = Sample("POST /api/execute 1+1")
    for i in range(ROUNDS + WARM_UP):
        if i == WARM_UP:
            for sample in (noop, execute, post):
                sample.seconds.clear()
        await noop.time(lambda: floor.call_tool("noop", {}))
        await execute.time(lambda: ours.call_tool("execute_code", {"code": "1+1"}))
        await post.time(lambda: rest.post("/api/execute", json={"code": "1+1"}))
    check = await ours.call_tool("execute_code", {"code": "1+1"})
    assert check.structured_content is not None
    assert check.structured_content["result"] == "2"
    for sample in (noop, execute, post):
        print(sample.line())
    verdict("execute_code / no-op, p50", execute.p50 / noop.p50, 2.0, "x")
    verdict("REST p50", post.p50, 5.0, " ms")


async def session_start(server: Server) -> None:
    """A new session's first result: create, execute, one after the other, with a pause that lets the pool refill."""
    heading("new session -> first result (REST: POST /api/sessions, then POST /api/execute)")
    sample = Sample("session start -> first result, warm pool")
    async with httpx2.AsyncClient(base_url=server.url, headers=server.headers, timeout=60) as rest:
        for _ in range(SESSIONS):
            created: list[str] = []

            async def start_one(created: list[str] = created) -> None:
                session = (await rest.post("/api/sessions", json={})).json()["session_id"]
                created.append(session)
                answer = await rest.post("/api/execute", json={"code": "1+1", "session_id": session})
                assert answer.json()["result"] == "2", answer.text

            await sample.time(start_one)
            await rest.delete(f"/api/sessions/{created[0]}")
            await warm_pool_is_full(rest)
    print(sample.line())
    verdict("session start p50", sample.p50, 30.0, " ms")


async def warm_pool_is_full(rest: httpx2.AsyncClient) -> None:
    """Wait until the server's own gauge shows a warm sandbox again."""
    for _ in range(400):
        lines = (await rest.get("/metrics")).text.splitlines()
        if any(
            line.startswith("interpreter_sandboxes{") and 'state="warm"' in line and float(line.split()[-1]) >= 1
            for line in lines
        ):
            return
        await asyncio.sleep(0.05)
    raise RuntimeError('no warm sandbox after 20 s: does /metrics show interpreter_sandboxes{state="warm"}?')
