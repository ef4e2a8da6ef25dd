"""What ordinary code in one session can make the shared api do: stall for everybody, fail, or keep silent."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import httpx2
import pytest

if TYPE_CHECKING:
    from support.attack import Session, Target

STALL_SECONDS = 2.0
"""On a busy machine with two processors; the attack took 6 seconds and more from everybody."""

FORGE = """\
import gc, struct
from interpreter_sandbox.runtime import wire, worker
me = next(o for o in gc.get_objects() if isinstance(o, worker.Worker))
def forge(event, data):
    me._control.sendall(wire.encode({"token": me._cell.token, "event": event, "data": data}))
"""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
NAMES = ("a\0b.png", "../../etc/passwd", "a\r\nSet-Cookie: x=1.png", "/etc/passwd", "\ud800.png", "", "x" * 255)
PATHS = (None, "a\0b.png", "../../etc/x.png", "/etc/x.png", "\ud800/x.png", "y/" * 5000 + "x.png")

FIND_ZYGOTE = """\
import os
def zygote():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"runtime.zygote" in file.read() and int(pid) != os.getpid():
                return int(pid)
zygote()
"""


@pytest.mark.attack("RES12", "RES13")
@pytest.mark.parametrize("value", ["[[]] * 1_900_000", "[0] * 2_700_000"], ids=["lists", "numbers"])
def test_a_display_of_a_million_values_stalls_nobody_and_is_said(
    target: Target, fresh_session: Session, value: str
) -> None:
    """Under the limit in bytes, but each value costs the api, in its one thread, far more than it cost the code."""
    replies: list[dict[str, object]] = []
    code = f"for _ in range(2):\n    display({{'application/json': {value}}}, raw=True)"
    call = threading.Thread(target=lambda: replies.append(fresh_session.run(code, 60)))
    call.start()
    worst = 0.0
    while call.is_alive():
        began = time.monotonic()
        assert target.request("GET", "/health").status_code == 200
        worst = max(worst, time.monotonic() - began)
        call.join(0.02)
    [reply] = replies
    assert reply["success"], reply
    assert any("values" in note for note in reply["notes"]), reply["notes"]  # type: ignore[attr-defined]
    assert worst < STALL_SECONDS


@pytest.mark.attack("RES19", "UP01", "UP05")
def test_forged_names_of_charts_neither_fail_the_api_nor_leave_the_workspace(
    target: Target, fresh_session: Session
) -> None:
    """User code shares its process with the worker, so it can say of a chart what it likes."""
    for name, path in [*((name, None) for name in NAMES), *(("a.png", path) for path in PATHS)]:
        chart = {"name": name, "origin": "savefig", "mime_type": "image/png", "path": path}
        display = {"data": {"image/png": PNG}, "metadata": {}, "chart": chart}
        reply = fresh_session.run(FORGE + f"forge('display', {display!r})")
        [stored] = reply["charts"]
        assert "\0" not in stored["path"]
        assert ".." not in stored["path"].split("/")
        assert not stored["path"].startswith("/")
        assert len(stored["path"]) <= 4096
        answer = target.call(lambda url=stored["url"]: httpx2.get(url))
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
    fresh_session.assert_usable()


@pytest.mark.attack("RES19")
def test_a_worker_that_is_killed_does_not_take_the_zygote_with_it(fresh_session: Session) -> None:
    """A killed worker takes a moment to be gone; mistaking it for a fork bomb cost each kill a second of imports."""
    before = fresh_session.run(FIND_ZYGOTE)["result"]
    assert before is not None
    for _ in range(3):
        fresh_session.run("kept = bytearray(200 << 20)")  # memory that takes time to be freed
        reply = fresh_session.run(FORGE + "me._control.sendall(struct.pack('>I', 0xFFFFFFFF))\nwhile True: pass")
        assert reply["error"]["code"] == "crashed", reply
    assert fresh_session.run(FIND_ZYGOTE)["result"] == before


@pytest.mark.attack("RES15")
def test_variables_that_a_leftover_process_destroyed_between_two_calls_are_reported_lost(
    target: Target, fresh_session: Session
) -> None:
    """Nothing ran when the worker was killed: the next call's ``state`` says it all the same."""
    fresh_session.run(
        "import os, signal, time\n"
        "x = 1\n"
        "open('waiting', 'w').close()\n"
        "if os.fork() == 0:\n"
        "    while os.path.exists('waiting'):\n"
        "        time.sleep(0.01)\n"
        "    open('gone', 'w').close()\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    os._exit(0)\n"
    )
    files = f"/api/sessions/{fresh_session.id}/files"
    assert target.request("DELETE", files, params={"path": "waiting"}).status_code == 200
    deadline = time.monotonic() + 20
    while "gone" not in {file["path"] for file in target.request("GET", files).json()["files"]}:
        assert time.monotonic() < deadline
    reply = fresh_session.run("'x' in dir()")
    assert reply["session_info"]["state"] == "lost", reply
    assert "Variables" in reply["session_info"]["notice"] or "variables" in reply["session_info"]["notice"]
    after = fresh_session.run("'x' in dir()")
    assert (after["result"], after["session_info"]["state"]) == ("False", "kept")
