"""A session is cleared, restarted and made the default: what goes, what stays, and for whom."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from support import rest
from support.mcp_transports import connect

if TYPE_CHECKING:
    import httpx2

    from support.server import Server

UNKNOWN = "ses_" + "a" * 26
LEAVE = "v = 1; _ = open('kept.txt', 'w').write('x')"
LOOK = "import os; ('v' in globals(), os.path.exists('kept.txt'))"
LONG = "open('{name}', 'w').close()\nimport time\ntime.sleep(60)"


def start_long(pool: ThreadPoolExecutor, http: httpx2.Client, session_id: str, name: str) -> Any:
    """Code that runs for a minute; returns when it has begun, which a file of that name shows."""
    body = {"code": LONG.format(name=name), "session_id": session_id}
    running = pool.submit(http.post, "/api/execute", json=body, timeout=30)
    while http.get(f"/api/sessions/{session_id}/files/content", params={"path": name}).status_code != 200:
        assert not running.done(), running.result().text
    return running


@pytest.mark.covers("S01", "R02")
@pytest.mark.parametrize("action", ["clear", "restart"])
def test_variables_go_and_files_stay(http: httpx2.Client, session_id: str, action: str) -> None:
    rest.run(http, LEAVE, session_id)
    assert rest.value(http, LOOK, session_id) == "(True, True)"  # without the restart they are both there
    done = http.post(f"/api/sessions/{session_id}/{action}")
    assert done.status_code == 200, done.text
    answer = done.json()
    assert (answer["session_id"], answer["restarted"], answer["interrupted_execution_id"]) == (session_id, True, None)
    after = rest.run(http, LOOK, session_id)
    assert after["result"] == "(False, True)"
    # it was asked for: nothing is told as lost
    assert (after["session_info"]["state"], after["session_info"]["notice"]) == ("fresh", "")
    assert rest.run(http, "1", session_id)["session_info"]["state"] == "kept"


@pytest.mark.covers("S01")
@pytest.mark.parametrize("action", ["clear", "restart"])
def test_without_a_sandbox_there_is_nothing_to_do_and_it_says_so(
    http: httpx2.Client, session_id: str, action: str
) -> None:
    answer = http.post(f"/api/sessions/{session_id}/{action}").json()
    assert answer["restarted"] is False
    assert "Nothing to do" in answer["message"]
    assert http.get(f"/api/sessions/{session_id}").json()["sandbox"] == "none"  # and none was claimed for it


@pytest.mark.covers("S01")
def test_a_restart_ends_the_running_code_and_tells_its_caller(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, LEAVE, session_id)
    with ThreadPoolExecutor(1) as pool:
        running = start_long(pool, http, session_id, "begun")
        answer = http.post(f"/api/sessions/{session_id}/restart").json()
        result = running.result(20).json()
    assert (answer["restarted"], answer["interrupted_execution_id"]) == (True, result["execution_id"])
    assert (result["success"], result["error"]["code"]) == (False, "interrupted")
    assert "restarted" in result["error"]["message"]
    assert result["session_info"]["state"] == "lost"
    assert "variables are gone" in result["session_info"]["notice"]
    after = rest.run(http, LOOK, session_id)
    assert (after["result"], after["session_info"]["state"]) == ("(False, True)", "fresh")


@pytest.mark.covers("S01")
def test_code_that_ignores_interrupts_does_not_survive_a_restart(http: httpx2.Client, session_id: str) -> None:
    stubborn = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nopen('deaf', 'w').close()\n"
    body = {"code": stubborn + "while True:\n    time.sleep(1)", "session_id": session_id}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(http.post, "/api/execute", json=body, timeout=30)
        while http.get(f"/api/sessions/{session_id}/files/content", params={"path": "deaf"}).status_code != 200:
            assert not running.done(), running.result().text
        assert http.post(f"/api/sessions/{session_id}/restart").json()["restarted"] is True
        assert running.result(20).json()["error"]["code"] == "interrupted"
    assert rest.value(http, "1 + 1", session_id) == "2"


@pytest.mark.covers("S01")
def test_a_restart_that_keeps_variables_is_refused_and_changes_nothing(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "v = 1", session_id)
    refused = http.post(f"/api/sessions/{session_id}/restart", json={"preserve_state": True})
    problem = rest.problem(refused, 400, "invalid_argument")
    assert "not available yet" in problem["detail"]
    assert "preserve_state=false" in problem["remedy"]
    assert rest.value(http, "v", session_id) == "1"


@pytest.mark.covers("S01")
def test_default_points_to_the_session_it_was_switched_to(server: Server) -> None:
    with rest.client(server, rest.make_key(server, "switcher", "switchers")) as http:
        rest.run(http, "where = 'first'", "default")
        first = http.get("/api/sessions/default").json()["session_id"]
        second = http.post("/api/sessions", json={"name": "second"}).json()["session_id"]
        rest.run(http, "where = 'second'", second)
        switched = http.post(f"/api/sessions/{second}/switch")
        assert (switched.status_code, switched.json()["session_id"]) == (200, second)
        assert switched.json()["is_default"] is True
        assert rest.value(http, "where", "default") == "'second'"
        assert rest.value(http, "where", first) == "'first'"
        listed = {s["session_id"]: s["is_default"] for s in http.get("/api/sessions").json()["sessions"]}
        assert listed == {first: False, second: True}
        assert http.post(f"/api/sessions/{second}/switch").status_code == 200  # again is no error
        http.delete(f"/api/sessions/{second}")
        third = rest.run(http, "'where' in globals()", "default")
        assert third["result"] == "False"
        assert third["session_info"]["session_id"] not in {first, second}


@pytest.mark.covers("S01")
def test_switches_at_the_same_time_leave_exactly_one_default(server: Server) -> None:
    with rest.client(server, rest.make_key(server, "swapper", "swappers")) as http:
        made = [http.post("/api/sessions").json()["session_id"] for _ in range(4)]
        calls = [("POST", f"/api/sessions/{one}/switch") for one in made] + [("GET", "/api/sessions/default")]
        with ThreadPoolExecutor(8) as pool:  # the first default may be made by a GET in the middle of it
            answers = list(pool.map(lambda call: http.request(*call), calls * 6))
        assert {answer.status_code for answer in answers} == {200}
        defaults = [s for s in http.get("/api/sessions").json()["sessions"] if s["is_default"]]
        assert len(defaults) == 1
        assert http.get("/api/sessions/default").json()["session_id"] == defaults[0]["session_id"]


@pytest.mark.covers("S01", "S02")
def test_a_colleagues_session_cannot_become_the_default(server: Server) -> None:
    with (
        rest.client(server, rest.make_key(server, "anna", "colleagues")) as anna,
        rest.client(server, rest.make_key(server, "ben", "colleagues")) as ben,
    ):
        hers = anna.post("/api/sessions").json()["session_id"]
        his = ben.get("/api/sessions/default").json()["session_id"]
        rest.problem(ben.post(f"/api/sessions/{hers}/switch"), 404, "not_found")
        assert ben.get("/api/sessions/default").json()["session_id"] == his


@pytest.mark.covers("S01", "S02", "C12")
@pytest.mark.attack("AU06")
def test_another_tenants_session_answers_exactly_like_an_unknown_one(
    http: httpx2.Client, other_tenant: httpx2.Client, session_id: str
) -> None:
    rest.run(http, "secret = 1; _ = open('a.py', 'w').write('print(1)')", session_id)

    def probe(target: str) -> list[tuple[int, str]]:
        base = f"/api/sessions/{target}"
        answers = [
            other_tenant.post(f"{base}/clear"),
            other_tenant.post(f"{base}/restart"),
            other_tenant.post(f"{base}/switch"),
            other_tenant.post(f"{base}/scripts", json={"name": "a", "content": "1"}),
            other_tenant.post(f"{base}/scripts/run", json={"path": "a.py"}),
        ]
        return [(answer.status_code, answer.text) for answer in answers]

    foreign = probe(session_id)
    assert {status for status, _ in foreign} == {404}
    assert foreign == probe(UNKNOWN)
    assert rest.value(http, "secret", session_id) == "1"


@pytest.mark.anyio
@pytest.mark.covers("S01", "R03")
async def test_the_tools_do_the_same(server: Server) -> None:
    key = rest.make_key(server, "toolmaker", "toolmakers")
    async with connect("http-2026-07-28", server, api_key=key) as client:

        async def value(code: str) -> Any:
            return (await client.call_tool("execute_code", {"code": code})).structured_content

        for tool in ("clear_session", "restart_session", "restart_kernel"):
            await value(LEAVE)
            done = await client.call_tool(tool, {})
            assert not done.is_error
            assert done.structured_content["restarted"] is True
            assert (await value(LOOK))["result"] == "(False, True)"
        refused = await client.call_tool("restart_session", {"preserve_state": True})
        assert refused.is_error
        assert refused.structured_content["code"] == "invalid_argument"
        made = (await client.call_tool("create_session", {})).structured_content["session_id"]
        switched = await client.call_tool("switch_session", {"session_id": made})
        assert switched.structured_content["is_default"] is True
        assert (await value("1"))["session_info"]["session_id"] == made
        assert (await client.call_tool("switch_session", {"session_id": UNKNOWN})).is_error
