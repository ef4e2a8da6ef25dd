"""RES: a session that wants everything gets its share, a clear error, and keeps nobody else from working."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from support.attack import SANDBOX_PYTHON, SYSTEM_PYTHON, Session, Target, assert_contained, control, payload
from support.attack_limits import MEMORY_MB, WORKSPACE_MB
from support.host import agent_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Memory-backed scratch space for the controls, emptied at once."""
    folder = Path("/dev/shm/canary-scratch")
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def assert_usable_or_said(session: Session, attacked: dict[str, Any]) -> None:
    """The session answers; where the attack cost it its state, a reply said so."""
    after = session.assert_usable()
    if session.run("'kept' in dir()")["result"] != "True":
        told = [attacked.get("session_info", {}), after["session_info"]]
        assert "lost" in [info.get("state") for info in told], told
        assert any(info.get("notice") for info in told), told


def survives_politeness(code: str, python: Path = SYSTEM_PYTHON) -> bool:
    """Whether a plain process with this code lives on after SIGINT and SIGTERM: what a polite timeout would send."""
    with subprocess.Popen([python, "-c", "print(flush=True)\n" + code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(0.3)  # until the code itself runs; there is no event to wait for
        process.send_signal(signal.SIGINT)
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            return True
        finally:
            process.kill()
    return False


@pytest.mark.attack("RES01")
def test_many_processes(session: Session) -> None:
    attack = payload("resources.forks", count=1500)
    inside = session.attack(attack, timeout=50)
    assert_contained(control(attack, python=SYSTEM_PYTHON), inside)
    assert 10 < inside.facts["reached"] < 1000
    session.assert_usable()


@pytest.mark.attack("RES01")
def test_fork_bomb(fresh_session: Session) -> None:
    """No control: the bounded one above is it."""
    fresh_session.run("kept = 1")
    started = time.monotonic()
    attacked = fresh_session.run(
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass", timeout=2
    )
    assert attacked["success"] is False
    assert time.monotonic() - started < 15
    assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES01", "RES19")
def test_a_forked_copy_does_not_answer_for_its_parent(fresh_session: Session) -> None:
    """Both copies come back from ``os.fork()`` in the middle of the cell; there is one answer, and one next one."""
    ran = fresh_session.run("import os\nkept = 1\nchild = os.fork()\nprint('once' if child else '')\n'answer'")
    assert ran["result"] == "'answer'"
    for number in range(5):
        assert fresh_session.run(f"{number} + 100")["result"] == str(number + 100)
    fresh_session.assert_usable()


@pytest.mark.attack("RES03")
def test_many_threads(session: Session) -> None:
    attack = payload("resources.threads", count=10_000)
    assert_contained(control(attack, python=SYSTEM_PYTHON), session.attack(attack, timeout=50))
    session.assert_usable()


@pytest.mark.attack("RES04")
def test_memory(session: Session) -> None:
    attack = payload("resources.memory", total_mib=MEMORY_MB + 256)
    inside = session.attack(attack, timeout=50)
    assert_contained(control(attack), inside)
    assert all("MemoryError" in refusal for refusal in inside.refused.values()), inside.refused
    session.assert_usable()


@pytest.mark.attack("RES04")
@pytest.mark.parametrize(
    "code",
    ["bytearray(1 << 40)", "leak = []\nwhile True:\n    leak.append(bytearray(1 << 20))"],
    ids=["one piece", "leak"],
)
def test_the_error_names_memory_and_the_agent_lives(fresh_session: Session, code: str) -> None:
    fresh_session.run("kept = 1")
    agent = agent_of(fresh_session)
    attacked = fresh_session.run(code, timeout=30)
    assert attacked["success"] is False
    assert attacked["error"]["code"] == "memory_limit", attacked["error"]
    assert "memory" in (attacked["error"]["message"] + attacked["error"]["remedy"]).lower()
    assert agent_of(fresh_session) == agent
    assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES05")
@pytest.mark.parametrize("kind", ["shared_memory", "anonymous_files", "shared_mapping"])
def test_memory_beside_the_processes_limit(fresh_session: Session, target: Target, kind: str) -> None:
    """More than the sandbox's memory in places that no limit of a process counts; the host must not pay for it."""
    fresh_session.run("kept = 1")
    attack = payload(f"resources.{kind}", total_mib=3 * MEMORY_MB)
    unsandboxed = control(attack, python=SYSTEM_PYTHON)
    assert not unsandboxed.refused, "void"
    before = psutil.virtual_memory().available
    answer = fresh_session.post(attack.source(), timeout=40)
    after = psutil.virtual_memory().available
    text = answer.text
    assert '"succeeded": true' not in text.replace("\\", ""), text[:2000]
    assert before - after < 2.5 * MEMORY_MB * MIB
    attacked = answer.json()
    if answer.status_code != 200:
        assert attacked["code"] == "sandbox_lost", text
        after_loss = fresh_session.assert_usable()
        assert after_loss["session_info"]["state"] == "lost"
    else:
        assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES06")
def test_disk(session: Session, target: Target, scratch: Path) -> None:
    unsandboxed = control(payload("resources.disk", total_mib=2 * WORKSPACE_MB, folder=str(scratch)))
    attack = payload("resources.disk", total_mib=2 * WORKSPACE_MB, folder="/workspace")
    assert_contained(unsandboxed, session.attack(attack, timeout=50))
    session.assert_usable()


@pytest.mark.attack("RES06")
def test_other_writable_places_are_bounded(session: Session, scratch: Path) -> None:
    """Every folder that the code can write to: /tmp, /dev/shm, its home."""
    unsandboxed = control(payload("resources.disk", total_mib=3 * MEMORY_MB, folder=str(scratch)))
    assert not unsandboxed.refused, "void"
    writable = session.run(
        "import os\nsorted({p for p, _, _ in os.walk('/') if not p.startswith(('/proc', '/sys')) "
        "and os.access(p, os.W_OK) and (os.path.ismount(p) or p in ('/tmp', '/dev/shm', os.environ['HOME']))})"
    )["result"]
    assert "/workspace" in writable
    for folder in ("/tmp", "/dev/shm"):
        inside = session.attack(payload("resources.disk", total_mib=3 * MEMORY_MB, folder=folder), timeout=50)
        assert not inside.succeeded, folder
    session.assert_usable()


@pytest.mark.attack("RES06")
def test_a_full_workspace_is_said(fresh_session: Session, target: Target) -> None:
    """The code gets the kernel's error, an upload a typed one; reading and deleting still work."""
    filled = fresh_session.run(
        "try:\n    with open('big.bin', 'wb', 0) as f:\n        while f.write(bytes(1 << 20)): pass\n"
        "except OSError as e:\n    print(e.errno)"
    )
    assert filled["stdout"].strip() in {"28", "27"}, filled
    while fresh_session.run("with open('more.bin', 'ab', 0) as f: f.write(bytes(1 << 16)) == 1 << 16")["success"]:
        pass
    content = f"/api/sessions/{fresh_session.id}/files/content"
    refused = target.request("PUT", content, params={"path": "up.bin"}, content=bytes(4 * MIB))
    assert 400 <= refused.status_code < 600, refused.text
    assert refused.json()["code"] != "internal", refused.text
    assert "space" in refused.text.lower()
    assert target.request("DELETE", content, params={"path": "big.bin"}).status_code < 300
    assert target.request("PUT", content, params={"path": "up.bin"}, content=bytes(MIB)).status_code < 300
    fresh_session.assert_usable()


@pytest.mark.attack("RES07")
def test_empty_files(session: Session, scratch: Path) -> None:
    """One more than the workspace has inodes stands for ten million."""
    count = 100_001
    unsandboxed = control(payload("resources.empty_files", count=count, folder=str(scratch)), python=SYSTEM_PYTHON)
    attack = payload("resources.empty_files", count=count, folder="/workspace")
    inside = session.attack(attack, timeout=50)
    assert_contained(unsandboxed, inside)
    assert inside.facts["reached"] > 1000
    session.assert_usable()


@pytest.mark.attack("RES07")
def test_many_files_do_not_slow_the_next_cells(fresh_session: Session) -> None:
    made = fresh_session.run("for n in range(50_000):\n    open(f'f{n}', 'x').close()", timeout=50)
    assert made["success"], made["error"]
    started = time.monotonic()
    fresh_session.assert_usable()
    assert time.monotonic() - started < 2


@pytest.mark.attack("RES08")
def test_descriptors(session: Session) -> None:
    attack = payload("resources.open_files", count=5000)
    assert_contained(control(attack, python=SYSTEM_PYTHON), session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("RES08")
def test_a_cell_that_keeps_every_descriptor(fresh_session: Session) -> None:
    """The worker has none left for itself, and still answers: with an error, or with a fresh worker."""
    attacked = fresh_session.run(
        "import os\nkept = []\ntry:\n    while True:\n        kept.append(os.open('/dev/null', 0))\n"
        "except OSError as e:\n    print(e.errno)"
    )
    assert attacked["stdout"].strip() == "24"
    ran = fresh_session.run("1 + 1")
    assert ran["result"] == "2", ran
    fresh_session.run("import os\nfor d in kept: os.close(d)")
    fresh_session.assert_usable()


@pytest.mark.attack("RES04", "RES08")
def test_limits_cannot_be_lifted(session: Session) -> None:
    attack = payload("resources.raise_limits")
    before = "ulimit -d 4000000; ulimit -u 5000; ulimit -n 5000; ulimit -f 4000000"
    assert_contained(control(attack, namespaces=["--mount"], before=before), session.attack(attack))
    session.assert_usable()


STUBBORN = {
    "RES09 signals ignored": (
        "import signal\nfor s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):\n"
        "    signal.signal(s, signal.SIG_IGN)\nwhile True:\n    pass"
    ),
    "RES10 one long C call": "9 ** 9 ** 9",
    "RES10 regular expression": "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
    "RES11 except BaseException": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        continue"
    ),
    "RES11 in a destructor": (
        "class C:\n    def __del__(self):\n        while True:\n            try:\n                while True: pass\n"
        "            except BaseException: pass\nc = C()\ndel c"
    ),
    "RES09 child in its own session": (
        "import os, signal, time\nif os.fork() == 0:\n    os.setsid()\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "while True:\n    time.sleep(1)"
    ),
}
POLITE = {"RES10 regular expression"}
"""CPython's own matcher looks for signals: here SIGINT is enough, and the state may be kept."""


@pytest.mark.attack("RES09", "RES10", "RES11")
@pytest.mark.parametrize("name", STUBBORN)
def test_code_that_will_not_stop_is_stopped(fresh_session: Session, name: str) -> None:
    code = STUBBORN[name]
    assert survives_politeness(code) or name in POLITE, "void: SIGINT is enough to stop this"
    fresh_session.run("kept = 1")
    agent = agent_of(fresh_session)
    started = time.monotonic()
    attacked = fresh_session.run(code, timeout=1)
    assert time.monotonic() - started < 8
    assert attacked["success"] is False
    assert attacked["error"]["code"] == "timeout", attacked["error"]
    assert agent.alive
    assert_usable_or_said(fresh_session, attacked)
    burnt = fresh_session.run("import time, os\nn = os.times(); time.sleep(.2); 1")
    assert burnt["success"]
    descendants = [p for p in psutil.Process(agent.pid).children(recursive=True) if p.cpu_percent(0.2) > 50]
    assert not descendants, "something of the killed cell still burns"


@pytest.mark.attack("RES12")
@pytest.mark.parametrize("newline", [True, False], ids=["lines", "one line"])
@pytest.mark.parametrize("stream", [1, 2], ids=["stdout", "stderr"])
def test_a_gigabyte_of_output(fresh_session: Session, target: Target, newline: bool, stream: int) -> None:
    """Control: all of it comes out of a plain process. Inside: cut, said, and the agent's memory is flat."""
    block = "b'x' * 99 + b'\\n'" if newline else "b'x' * 100"
    code = f"import os\n_b = ({block}) * 10000\n_n = 0\nwhile _n < 1 << 30:\n    _n += os.write({stream}, _b)"
    counted = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {"2>&1 >/dev/null" if stream == 2 else ""} | wc -c', SYSTEM_PYTHON, code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(counted.stdout) >= 1 << 30, "void"
    agent = agent_of(fresh_session)
    server = psutil.Process(target.server.process.pid)
    before, server_before = agent.peak_bytes(), server.memory_info().rss
    attacked = fresh_session.run(code, timeout=50)
    assert attacked["success"], attacked["error"]
    text = attacked["stdout" if stream == 1 else "stderr"]
    assert 1000 < len(text) <= 3 * MIB
    assert attacked["notes"], "what was cut must be said"
    assert agent.peak_bytes() - before < 48 * MIB
    assert server.memory_info().rss - server_before < 64 * MIB
    fresh_session.assert_usable()


@pytest.mark.attack("RES12")
def test_output_by_print(fresh_session: Session) -> None:
    agent = agent_of(fresh_session)
    before = agent.peak_bytes()
    attacked = fresh_session.run("for _ in range(300):\n    print('y' * (1 << 20))\n'end'", timeout=50)
    assert attacked["result"] == "'end'"
    assert len(attacked["stdout"]) <= 3 * MIB
    assert attacked["notes"]
    assert agent.peak_bytes() - before < 48 * MIB
    fresh_session.assert_usable()


HOSTILE_REPRS = {
    "recurses": "return repr(self)",
    "raises": "raise KeyboardInterrupt",
    "loops": "\n        while True: pass",
    "exits": "import os; os._exit(0)",
    "lies": "return 5",
    "is huge": "return 'z' * 200_000_000",
    "prints": "print('q' * 10_000_000); return 'q'",
    "changes the world": "import sys; sys.stdout = None; sys.stderr = None; return 'q'",
}


@pytest.mark.attack("RES13")
@pytest.mark.parametrize("name", HOSTILE_REPRS)
def test_a_hostile_repr(fresh_session: Session, name: str) -> None:
    """As the last value, and inside an exception's message. Control: it is called, by plain Python too."""
    define = f"class Hostile:\n    def __repr__(self): {HOSTILE_REPRS[name]}\n    __str__ = __repr__\n"
    try:
        plain = subprocess.run(
            [SYSTEM_PYTHON, "-c", define + "print(repr(Hostile()))\nprint('unharmed')"],
            capture_output=True,
            text=True,
            timeout=2,
            check=False,
        )
        harmed = plain.returncode != 0 or "unharmed" not in plain.stdout or len(plain.stdout) > MIB
    except subprocess.TimeoutExpired:
        harmed = True
    assert harmed, "void: this does no harm"
    fresh_session.run("kept = 1")
    for code in ("Hostile()", "raise ValueError(Hostile())", "[Hostile()]"):
        attacked = fresh_session.run(define + code, timeout=2)
        assert len(str(attacked)) < 20 * MIB
        if code.startswith("raise") or (name in {"loops", "exits"} and code == "Hostile()"):
            assert attacked["success"] is False, attacked
    assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES13")
@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('x' * 50_000_000)",
        "class E(Exception): pass\nraise type('N' * 1_000_000, (E,), {})('m')",
        "def f(n):\n    try:\n        raise ValueError('y' * 100_000)\n"
        "    except ValueError:\n        f(n - 1) if n else 1 / 0\nf(400)",
        "raise ExceptionGroup('g', [ValueError('z' * 1000) for _ in range(50_000)])",
        "exec('\\n' * 5_000_000 + '1/0')",
    ],
    ids=["message", "type name", "chain", "group", "line number"],
)
def test_a_huge_traceback(fresh_session: Session, code: str) -> None:
    """Control: a plain process prints it all."""
    agent = agent_of(fresh_session)
    before = agent.peak_bytes()
    attacked = fresh_session.run(code, timeout=20)
    assert attacked["success"] is False
    assert len(str(attacked)) < 4 * MIB
    assert agent.peak_bytes() - before < 160 * MIB
    fresh_session.assert_usable()


CRASHES = {
    "exit 0": "import os; os._exit(0)",
    "exit 3": "import os; os._exit(3)",
    "SIGSEGV": "import ctypes; ctypes.string_at(0)",
    "SIGKILL": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "import os; os.abort()",
    "stack overflow": (
        "import sys\nsys.setrecursionlimit(10**8)\nl = []\nfor _ in range(10**6): l = [l]\n"
        "def f(): return f()\nrepr(l) and f()"
    ),
    "exec of another program": "import os; os.execv('/bin/true', ['true'])",
    "exit from a thread": "import threading, os\nthreading.Thread(target=os._exit, args=(0,)).start()\nwhile 1: pass",
    "SIGTERM": "import os, time\nos.kill(os.getpid(), 15)\ntime.sleep(5)",
}


@pytest.mark.attack("RES14")
@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_is_never_success(fresh_session: Session, name: str) -> None:
    """Control: the same kills a plain process; with status 0, where a careless runner reads "success"."""
    plain = subprocess.run(
        [SANDBOX_PYTHON, "-c", CRASHES[name] + "\nprint('unharmed')"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "unharmed" not in plain.stdout, "void: the process lives"
    fresh_session.run("kept = 1")
    agent = agent_of(fresh_session)
    attacked = fresh_session.run("print('before', flush=True)\n" + CRASHES[name], timeout=10)
    assert attacked["success"] is False
    assert attacked["error"]["code"] in {"crashed", "user_error", "memory_limit"}, attacked["error"]
    assert attacked["stdout"].startswith("before"), "what was printed before the crash is kept"
    assert agent.alive
    assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES15")
@pytest.mark.parametrize(
    "code",
    [
        "import os; os.kill(1, 9)",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.kill(-1, 9)",
        "import os; os.kill(1, 19); os.kill(os.getppid(), 19)",
        "import os, signal\nfor s in range(1, 65):\n    try: os.kill(1, s)\n    except OSError: pass",
        "import os\nfor s in (19, 9):\n    for p in os.listdir('/proc'):\n"
        "        if p.isdigit() and int(p) != os.getpid():\n"
        "            try: os.kill(int(p), s)\n            except OSError: pass",
    ],
    ids=["kill 1", "kill parent", "kill -1", "stop parents", "every signal to 1", "stop, then kill everyone"],
)
def test_killing_the_agent_or_the_zygote(fresh_session: Session, target: Target, code: str) -> None:
    """Pid 1 does not notice; whatever else dies, the session comes back, with its state or with the word "lost"."""
    fresh_session.run("kept = 1")
    agent = agent_of(fresh_session)
    attacked = fresh_session.run(code, timeout=3)
    assert agent.alive
    crashed = fresh_session.run("import os; os._exit(1)")  # needs the zygote for a new worker
    assert crashed["success"] is False
    assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES17")
def test_a_daemon_ends_with_its_session(target: Target) -> None:
    """Control: on the host a double fork outlives the process that made it."""
    daemon = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.execv('/bin/sleep', ['sleep', '{}'])\n    os._exit(0)\nos.wait()"
    )
    subprocess.run([SYSTEM_PYTHON, "-c", daemon.format("54321")], check=True)
    outlived = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "54321"]]
    assert len(outlived) == 1, "void"
    outlived[0].kill()
    attacked = target.session(name="daemon")
    ran = attacked.run(daemon.format("54322"))
    assert ran["success"], ran["error"]
    daemons = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "54322"]]
    assert len(daemons) == 1, "void: the daemon does not run"
    attacked.delete()
    psutil.wait_procs(daemons, timeout=10)
    assert not daemons[0].is_running()


@pytest.mark.attack("RES18")
def test_late_output_is_not_the_next_cells(fresh_session: Session) -> None:
    fresh_session.run(
        "import threading\n_go = threading.Event()\n"
        "def _late():\n    _go.wait()\n    print('LATE')\n    import os; os.write(1, b'LATE-FD\\n')\n"
        "_thread = threading.Thread(target=_late); _thread.start()"
    )
    fresh_session.run("_go.set()")
    after = fresh_session.run("_thread.join()\nprint('mine')")
    assert after["stdout"].splitlines()[-1] == "mine"
    # Both prints may come during this cell's own time; what must not be is that they appear after it ended.
    assert "LATE" not in fresh_session.run("print('next')")["stdout"]


@pytest.mark.attack("RES19")
@pytest.mark.parametrize(
    "code",
    [
        "import os\nfor d in (0, 1, 2):\n    os.close(d)\n'done'",
        "import os\nos.closerange(0, 4096)\n'done'",
        "import os, socket, stat, struct, json\n"
        "frame = json.dumps({'event': 'done', 'type': 'done', 'status': 'ok', 'data': {'status': 'ok'}}).encode()\n"
        "for d in range(3, 256):\n    try:\n        if stat.S_ISSOCK(os.fstat(d).st_mode):\n"
        "            for f in (struct.pack('!I', len(frame)) + frame, b'\\xff' * 65536, frame + b'\\n'):\n"
        "                os.write(d, f)\n    except OSError: pass\nimport os; os._exit(0)",
        "import os, stat\nfor d in range(3, 256):\n    try:\n        if stat.S_ISSOCK(os.fstat(d).st_mode):\n"
        "            os.write(d, b'\\x7f\\xff\\xff\\xff')\n    except OSError: pass\nimport time; time.sleep(30)",
    ],
    ids=["close 0-2", "close all", "forge frames", "promise a long frame"],
)
def test_the_agents_channel_abused(fresh_session: Session, code: str) -> None:
    fresh_session.run("kept = 1")
    agent = agent_of(fresh_session)
    before = agent.peak_bytes()
    started = time.monotonic()
    attacked = fresh_session.run(code, timeout=3)
    assert time.monotonic() - started < 12
    if "_exit" in code or "sleep" in code:
        assert attacked["success"] is False, "a forged frame must not make a success"
    assert agent.alive
    assert agent.peak_bytes() - before < 64 * MIB
    assert_usable_or_said(fresh_session, attacked)


@pytest.mark.attack("RES20")
def test_monkeypatches_harm_their_own_session_only(fresh_session: Session, target: Target) -> None:
    fresh_session.run(
        "import json, sys, builtins, socket, os\njson.dumps = json.loads = lambda *a, **k: '{\"evil\": 1}'\n"
        "builtins.print = builtins.len = builtins.isinstance = lambda *a, **k: 666\n"
        "sys.stdout = sys.stderr = None\nsocket.socket.send = socket.socket.sendall = None\nos.write = None",
        timeout=3,
    )
    answer = fresh_session.post("1 + 1", timeout=3)
    assert answer.status_code < 500 or answer.json()["code"] == "sandbox_lost", answer.text
    other = target.session(name="after RES20")
    ran = other.run("import json; print(len(json.dumps({'a': 1})))")
    assert (ran["success"], ran["stdout"]) == (True, "8\n")
    other.delete()
