"""Looking into a session: variables, completions, descriptions, and how its sandbox is, by REST and by MCP."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from support import rest
from support.mcp_transports import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2
    from mcp import Client

    from support.server import Server

UNKNOWN = "ses_" + "a" * 26
HOSTILE = """
class Hostile:
    calls = 0
    def _stay(self, *args):
        Hostile.calls += 1
        while True:
            try: import time; time.sleep(60)
            except BaseException: pass
    __repr__ = __str__ = __len__ = __hash__ = __sizeof__ = __iter__ = __getattribute__ = _stay
class Meta(type):
    __hash__ = __eq__ = __repr__ = Hostile._stay
class Odd(metaclass=Meta):
    pass
hostile = Hostile(); nested = [hostile, {"k": hostile}]; odd = Odd()
"""


def looked(answer: httpx2.Response) -> dict[str, Any]:
    """The body of a look that succeeded."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert isinstance(body, dict)
    return body


def variables(http: httpx2.Client, session_id: str) -> dict[str, dict[str, Any]]:
    """The session's variables by name."""
    found = looked(http.get(f"/api/sessions/{session_id}/variables"))
    assert found["note"] == ""
    return {variable["name"]: variable for variable in found["variables"]}


def complete(http: httpx2.Client, session_id: str, code: str, cursor_pos: int | None = None) -> dict[str, Any]:
    """Complete at the end of ``code``, or at a place in it."""
    body = {"code": code, "cursor_pos": len(code) if cursor_pos is None else cursor_pos}
    return looked(http.post(f"/api/sessions/{session_id}/complete", json=body))


def inspect(http: httpx2.Client, session_id: str, code: str, **more: Any) -> dict[str, Any]:
    """Describe what is at the end of ``code``."""
    body = {"code": code, "cursor_pos": len(code), **more}
    return looked(http.post(f"/api/sessions/{session_id}/inspect", json=body))


@contextmanager
def running(http: httpx2.Client, session_id: str) -> Iterator[None]:
    """Code runs in the session for as long as the context is open."""
    code = "import pathlib, time\npathlib.Path('up').touch()\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)"
    base = f"/api/sessions/{session_id}/files"
    with ThreadPoolExecutor(1) as pool:
        cell = pool.submit(rest.run, http, code, session_id)
        try:
            while "up" not in {file["path"] for file in http.get(base).json()["files"]}:
                assert not cell.done()
            yield
        finally:
            http.put(f"{base}/content", params={"path": "go"}, content=b"")
        assert cell.result(30)["success"]


@pytest.mark.covers("C11")
def test_variables_have_type_size_and_a_preview(http: httpx2.Client, session_id: str) -> None:
    rest.run(
        http,
        "import math\nnumber = 41\ntext = 'ü' * 1000\nitems = {'a': [1, 2]}\n_private = 1\n"
        "table = pd.DataFrame({'u': [1, 2, 3], 'v': ['a', 'b', 'c']})\ngrid = np.arange(12).reshape(3, 4)\n"
        "def area(width, height=2): return width * height\nclass Point: pass\npoint = Point()",
        session_id,
    )
    found = variables(http, session_id)
    assert list(found) == ["Point", "area", "grid", "items", "math", "number", "point", "table", "text"]
    assert (found["number"]["type"], found["number"]["preview"], found["number"]["length"]) == ("int", "41", None)
    assert (found["text"]["type"], found["text"]["length"]) == ("str", 1000)
    assert found["text"]["preview"].startswith("'üüü")
    assert len(found["text"]["preview"]) < 200
    assert found["text"]["size_bytes"] > 1000
    assert (found["items"]["length"], found["items"]["preview"]) == (1, "{'a': [1, 2]}")
    assert (found["table"]["type"], found["table"]["shape"]) == ("DataFrame", [3, 2])
    assert found["table"]["preview"] == "columns ['u', 'v']"
    assert (found["grid"]["shape"], found["grid"]["size_bytes"]) == ([3, 4], 96)
    assert found["area"]["preview"] == "area(width, height)"
    assert (found["point"]["type"], found["point"]["preview"]) == ("Point", "<Point object>")
    assert found["math"]["preview"] == "module math"


@pytest.mark.covers("C11")
def test_a_look_is_no_execution(http: httpx2.Client, session_id: str) -> None:
    assert rest.value(http, "6 * 7", session_id) == "42"
    for _ in range(3):
        variables(http, session_id)
        complete(http, session_id, "pd.read_c")
        inspect(http, session_id, "pd.DataFrame")
        looked(http.get(f"/api/sessions/{session_id}/responsiveness"))
    state = "(_, len(In), sorted(Out), get_ipython().execution_count)"
    assert rest.value(http, state, session_id) == "(42, 3, [1], 3)"
    assert looked(http.get(f"/api/sessions/{session_id}"))["executions"] == 2


@pytest.mark.covers("C11")
def test_many_variables_are_capped_and_counted(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "for i in range(600): globals()[f'v{i:03}'] = 'x' * 100_000\ndel i", session_id)
    found = looked(http.get(f"/api/sessions/{session_id}/variables"))
    assert (found["total"], len(found["variables"])) == (600, 500)
    assert found["variables"][0]["name"] == "v000"


@pytest.mark.covers("C11")
@pytest.mark.attack("RES09")
def test_hostile_objects_are_listed_without_asking_them(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, HOSTILE, session_id)
    began = time.monotonic()
    found = variables(http, session_id)
    assert time.monotonic() - began < 1.5, "it was not the time limit that ended it"
    assert found["hostile"]["preview"] == "<Hostile object>"
    assert found["nested"]["preview"] == "[<Hostile object>, {'k': <Hostile object>}]"
    assert (found["odd"]["type"], found["odd"]["preview"]) == ("Odd", "<Odd object>")
    assert (found["Odd"]["type"], found["Odd"]["preview"]) == ("Meta", "class Odd")
    assert rest.value(http, "Hostile.calls", session_id) == "0"


@pytest.mark.covers("C11")
@pytest.mark.attack("RES09", "RES10")
def test_describing_an_object_that_never_answers_ends_and_says_what_it_cost(
    http: httpx2.Client, session_id: str
) -> None:
    rest.run(
        http, HOSTILE + "\nclass Slow:\n    def __repr__(self):\n        while True: pass\nslow = Slow()", session_id
    )
    began = time.monotonic()
    stopped = inspect(http, session_id, "slow")
    assert "2 s" in stopped["note"]
    assert rest.value(http, "type(slow).__name__", session_id) == "'Slow'", "an interrupt was enough: state is kept"
    killed = inspect(http, session_id, "hostile")
    assert time.monotonic() - began < 15
    assert (killed["found"], killed["text"]) == (False, "")
    assert "variables are lost" in killed["note"]
    after = rest.run(http, "'hostile' in globals()", session_id)
    assert after["result"] == "False"
    assert after["session_info"]["state"] == "lost"
    assert "looked at" in after["session_info"]["notice"]


@pytest.mark.covers("C11")
def test_completion_knows_the_living_objects_and_counts_characters(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "settings = {'ü': 1}\ntable = pd.DataFrame({'first_column': [1]})", session_id)
    name = complete(http, session_id, "x = '😀ü'; sett")
    assert "settings" in {match["text"] for match in name["matches"]}
    assert (name["cursor_start"], name["cursor_end"]) == (10, 14)
    code = "table.first_c + 1"
    attribute = complete(http, session_id, code, 13)
    text = attribute["matches"][0]["text"]
    assert code[: attribute["cursor_start"]] + text + code[attribute["cursor_end"] :] == "table.first_column + 1"
    assert "%timeit" in {match["text"] for match in complete(http, session_id, "%tim")["matches"]}
    nothing = complete(http, session_id, "no_such_name_anywhere")
    assert (nothing["matches"], nothing["total"], nothing["cursor_start"]) == ([], 0, 21)


@pytest.mark.covers("C11")
def test_libraries_are_completed_before_anything_ran(http: httpx2.Client, session_id: str) -> None:
    texts = {match["text"] for match in complete(http, session_id, "pd.read_cs")["matches"]}
    assert any(text.endswith("read_csv") for text in texts)
    first = rest.run(http, "1", session_id)
    assert (first["session_info"]["state"], first["session_info"]["notice"]) == ("fresh", "")


@pytest.mark.covers("C11")
def test_an_object_is_described_with_its_source_where_asked(http: httpx2.Client, session_id: str) -> None:
    rest.run(
        http, "def area(width, height=2):\n    'Width by height.'\n    return width * height  # marked", session_id
    )
    brief = inspect(http, session_id, "x = area(1, ")
    assert (brief["found"], brief["name"]) == (True, "area")
    assert "Signature: area(width, height=2)" in brief["text"]
    assert "Width by height." in brief["text"]
    assert "# marked" not in brief["text"]
    assert "\x1b" not in brief["text"]
    assert "# marked" in inspect(http, session_id, "area", detail_level=1)["text"]
    assert inspect(http, session_id, "no_such_name") | {"session_id": ""} == {
        "session_id": "",
        "found": False,
        "name": "no_such_name",
        "text": "",
        "note": "",
    }


@pytest.mark.covers("C11")
@pytest.mark.parametrize(
    "body",
    [
        {"code": "abc", "cursor_pos": 4},
        {"code": "abc", "cursor_pos": -1},
        {"code": "\ud800", "cursor_pos": 0},
        {"code": "abc"},
        {"code": "abc", "cursor_pos": 1, "detail_level": 2},
    ],
)
def test_what_makes_no_sense_is_refused(http: httpx2.Client, session_id: str, body: dict[str, Any]) -> None:
    rest.problem(http.post(f"/api/sessions/{session_id}/inspect", content=json.dumps(body)), 400, "invalid_argument")
    assert looked(http.get(f"/api/sessions/{session_id}/health"))["sandbox"] == "none"


@pytest.mark.covers("C11", "S06")
def test_a_session_that_never_ran_is_empty_and_gets_no_sandbox(http: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    assert looked(http.get(f"{base}/variables"))["variables"] == []
    health = looked(http.get(f"{base}/health"))
    assert (health["sandbox"], health["pid"], health["memory_bytes"]) == ("none", None, None)
    answers = looked(http.get(f"{base}/responsiveness"))
    assert (answers["sandbox"], answers["responsive"], answers["busy"]) == ("none", False, False)
    workspace = looked(http.get(f"{base}/workspace"))
    assert (workspace["files"], workspace["used_bytes"], workspace["size_bytes"]) == (0, 0, None)
    assert looked(http.get(base))["sandbox"] == "none"


@pytest.mark.covers("S06")
def test_health_is_measured(http: httpx2.Client, session_id: str) -> None:
    before = datetime.now(UTC)
    pid = rest.value(http, "import os; os.getpid()", session_id)
    first = looked(http.get(f"/api/sessions/{session_id}/health"))
    assert (str(first["pid"]), first["sandbox"], first["busy"], first["restarts"]) == (pid, "running", False, 0)
    assert first["threads"] >= first["processes"] >= 2
    rest.run(http, "kept = np.ones(1 << 24)\nfor i in range(3_000_000): pass", session_id)
    second = looked(http.get(f"/api/sessions/{session_id}/health"))
    assert second["memory_bytes"] - first["memory_bytes"] > 100 << 20
    assert second["cpu_seconds"] > first["cpu_seconds"]
    assert 0 < second["uptime_seconds"] - first["uptime_seconds"] < (datetime.now(UTC) - before).total_seconds()
    rest.run(http, "os._exit(3)", session_id)
    third = looked(http.get(f"/api/sessions/{session_id}/health"))
    assert third["restarts"] == 1


@pytest.mark.covers("S06")
def test_the_workspace_is_counted(http: httpx2.Client, session_id: str) -> None:
    rest.run(
        http, "import os\nos.makedirs('a/b')\nfor n in 'xyz': open(f'a/{n}', 'wb').write(b'1' * 1_000_000)", session_id
    )
    found = looked(http.get(f"/api/sessions/{session_id}/workspace"))
    assert (found["files"], found["folders"], found["truncated"]) == (3, 2, False)
    assert 3_000_000 <= found["used_bytes"] < 4_000_000
    assert found["size_bytes"] > found["used_bytes"]


@pytest.mark.covers("S06", "C11")
def test_a_busy_session_says_so(http: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    rest.run(http, "1", session_id)
    idle = looked(http.get(f"{base}/responsiveness"))
    assert (idle["responsive"], idle["busy"], idle["detail"]) == (True, False, "")
    assert 0 < idle["latency_ms"] < 2000
    with running(http, session_id):
        busy = looked(http.get(f"{base}/responsiveness"))
        assert (busy["responsive"], busy["busy"], busy["latency_ms"]) == (False, True, None)
        health = looked(http.get(f"{base}/health"))
        assert (health["sandbox"], health["busy"]) == ("busy", True)
        assert looked(http.get(f"{base}/workspace"))["files"] >= 1
        rest.problem(http.get(f"{base}/variables"), 409, "session_busy")
        rest.problem(http.post(f"{base}/complete", json={"code": "a", "cursor_pos": 1}), 409, "session_busy")
    assert "pathlib" in variables(http, session_id)


@pytest.mark.covers("S06")
def test_a_worker_that_does_not_answer_is_found_and_replaced(http: httpx2.Client, session_id: str) -> None:
    code = (
        "import os, subprocess\nsubprocess.Popen(['sh', '-c', f'sleep 0.2; kill -STOP {os.getpid()}; touch stopped'])"
    )
    base = f"/api/sessions/{session_id}"
    rest.run(http, code, session_id)
    while "stopped" not in {file["path"] for file in http.get(f"{base}/files").json()["files"]}:
        pass
    stuck = looked(http.get(f"{base}/responsiveness"))
    assert (stuck["responsive"], stuck["busy"], stuck["latency_ms"]) == (False, False, None)
    assert "2 s" in stuck["detail"]
    after = rest.run(http, "2 + 2", session_id)
    assert (after["result"], after["session_info"]["state"]) == ("4", "lost")
    assert "did not answer" in after["session_info"]["notice"]
    assert looked(http.get(f"{base}/responsiveness"))["responsive"]


@pytest.mark.covers("C11", "S06")
@pytest.mark.attack("AU06")
def test_another_tenants_session_cannot_be_looked_into(
    http: httpx2.Client, other_tenant: httpx2.Client, session_id: str
) -> None:
    rest.run(http, "secret = 1", session_id)

    def probe(target: str) -> list[tuple[int, str]]:
        base, body = f"/api/sessions/{target}", {"code": "secret", "cursor_pos": 6}
        answers = [
            other_tenant.get(f"{base}/{what}") for what in ("variables", "health", "responsiveness", "workspace")
        ]
        answers += [other_tenant.post(f"{base}/{what}", json=body) for what in ("complete", "inspect")]
        return [(answer.status_code, answer.text) for answer in answers]

    foreign = probe(session_id)
    assert {status for status, _ in foreign} == {404}
    assert foreign == probe(UNKNOWN)
    assert "secret" in variables(http, session_id)


async def told(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer of a tool call that succeeded."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    assert isinstance(result.structured_content, dict)
    return result.structured_content


@pytest.mark.anyio
@pytest.mark.covers("C11", "S06")
async def test_the_same_by_mcp(server: Server, session_id: str) -> None:
    async with connect("http-2026-07-28", server) as client:
        where = {"session_id": session_id}
        assert (await told(client, "list_variables", **where))["variables"] == []
        await told(client, "execute_code", code="answer = 42\nopen('f.txt', 'w').write('x')", **where)
        listed = await told(client, "list_variables", **where)
        assert [(v["name"], v["type"], v["preview"]) for v in listed["variables"]] == [("answer", "int", "42")]
        completed = await told(client, "code_completion", code="answ", cursor_pos=4, **where)
        assert "answer" in {match["text"] for match in completed["matches"]}
        described = await told(client, "inspect_object", code="answer", cursor_pos=6, **where)
        assert (described["found"], "int" in described["text"]) == (True, True)
        health = await told(client, "get_kernel_health", **where)
        assert health["pid"] > 0
        assert (await told(client, "check_kernel_responsiveness", **where))["responsive"] is True
        assert (await told(client, "get_workspace_info", **where))["files"] == 1
        pong = await told(client, "ping")
        assert abs(datetime.fromisoformat(pong["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
        assert pong["version"]
        refused = await client.call_tool("list_variables", {"session_id": UNKNOWN})
        assert refused.is_error
        assert refused.structured_content is not None
        assert refused.structured_content["code"] == "not_found"
