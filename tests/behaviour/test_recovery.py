"""What a client is told when the server or a sandbox went away: never a second run, never silence about lost state."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import httpx2
import pytest

from support import rest
from support import server as real_server

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {"WARM_POOL": "0", "IDLE_TIMEOUT": "3"}


@pytest.mark.covers("C13", "S01")
def test_a_server_killed_under_an_execution_says_outcome_unknown_and_lost_state(tmp_path: Path) -> None:
    """Kill -9 while code runs, then the same data folder, key and execution ids with a new server."""
    first = real_server.start(tmp_path / "data", SETTINGS)
    with rest.client(first) as http:
        made = rest.run(http, "x = 1", "", execution_id="finished")
        session_id = made["session_info"]["session_id"]
        body = {"code": "import time; time.sleep(60)", "session_id": session_id, "execution_id": "unfinished"}

        def call() -> None:
            with pytest.raises(httpx2.TransportError), rest.client(first) as other:
                other.post("/api/execute", json=body)

        caller = threading.Thread(target=call)
        caller.start()
        deadline = time.monotonic() + 20
        while http.get(f"/api/sessions/{session_id}").json()["sandbox"] != "busy":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first.stop(signal.SIGKILL)
        caller.join(20)
    second = real_server.start(tmp_path / "data", SETTINGS | {"API_KEY": first.api_key})
    try:
        with rest.client(second) as http:
            for answer in (http.post("/api/execute", json=body), http.get("/api/executions/unfinished")):
                problem = rest.problem(answer, 409, "outcome_unknown")
                assert problem["details"]["execution_id"] == "unfinished"
            again = rest.run(http, "x = 1", "", execution_id="finished")
            assert again == made | {"replayed": True}
            lost = rest.run(http, "'x' in globals()", session_id)
            assert (lost["result"], lost["session_info"]["state"]) == ("False", "lost")
            assert "gone" in lost["session_info"]["notice"]
            assert rest.run(http, "1", session_id)["session_info"]["state"] == "kept"
    finally:
        second.stop()


@pytest.mark.covers("S03")
def test_an_idle_session_gives_its_sandbox_back_and_the_next_call_says_so(tmp_path: Path) -> None:
    server = real_server.start(tmp_path / "data", SETTINGS)
    try:
        with rest.client(server) as http:
            session_id = rest.run(http, "x = 1", "")["session_info"]["session_id"]
            deadline = time.monotonic() + 30
            while http.get(f"/api/sessions/{session_id}").json()["sandbox"] == "running":
                assert time.monotonic() < deadline, "the idle sandbox was never released"
                time.sleep(0.1)
            lost = rest.run(http, "'x' in globals()", session_id)
            assert (lost["result"], lost["session_info"]["state"]) == ("False", "lost")
            assert "idle" in lost["session_info"]["notice"]
    finally:
        server.stop()
