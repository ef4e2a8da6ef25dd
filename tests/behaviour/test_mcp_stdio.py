"""``power-interpreter stdio`` as a desktop client uses it: it finds or starts a server and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import anyio
import psutil
import pytest
from mcp import Client
from mcp.client.stdio import stdio_client

from support.mcp_transports import PROGRAM, stdio_parameters, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from support.server import Server

pytestmark = [pytest.mark.covers("R03")]

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
MODERN = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    }
}


def call(request_id: int, code: str) -> dict[str, Any]:
    params = {"name": "execute_code", "arguments": {"code": code}}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


def one_shot(data_dir: Path, *messages: object, **settings: str) -> tuple[dict[int, dict[str, Any]], str, int]:
    """Pipe messages in, close the input, and read all that comes out, by id; nothing else may be on stdout."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "DATA_DIR": str(data_dir), **settings}
    lines = "\n".join(m if isinstance(m, str) else json.dumps(m) for m in messages)
    done = subprocess.run(
        [str(PROGRAM), "stdio"], input=lines, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    return {answer["id"]: answer for answer in answers}, done.stderr, done.returncode


def processes_on(data_dir: Path) -> list[psutil.Process]:
    """Every process that names this DATA_DIR in its environment or its arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(data_dir) in " ".join((*process.cmdline(), *process.environ().values())):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def left_after(seconds: float, data_dir: Path) -> list[psutil.Process]:
    """What still runs after waiting for all of it to end."""
    _, alive = psutil.wait_procs(processes_on(data_dir), timeout=seconds)
    return alive


def test_piped_messages_are_answered_by_the_running_server(server: Server) -> None:
    answers, stderr, code = one_shot(
        server.data_dir, INITIALIZE, INITIALIZED, call(1, "40 + 2"), "not json", "[]", API_KEY=server.api_key
    )
    assert code == 0, stderr
    assert answers[0]["result"]["serverInfo"]["name"] == "power-interpreter"
    assert answers[1]["result"]["structuredContent"]["result"] == "42"
    assert answers[None]["error"]["code"] in {-32700, -32600}  # type: ignore[index]


def test_the_newer_revision_needs_no_handshake(server: Server) -> None:
    message = call(1, "40 + 2")
    message["params"] |= MODERN
    answers, stderr, code = one_shot(server.data_dir, message, API_KEY=server.api_key)
    assert code == 0, stderr
    assert answers[1]["result"]["structuredContent"]["result"] == "42"


def test_a_wrong_key_is_told_and_shows_nothing(server: Server) -> None:
    wrong = "pi_" + "x" * 40
    answers, stderr, _ = one_shot(server.data_dir, INITIALIZE, API_KEY=wrong)
    assert "API key" in answers[0]["error"]["message"]
    assert wrong not in json.dumps(answers) + stderr


def test_the_key_of_a_server_started_here_is_not_shown(tmp_path: Path) -> None:
    answers, stderr, code = one_shot(tmp_path / "data", INITIALIZE)
    assert code == 0, stderr
    assert "result" in answers[0]
    assert stderr  # the server's log
    assert (tmp_path / "data" / "api-key").read_text().strip() not in stderr


@pytest.mark.anyio
async def test_without_a_server_one_is_started_for_as_long_as_the_client_stays(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with anyio.fail_after(120):
        async with Client(stdio_client(stdio_parameters(data_dir)), mode="legacy") as client:
            first = await client.call_tool("execute_code", {"code": "x = 41\nx + 1"})
            assert text_of(first) == "42"
            # A second client of the same person shares the server and the session.
            async with Client(stdio_client(stdio_parameters(data_dir)), mode="2026-07-28") as other:
                assert text_of(await other.call_tool("execute_code", {"code": "x"})) == "41"
            assert text_of(await client.call_tool("execute_code", {"code": "x"})) == "41"
    assert not await anyio.to_thread.run_sync(left_after, 20, data_dir)


def test_killed_it_leaves_no_server_behind(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    parameters = stdio_parameters(data_dir)
    process = subprocess.Popen(
        [parameters.command, *parameters.args], env=parameters.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    assert answer["id"] == 0
    assert len(processes_on(data_dir)) > 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert not left_after(20, data_dir)


def test_a_server_that_cannot_start_is_an_error_on_both_streams(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "postgres").write_text("a file where the database's folder should be")
    answers, stderr, _ = one_shot(data_dir, INITIALIZE)
    assert "did not start" in answers[0]["error"]["message"]
    assert "postgres" in stderr


@pytest.mark.anyio
async def test_clients_that_start_together_share_one_server(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    ready: list[str] = []
    all_ready = anyio.Event()

    async def desktop_client() -> None:
        async with Client(stdio_client(stdio_parameters(data_dir)), mode="legacy") as client:
            made = await client.call_tool("create_session", {"name": "together"})
            assert not made.is_error, text_of(made)
            ready.append(text_of(made))
            if len(ready) == 3:
                all_ready.set()
            await all_ready.wait()
            listed = await client.call_tool("list_sessions", {})
            assert text_of(listed).count('"name": "together"') == 3

    with anyio.fail_after(120):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(desktop_client)
