"""The gate: who gets in, how everybody else is answered, and what of it is logged. Over raw HTTP, on REST and MCP."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
import pytest

from support import rest
from support import server as real_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

ORIGIN = "https://app.example"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that believes X-Forwarded-For from this machine: each test is a client address of its own."""
    env = {"TRUSTED_PROXIES": "127.0.0.1", "ALLOWED_ORIGINS": ORIGIN, "BODY_TIMEOUT": "2", "MAX_FILE_SIZE_MB": "40"}
    started = real_server.start(tmp_path_factory.mktemp("gate") / "data", env)
    yield started
    started.stop()


@pytest.fixture
def client(gate: Server, request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    """Requests without a key, from an address that no other test has."""
    address = f"2001:db8:{abs(hash(request.node.nodeid)) & 0xFFFF:x}:{id(request) & 0xFFFF:x}::1"
    with httpx2.Client(base_url=gate.url, headers={"X-Forwarded-For": address}, timeout=30) as made:
        yield made


def on_both(client: httpx2.Client, **headers: str) -> list[httpx2.Response]:
    """The same credentials on REST and on MCP."""
    return [
        client.get("/api/sessions", headers=headers),
        client.post("/mcp", json=INITIALIZE, headers={**ACCEPT, **headers}),
    ]


def logged(server: Server, text: str) -> str:
    """The server's log once ``text`` stands in it: a record is written when its answer has left."""
    deadline = time.monotonic() + 10
    while text not in (output := server.output()):
        assert time.monotonic() < deadline, f"{text!r} was not logged"
        time.sleep(0.02)
    return output


@pytest.mark.covers("R04")
def test_either_header_opens_rest_and_mcp(client: httpx2.Client, gate: Server) -> None:
    for headers in ({"X-API-Key": gate.api_key}, {"Authorization": f"Bearer {gate.api_key}"}):
        assert [answer.status_code for answer in on_both(client, **headers)] == [200, 200]


@pytest.mark.attack("AU01")
def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(client: httpx2.Client, gate: Server) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "wrong"},
        {"X-API-Key": gate.api_key[:-1]},
        {"X-API-Key": gate.api_key + "x"},
        {"X-API-Key": gate.api_key.upper()},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {gate.api_key}"},
        {"Authorization": gate.api_key},
        {"X-API-Key": "k" * (1 << 20)},
    ]
    answers = [answer for headers in wrong for answer in on_both(client, **headers)][:20]
    answers.append(client.get("/api/sessions", headers=wrong[-1]))
    bodies = set()
    for answer in answers:
        rest.problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        bodies.add(answer.text)
    assert len(bodies) == 1
    assert [answer.status_code for answer in on_both(client, **{"X-API-Key": gate.api_key})] == [200, 200]


@pytest.mark.attack("AU02")
def test_how_long_a_refusal_takes_says_nothing_about_the_key(gate: Server) -> None:
    """A right beginning of the key is not refused slower than a wrong one, within what this machine can measure."""
    guesses = {"wrong": "x" * len(gate.api_key), "close": gate.api_key[:-1] + "\x7e"}
    spent: dict[str, list[float]] = {name: [] for name in guesses}
    with httpx2.Client(base_url=gate.url) as http:
        for number in range(60):
            for name, guess in guesses.items():
                headers = {"X-API-Key": guess, "X-Forwarded-For": f"192.0.2.{number}"}
                began = time.perf_counter()
                assert http.get("/api/sessions", headers=headers).status_code == 401
                spent[name].append(time.perf_counter() - began)
    medians = [sorted(times)[len(times) // 2] for times in spent.values()]
    assert max(medians) < 2 * min(medians)


@pytest.mark.attack("AU03")
def test_a_key_in_the_url_is_refused_and_not_logged(client: httpx2.Client, gate: Server) -> None:
    key = rest.make_key(gate, "in-a-url", "in-a-url")
    assert client.get("/api/sessions", headers={"X-API-Key": key}).status_code == 200
    for name in ("api_key", "key", "token", "access_token"):
        for headers in ({}, {"X-API-Key": key}):
            answer = client.get(f"/api/sessions?{name}={key}", headers=headers)
            rest.problem(answer, 400, "invalid_argument")
            assert key not in answer.text
    client.get("/after-that", headers={"X-API-Key": key})
    logged(gate, "/api/sessions 400")
    logged(gate, "/after-that 404")
    assert key not in gate.output()
    assert gate.api_key not in gate.output()


@pytest.mark.attack("AU04")
def test_two_credentials_are_refused(client: httpx2.Client, gate: Server) -> None:
    pair = ("Authorization", f"Bearer {gate.api_key}")
    for headers in ([pair, pair], [pair, ("X-API-Key", gate.api_key)], [("X-API-Key", gate.api_key)] * 2):
        rest.problem(client.get("/api/sessions", headers=headers), 400, "invalid_argument")
    assert client.get("/api/sessions", headers=[pair]).status_code == 200


@pytest.mark.attack("AU04")
def test_a_forged_forwarded_address_changes_nothing(server: Server) -> None:
    """The usual server trusts no proxy: who forges X-Forwarded-For is logged and counted by the real address."""
    forged = {"X-Forwarded-For": "198.51.100.77", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    with rest.client(server) as http:
        answer = http.get("/api/sessions", headers=forged)
    assert answer.status_code == 200
    assert "198.51.100.77" not in logged(server, answer.headers["x-request-id"])


@pytest.mark.attack("AU06")
def test_a_guessed_id_is_answered_like_an_unknown_one(client: httpx2.Client, gate: Server) -> None:
    other = rest.make_key(gate, "guesser", "guesser")
    with rest.client(gate) as owner:
        session_id = owner.post("/api/sessions", json={}).json()["session_id"]
        assert owner.get(f"/api/sessions/{session_id}").status_code == 200
    unknown = session_id[:-4] + ("aaaa" if not session_id.endswith("aaaa") else "bbbb")
    bodies = []
    for guess in (session_id, unknown):
        answer = client.get(f"/api/sessions/{guess}", headers={"X-API-Key": other})
        rest.problem(answer, 404, "not_found")
        bodies.append(answer.text.replace(guess, "ID"))
    assert bodies[0] == bodies[1]


@pytest.mark.attack("AU10")
def test_guessing_is_slowed_down_and_honest_neighbours_are_not(gate: Server) -> None:
    neighbour = rest.make_key(gate, "neighbour-of-a-guesser", "neighbour")
    here = {"X-Forwarded-For": "203.0.113.50"}
    with httpx2.Client(base_url=gate.url, headers=here) as http:
        assert http.get("/api/sessions", headers={"X-API-Key": neighbour}).status_code == 200
        answers = [http.get("/api/sessions", headers={"X-API-Key": f"guess-{n}"}) for n in range(40)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[0] == 401
        assert statuses[-1] == 429
        assert statuses == sorted(statuses)
        rest.problem(answers[-1], 429, "rate_limited")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert http.get("/api/sessions", headers={"X-API-Key": neighbour}).status_code == 200
        elsewhere = {"X-Forwarded-For": "203.0.113.51", "X-API-Key": "guess"}
        assert http.get("/api/sessions", headers=elsewhere).status_code == 401


@pytest.mark.attack("AU11")
@pytest.mark.covers("R01")
def test_what_is_public_says_nothing_sensitive(client: httpx2.Client, gate: Server) -> None:
    with rest.client(gate) as http:
        session_id = http.post("/api/sessions", json={"name": "canary-name"}).json()["session_id"]
        http.get(f"/api/sessions/{session_id}")
    for path in ("/health", "/ready", "/metrics", "/docs", "/openapi.json"):
        answer = client.get(path)
        assert answer.status_code == 200, path
        for secret in (session_id, "canary-name", gate.api_key, str(gate.data_dir), "prn_", "ses_a"):
            assert secret not in answer.text, (path, secret)
    docs = client.get("/docs")
    assert "/api/execute" in docs.text
    assert "<script" not in docs.text
    assert "default-src 'none'" in docs.headers["content-security-policy"]


@pytest.mark.covers("R01")
def test_health_and_readiness_and_metrics(client: httpx2.Client) -> None:
    health = client.get("/health").json()
    assert health["version"]
    assert health["database"] == {"kind": "embedded", "ready": True, "superuser": False}
    assert health["sandbox"]["kind"] in {"bubblewrap", "none"}
    assert health["status"] == ("degraded" if health["degraded"] else "ok")
    ready = client.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "database": True, "execution": health["sandbox"]["ready"]}
    client.get("/api/sessions")
    metrics = client.get("/metrics").text
    assert 'interpreter_http_requests_total{method="GET",route="/ready",status="200"}' in metrics
    assert 'interpreter_ready{part="database"} 1.0' in metrics
    assert "interpreter_refused_credentials_total" in metrics


@pytest.mark.covers("R01")
def test_a_machine_that_cannot_isolate_is_ready_and_says_what_it_refuses(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = real_server.start(tmp_path_factory.mktemp("bare") / "data", {"BWRAP": "/nonexistent/bwrap"})
    try:
        with rest.client(server) as http:
            assert http.get("/ready").json() == {"ready": True, "database": True, "execution": False}
            health = http.get("/health").json()
            assert health["status"] == "degraded"
            assert health["sandbox"]["ready"] is False
            assert health["sandbox"]["remedy"]
            body = rest.problem(http.post("/api/execute", json={"code": "1"}), 503, "sandbox_unavailable")
            assert body["remedy"]
            assert http.post("/api/sessions", json={}).status_code == 201
    finally:
        server.stop()


@pytest.mark.attack("MC04")
def test_a_page_of_somebody_else_is_refused(client: httpx2.Client, gate: Server) -> None:
    key = {"X-API-Key": gate.api_key}
    for origin in ("https://evil.example", "null", f"{ORIGIN}.evil.example", "http://127.0.0.1:1"):
        for answer in on_both(client, Origin=origin, **key):
            rest.problem(answer, 403, "forbidden")
    for origin in (ORIGIN, gate.url):
        assert [answer.status_code for answer in on_both(client, Origin=origin, **key)] == [200, 200]


@pytest.mark.attack("MC04")
def test_a_host_that_is_not_this_server_is_refused(client: httpx2.Client, gate: Server) -> None:
    key = {"X-API-Key": gate.api_key}
    for answer in on_both(client, Host="evil.example", **key):
        rest.problem(answer, 421, "misdirected_request")
    port = urlsplit(gate.url).port
    assert [answer.status_code for answer in on_both(client, Host=f"localhost:{port}", **key)] == [200, 200]
    assert client.get("/ready", headers={"Host": "10.1.2.3:8080"}).status_code == 200  # a probe comes by pod address


def test_an_allowed_page_gets_its_preflight_without_a_key(client: httpx2.Client) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = client.options("/mcp", headers={"Origin": ORIGIN, **asked})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert client.options("/mcp", headers={"Origin": "https://evil.example", **asked}).status_code == 403


@pytest.mark.attack("MC02")
def test_a_body_over_the_limit_is_answered_413_declared_or_not(client: httpx2.Client, gate: Server) -> None:
    client.headers["X-API-Key"] = gate.api_key
    megabyte = b" " * (1 << 20)
    for path in ("/api/execute", "/mcp"):
        declared = client.post(path, content=megabyte * 33, headers={"Content-Type": "application/json", **ACCEPT})
        rest.problem(declared, 413, "too_large")
        streamed = client.post(
            path, content=(megabyte for _ in range(40)), headers={"Content-Type": "application/json", **ACCEPT}
        )
        rest.problem(streamed, 413, "too_large")
    assert [answer.status_code for answer in on_both(client)] == [200, 200]


@pytest.mark.attack("MC02")
def test_a_huge_declared_body_is_refused_before_it_comes(gate: Server) -> None:
    head = f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {gate.api_key}\r\nContent-Length: {2 << 30}\r\n\r\n"
    assert _raw(gate, head.encode() + b"{").startswith(b"HTTP/1.1 413")


def test_a_body_that_stops_coming_is_given_up(gate: Server) -> None:
    head = (
        f"POST /api/execute HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {gate.api_key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    assert _raw(gate, head.encode() + b'{"code"').startswith(b"HTTP/1.1 408")


def _raw(server: Server, data: bytes) -> bytes:
    """What the server answers to these bytes, after which the client sends nothing more."""
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall(data)
        return connection.recv(65536)


@pytest.mark.covers("R02")
def test_mistakes_are_problem_details(client: httpx2.Client, gate: Server) -> None:
    client.headers["X-API-Key"] = gate.api_key
    rest.problem(client.get("/nothing/here"), 404, "not_found")
    rest.problem(client.put("/api/execute", json={}), 405, "method_not_allowed")
    body = rest.problem(client.post("/api/execute", json={"code": 1, "other": 2}), 400, "invalid_argument")
    assert {entry["field"] for entry in body["details"]["fields"]} >= {"code"}


@pytest.mark.attack("RES23")
def test_a_hostile_path_stays_one_log_record(client: httpx2.Client, gate: Server) -> None:
    forged = json.dumps({"level": "CRITICAL", "message": "forged"})
    client.get("/api/%0a" + forged.replace(" ", "%20") + "%1b[2J%0d", headers={"X-API-Key": gate.api_key})
    records = [line for line in logged(gate, "forged").splitlines() if "forged" in line]
    assert len(records) == 1
    assert json.loads(records[0])["level"] == "INFO"
    assert "\x1b" not in gate.output()


def test_every_answer_names_its_request(client: httpx2.Client, gate: Server) -> None:
    answers: list[Any] = [client.get("/ready"), client.get("/api/sessions"), client.get("/docs")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    logged(gate, answers[1].headers["x-request-id"])
