"""Code over REST: what an answer holds, what is refused, and that an execution id never runs twice."""

from __future__ import annotations

import json
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx2
import pytest

from support import rest

if TYPE_CHECKING:
    from support.server import Server


def new_key() -> str:
    return "test-" + secrets.token_hex(8)


@pytest.mark.covers("C01", "C02", "R02")
def test_an_answer_holds_what_the_contract_names(http: httpx2.Client, session_id: str) -> None:
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\nx = 20\nx + 1"
    first = rest.run(http, code, session_id)
    assert first["success"] is True
    assert (first["stdout"], first["stderr"], first["result"], first["error"]) == ("out\n", "err\n", "21", None)
    assert first["execution_id"].startswith("exe_")
    assert 0 < first["elapsed_ms"] < 60_000
    assert (first["charts"], first["files"], first["notes"]) == ([], [], [])
    info = first["session_info"]
    assert (info["session_id"], info["created"], info["restored"], info["state"]) == (
        session_id,
        False,
        False,
        "fresh",
    )
    second = rest.run(http, "x + 2", session_id)
    assert second["result"] == "22"
    assert second["session_info"]["state"] == "kept"
    assert second["execution_id"] != first["execution_id"]


@pytest.mark.covers("C01")
@pytest.mark.parametrize("name", ["", "0"])
def test_an_empty_session_id_makes_a_new_session(http: httpx2.Client, name: str) -> None:
    made = [rest.run(http, "1", name)["session_info"] for _ in range(2)]
    assert all(info["created"] and info["state"] == "fresh" for info in made)
    assert made[0]["session_id"] != made[1]["session_id"]
    for info in made:
        assert http.delete(f"/api/sessions/{info['session_id']}").status_code == 200


@pytest.mark.covers("C01")
@pytest.mark.parametrize(
    ("code", "code_of_error", "type_of_error"),
    [("1/0", "user_error", "ZeroDivisionError"), ("def f(:\n  pass", "syntax_error", "SyntaxError")],
)
def test_code_that_fails_is_an_answer_and_the_session_goes_on(
    http: httpx2.Client, session_id: str, code: str, code_of_error: str, type_of_error: str
) -> None:
    rest.run(http, "kept = 7", session_id)
    failed = rest.run(http, code, session_id)
    assert failed["success"] is False
    assert (failed["error"]["code"], failed["error"]["type"]) == (code_of_error, type_of_error)
    assert any(type_of_error in line for line in failed["error"]["traceback"])
    assert rest.value(http, "kept", session_id) == "7"


@pytest.mark.covers("C10")
def test_the_time_limit_interrupts_and_keeps_the_state(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "kept = 8", session_id)
    before = time.monotonic()
    late = rest.run(http, "while True: pass", session_id, timeout=0.5)
    assert time.monotonic() - before < 10
    assert late["success"] is False
    assert late["error"]["code"] == "timeout"
    assert late["error"]["remedy"]
    assert rest.value(http, "kept", session_id) == "8"


@pytest.mark.covers("C10")
@pytest.mark.attack("RES14")
def test_a_crash_is_never_a_success_and_says_that_the_state_is_gone(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "kept = 9\nopen('kept.txt', 'w').write('still here')", session_id)
    crashed = rest.run(http, "import os; os._exit(0)", session_id)
    assert crashed["success"] is False
    assert crashed["error"]["code"] == "crashed"
    assert crashed["session_info"]["state"] == "lost"
    assert "variables" in crashed["session_info"]["notice"]
    assert rest.value(http, "'kept' in globals(), open('kept.txt').read()", session_id) == "(False, 'still here')"


@pytest.mark.covers("C01", "C10", "R02")
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"code": ""}, "code is empty"),
        ({"code": "x = '\0'"}, "NUL"),
        ({"code": "1", "timeout": 0}, "at most 300"),
        ({"code": "1", "timeout": -1}, "at most 300"),
        ({"code": "1", "timeout": 300.5}, "at most 300"),
        ({"code": "1", "execution_id": "../x"}, "execution_id"),
        ({"code": "1", "nonsense": 1}, "nonsense"),
        ({"code": 1}, "code"),
        ({}, "code"),
    ],
)
def test_a_bad_argument_is_refused_by_name(http: httpx2.Client, body: dict[str, object], says: str) -> None:
    problem = rest.problem(http.post("/api/execute", json=body), 400, "invalid_argument")
    assert says in problem["detail"]


@pytest.mark.covers("C01", "R02")
@pytest.mark.parametrize(
    "content",
    [
        b'{"code": "\xff\xfe"}',
        b'{"code": "x = \'\\ud800\'"}',
        b'{"code": "1", "timeout": NaN}',
        b'{"code": "1", "timeout": 1e999}',
        b"not json",
        b"[" * 100_000,
        b"",
    ],
)
def test_bodies_that_are_no_text_or_no_json_are_refused(http: httpx2.Client, content: bytes) -> None:
    answer = http.post("/api/execute", content=content, headers={"Content-Type": "application/json"})
    rest.problem(answer, 400, "invalid_argument")
    assert http.get("/api/sessions").status_code == 200


@pytest.mark.covers("C01")
def test_code_of_ten_mebibytes_runs_and_one_byte_more_is_too_large(http: httpx2.Client, session_id: str) -> None:
    code = "data = '" + "a" * ((10 << 20) - 20) + "'\n"
    code += "1" * ((10 << 20) - len(code))
    assert len(code) == 10 << 20
    assert rest.value(http, code, session_id) == "1" * (len(code) - code.index("\n") - 1)
    answer = http.post("/api/execute", json={"code": code + "1", "session_id": session_id})
    assert rest.problem(answer, 413, "too_large")["details"]["limit_bytes"] == 10 << 20


@pytest.mark.covers("C13", "R02")
def test_an_execution_id_runs_once_and_replays_its_answer(http: httpx2.Client, session_id: str) -> None:
    key = new_key()
    rest.run(http, "n = 0", session_id)
    first = rest.run(http, "n += 1\nn", session_id, execution_id=key)
    again = http.post(
        "/api/execute", json={"code": "n += 1\nn", "session_id": session_id}, headers={"Idempotency-Key": key}
    ).json()
    assert (first["result"], first["replayed"]) == ("1", False)
    assert again == first | {"replayed": True}
    assert rest.value(http, "n", session_id) == "1"
    assert http.get(f"/api/executions/{key}").json() == again


@pytest.mark.covers("C13")
def test_the_same_id_with_other_code_is_a_conflict(http: httpx2.Client, session_id: str) -> None:
    key = new_key()
    rest.run(http, "m = 1", session_id, execution_id=key)
    answer = http.post("/api/execute", json={"code": "m = 2", "session_id": session_id, "execution_id": key})
    rest.problem(answer, 409, "conflict")
    assert rest.value(http, "m", session_id) == "1"


@pytest.mark.covers("C13")
def test_calls_at_the_same_time_with_one_id_run_once_and_answer_alike(http: httpx2.Client, session_id: str) -> None:
    key = new_key()
    rest.run(http, "runs = []", session_id)
    code = "import time\nruns.append(1)\ntime.sleep(0.5)\nlen(runs)"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: rest.run(http, code, session_id, execution_id=key), range(8)))
    assert {answer["result"] for answer in answers} == {"1"}
    assert rest.value(http, "len(runs)", session_id) == "1"


@pytest.mark.covers("C13", "S02")
@pytest.mark.attack("AU06")
def test_execution_ids_belong_to_their_tenant(
    http: httpx2.Client, other_tenant: httpx2.Client, session_id: str
) -> None:
    key = new_key()
    mine = rest.run(http, "'mine'", session_id, execution_id=key)
    unknown = rest.problem(other_tenant.get(f"/api/executions/{new_key()}"), 404, "not_found")
    foreign = rest.problem(other_tenant.get(f"/api/executions/{key}"), 404, "not_found")
    assert foreign == unknown
    theirs = rest.run(other_tenant, "'theirs'", "default", execution_id=key)
    assert (theirs["result"], theirs["replayed"]) == ("'theirs'", False)
    assert http.get(f"/api/executions/{key}").json() == mine | {"replayed": True}


@pytest.mark.covers("C13")
def test_a_refused_call_does_not_use_its_id_up(http: httpx2.Client, session_id: str) -> None:
    key = new_key()
    missing = {"code": "1", "session_id": "ses_" + "a" * 26, "execution_id": key}
    rest.problem(http.post("/api/execute", json=missing), 404, "not_found")
    assert rest.run(http, "2", session_id, execution_id=key)["result"] == "2"


@pytest.mark.covers("C01")
def test_the_answer_of_a_call_without_an_id_can_be_read_again(http: httpx2.Client, session_id: str) -> None:
    first = rest.run(http, "40 + 2", session_id)
    assert http.get(f"/api/executions/{first['execution_id']}").json() == first | {"replayed": True}


@pytest.mark.covers("C13")
def test_a_second_execution_waits_a_little_and_then_is_told_busy(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "import time", session_id)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(rest.run, http, "time.sleep(8)\n'slow'", session_id)
        _until_busy(http, session_id)
        answer = http.post("/api/execute", json={"code": "1", "session_id": session_id})
        busy = rest.problem(answer, 409, "session_busy")
        assert busy["retryable"] is True
        assert slow.result()["result"] == "'slow'"
    with ThreadPoolExecutor(2) as pool:
        short = pool.submit(rest.run, http, "time.sleep(1)\n'short'", session_id)
        _until_busy(http, session_id)
        assert rest.value(http, "'after'", session_id) == "'after'"
        assert short.result()["result"] == "'short'"


@pytest.mark.covers("C13")
def test_a_client_that_goes_away_interrupts_its_code(server: Server, http: httpx2.Client, session_id: str) -> None:
    key = new_key()
    rest.run(http, "import time; reached = None", session_id)
    code = (
        "try:\n    time.sleep(60)\n    reached = 'end'\n"
        "except KeyboardInterrupt:\n    reached = 'interrupted'\n    raise"
    )
    gone = threading.Event()

    def leave() -> None:
        with rest.client(server) as impatient, pytest.raises(httpx2.ReadTimeout):
            impatient.post(
                "/api/execute",
                json={"code": code, "session_id": session_id, "execution_id": key},
                timeout=httpx2.Timeout(5, read=1.0),
            )
        gone.set()

    threading.Thread(target=leave).start()
    assert gone.wait(20)
    assert rest.value(http, "reached", session_id) == "'interrupted'"
    stored = http.get(f"/api/executions/{key}").json()
    assert stored["success"] is False
    assert stored["error"]["code"] == "interrupted"


@pytest.mark.covers("C01")
@pytest.mark.attack("RES12")
def test_a_flood_of_output_is_cut_and_said(http: httpx2.Client, session_id: str) -> None:
    flooded = rest.run(http, "print('x' * (8 << 20)); print('the end')", session_id)
    assert flooded["success"] is True
    assert len(flooded["stdout"]) < 3 << 20
    assert flooded["stdout"].endswith("the end\n")
    assert any("stdout" in note for note in flooded["notes"])


@pytest.mark.covers("C01")
def test_odd_text_passes_through(http: httpx2.Client, session_id: str) -> None:
    code = (
        "import os, sys\nprint('é日本🙂\\x00\\x1b[31m')\nsys.stdout.flush()\n"
        "_ = os.write(1, b'\\xff\\xfe\\n')\n'\\x00é'"
    )
    odd = rest.run(http, code, session_id)
    assert odd["success"] is True
    assert odd["stdout"].startswith("é日本🙂\x00\x1b[31m\n")
    assert odd["result"] == "'\\x00é'"
    assert json.loads(http.get(f"/api/executions/{odd['execution_id']}").content)["stdout"] == odd["stdout"]


def _until_busy(http: httpx2.Client, session_id: str) -> None:
    deadline = time.monotonic() + 10
    while http.get(f"/api/sessions/{session_id}").json()["sandbox"] != "busy":
        assert time.monotonic() < deadline, "the execution never began"
        time.sleep(0.02)
