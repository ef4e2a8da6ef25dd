"""Starting, refusing to start, ending and being killed: the program as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import psutil
import pytest

from support import rest
from support import server as real_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.server import Server

PROGRAM = str(Path(sys.prefix) / "bin" / "power-interpreter")
END_SECONDS = 5.0


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(data_dir: Path) -> Iterator[Callable[..., Server]]:
    """Start servers on this test's DATA_DIR; whatever still runs at the end is ended."""
    started: list[Server] = []

    def one(**env: str) -> Server:
        started.append(real_server.start(data_dir, env))
        return started[-1]

    yield one
    for server in started:
        server.stop()


def command(data_dir: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """One command that ends by itself, as somebody types it."""
    settings = {"PATH": os.environ["PATH"], "HOME": "/", "DATA_DIR": str(data_dir), **env}
    return subprocess.run([PROGRAM, *arguments], env=settings, capture_output=True, text=True, timeout=60, check=False)


def refused(done: subprocess.CompletedProcess[str], status: int) -> str:
    """The message of a command that must have ended with this status and without a traceback."""
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


def family(server: Server) -> list[psutil.Process]:
    """The server's process and everything that it started."""
    process = psutil.Process(server.process.pid)
    return [process, *process.children(recursive=True)]


def gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after so long; a zombie does not."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def postgres_of(server: Server) -> psutil.Process:
    """The embedded Postgres's own first process."""
    (found,) = [child for child in psutil.Process(server.process.pid).children() if child.name() == "postgres"]
    return found


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_order(start: Callable[..., Server], data_dir: Path, sig: signal.Signals) -> None:
    server = start()
    running = family(server)
    assert any(process.name() == "postgres" for process in running)
    assert json.loads((data_dir / "server.json").read_text()) == {"url": server.url, "pid": server.process.pid}
    began = time.monotonic()
    assert server.stop(sig) == 0
    assert time.monotonic() - began < END_SECONDS
    assert gone(running, 0) == []
    assert not (data_dir / "server.json").exists()
    assert "Traceback" not in server.output()


def test_streams_and_running_code_do_not_hold_up_the_end(start: Callable[..., Server]) -> None:
    server = start()
    running = family(server)
    with rest.client(server) as http, http.stream("GET", "/mcp/sse", headers={"Accept": "text/event-stream"}) as idle:
        assert idle.status_code == 200
        execution = threading.Thread(target=_sleep_in_the_sandbox, args=(server,))
        execution.start()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < END_SECONDS
        execution.join(10)
    assert gone(running, 0) == []


def _sleep_in_the_sandbox(server: Server) -> None:
    try:
        with rest.client(server) as http:
            http.post("/api/execute", json={"code": "import time; time.sleep(60)"})
    except httpx2.HTTPError:
        pass  # the server ends under the call: that is the test


def test_a_second_ctrl_c_ends_at_once(start: Callable[..., Server]) -> None:
    server = start()
    running = family(server)
    with rest.client(server) as http, http.stream("GET", "/mcp/sse", headers={"Accept": "text/event-stream"}) as idle:
        assert idle.status_code == 200
        server.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < END_SECONDS
    assert gone(running, 0) == []


def test_ctrl_c_while_it_starts(data_dir: Path) -> None:
    server = real_server.spawn(data_dir)
    deadline = time.monotonic() + 30
    while not (data_dir / "postgres").exists():
        assert time.monotonic() < deadline, server.output()
        time.sleep(0.005)
    running = family(server)
    assert server.stop() == 0, server.output()
    assert gone(running, 0) == []
    assert "Traceback" not in server.output()
    real_server.start(data_dir).stop()


def test_a_killed_server_leaves_nothing_and_loses_nothing(start: Callable[..., Server], data_dir: Path) -> None:
    server = start()
    key = rest.make_key(server, "kept", "kept")
    with rest.client(server, key) as http:
        made = http.post("/api/sessions", json={"name": "before the crash"}).json()
    running = family(server)
    server.process.kill()
    server.process.wait()
    assert gone(running, END_SECONDS) == []
    again = start(API_KEY=server.api_key)
    with rest.client(again, key) as http:
        assert http.get(f"/api/sessions/{made['session_id']}").json()["name"] == "before the crash"


def test_a_server_started_right_after_a_kill_waits_for_the_old_postgres(start: Callable[..., Server]) -> None:
    server = start()
    postgres = postgres_of(server)
    server.process.kill()
    server.process.wait()
    start(API_KEY=server.api_key)
    assert gone([postgres], 0) == []


def test_a_stale_pid_file_does_not_stop_the_start(start: Callable[..., Server], data_dir: Path) -> None:
    start().stop()
    pid_file = data_dir / "postgres" / "data" / "postmaster.pid"
    pid_file.write_text(
        f"{os.getpid()}\n/nowhere\n1\n5432\n/nowhere\n\n0 0\n"
    )  # a pid that lives and is not Postgres's
    start()


def test_a_second_start_is_fast_and_keeps_all_data(start: Callable[..., Server]) -> None:
    server = start()
    with rest.client(server) as http:
        made = http.post("/api/sessions", json={"name": "kept"}).json()
    server.stop()
    again = start(API_KEY=server.api_key)
    with rest.client(again) as http:
        assert made["session_id"] in [entry["session_id"] for entry in http.get("/api/sessions").json()["sessions"]]


@pytest.mark.covers("R02")
def test_while_postgres_is_away_every_call_says_so(start: Callable[..., Server]) -> None:
    server = start()
    postgres = postgres_of(server)
    with rest.client(server) as http:
        session = http.post("/api/sessions", json={"name": "before"}).json()["session_id"]
        postgres.suspend()  # the starter waits for its end, so nothing replaces it before the connections are dead
        for child in postgres.children():
            child.kill()
        postgres.kill()
        answers = [http.get(f"/api/sessions/{session}")]
        deadline = time.monotonic() + 30
        while answers[-1].status_code != 200 and time.monotonic() < deadline:
            answers.append(http.get(f"/api/sessions/{session}"))
    assert answers[-1].json()["name"] == "before"
    refused = answers[:-1]
    assert refused, "Postgres was killed, and no call noticed"
    for answer in refused:
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "database_unavailable"
        assert answer.json()["retryable"] is True
        assert answer.headers["content-type"] == "application/problem+json"


def test_postgres_that_dies_is_started_again(start: Callable[..., Server]) -> None:
    server = start()
    postgres = postgres_of(server)
    postgres.kill()
    deadline = time.monotonic() + 30
    with rest.client(server) as http:
        while time.monotonic() < deadline:
            if not postgres.is_running() and http.get("/ready").status_code == 200:
                break
            time.sleep(0.05)
        assert http.get("/api/sessions").status_code == 200
    assert postgres_of(server).pid != postgres.pid


def test_a_second_server_on_the_same_data_dir_is_refused(start: Callable[..., Server], data_dir: Path) -> None:
    server = start()
    message = refused(command(data_dir, "serve", PORT="0"), 1)
    assert f"pid {server.process.pid} at {server.url}" in message
    assert "DATA_DIR" in message
    assert httpx2.get(server.url + "/ready").status_code == 200


def test_a_port_in_use_is_refused_before_anything_is_started(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused(command(data_dir, "serve", PORT=str(port)), 1)
    assert f"port {port}" in message
    assert "PORT" in message
    assert not (data_dir / "postgres").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "data", Path("/proc/power-interpreter")):
        message = refused(command(folder, "serve", PORT="0"), 1)
        assert f"DATA_DIR {folder} cannot be written" in message


@pytest.mark.covers("R05")
def test_wrong_settings_are_refused_by_name(data_dir: Path) -> None:
    message = refused(command(data_dir, "serve", PORT="many", MAX_MEMORY_MB="1", API_KEY="canary canary"), 2)
    for name in ("PORT", "MAX_MEMORY_MB", "API_KEY"):
        assert f"power-interpreter: {name}: " in message
    assert "canary" not in message
    assert not data_dir.exists()


def test_without_api_key_one_is_made_shown_and_kept(data_dir: Path) -> None:
    shown = []
    for _ in range(2):
        server = real_server.start(data_dir, {"API_KEY": ""})
        key = (data_dir / "api-key").read_text().strip()
        shown.append(key)
        assert f"API key: {key}" in server.output()
        assert f"claude mcp add --transport http power-interpreter {server.url}/mcp" in server.output()
        with rest.client(server, key) as http:
            assert http.get("/api/sessions").status_code == 200
        server.stop()
    assert shown[0] == shown[1]
    assert stat.S_IMODE((data_dir / "api-key").stat().st_mode) == 0o600


@pytest.mark.covers("R04")
def test_another_api_key_replaces_the_first(start: Callable[..., Server]) -> None:
    first = start()
    first.stop()
    second = start()
    assert first.api_key != second.api_key
    with rest.client(second) as good, rest.client(second, first.api_key) as old:
        assert good.get("/api/sessions").status_code == 200
        assert old.get("/api/sessions").status_code == 401


@pytest.mark.covers("R04")
def test_keys_are_made_listed_and_revoked(start: Callable[..., Server], data_dir: Path) -> None:
    before = command(data_dir, "keys", "create", "early")  # no server runs: the command brings Postgres itself
    assert before.returncode == 0, before.stderr
    server = start()
    late = command(data_dir, "keys", "create", "late", "--tenant", "team")
    listed = command(data_dir, "keys", "list").stdout
    assert "early/early" in listed
    assert "team/late" in listed
    for made in (before, late):
        assert made.stdout.strip() not in listed
        with rest.client(server, made.stdout.strip()) as http:
            assert http.get("/api/sessions").status_code == 200
    key_id = next(line.split()[0] for line in listed.splitlines() if "team/late" in line)
    assert command(data_dir, "keys", "revoke", key_id).returncode == 0
    deadline = time.monotonic() + 5
    with rest.client(server, late.stdout.strip()) as http:
        while http.get("/api/sessions").status_code == 200:
            assert time.monotonic() < deadline, "the revoked key still works"
            time.sleep(0.05)
    with rest.client(server, before.stdout.strip()) as http:
        assert http.get("/api/sessions").status_code == 200
    assert "there is no key" in refused(command(data_dir, "keys", "revoke", "key_nothing"), 1)


@pytest.mark.covers("P04")
def test_any_postgres_by_url(start: Callable[..., Server], tmp_path: Path) -> None:
    first = start()
    secrets = json.loads((first.data_dir / "postgres-secrets").read_text())
    socket_dir = _socket_dir(first)
    url = f"postgresql://interpreter:{secrets['interpreter']}@/interpreter?host={socket_dir}"
    second = real_server.start(tmp_path / "other", {"DATABASE_URL": url})
    try:
        with rest.client(second) as http:
            health = http.get("/health").json()
            assert health["database"] == {"kind": "external", "ready": True, "superuser": False}
            assert http.post("/api/sessions", json={}).status_code == 201
        assert not (tmp_path / "other" / "postgres").exists()
        assert secrets["interpreter"] not in second.output()
    finally:
        second.stop()


@pytest.mark.attack("CR06")
def test_a_database_that_cannot_be_reached_is_named_without_its_password(data_dir: Path) -> None:
    url = "postgresql://user:canary@/db?host=/nowhere"
    began = time.monotonic()
    message = refused(command(data_dir, "serve", PORT="0", DATABASE_URL=url), 1)
    assert "Postgres did not answer" in message
    assert "canary" not in message
    assert time.monotonic() - began < 45


def test_postgres_is_locked_down(start: Callable[..., Server], data_dir: Path) -> None:
    server = start()
    postgres = postgres_of(server)
    connections = [found for process in (postgres, *postgres.children()) for found in process.net_connections("inet")]
    assert connections == []
    if os.getuid() == 0:
        assert postgres.uids().real not in {0, 65534}
    assert stat.S_IMODE((data_dir / "postgres-secrets").stat().st_mode) == 0o600
    assert stat.S_IMODE((data_dir / "postgres" / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE(_socket_dir(server).parent.stat().st_mode) == 0o700
    rules = (data_dir / "postgres" / "data" / "pg_hba.conf").read_text().splitlines()
    methods = {rule.split()[-1] for rule in rules if rule and not rule.startswith("#")}
    assert methods == {"scram-sha-256"}


def _socket_dir(server: Server) -> Path:
    """Where the server's Postgres listens: the runtime folder of its DATA_DIR."""
    from interpreter_api.settings import Settings

    return Settings(data_dir=server.data_dir).runtime_dir / "postgres"
