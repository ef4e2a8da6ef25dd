"""RES01-RES08, RES15-RES19: processes, threads and descriptors without end, and attacks on the agent's own."""

from __future__ import annotations

import secrets
import subprocess
import time

import psutil
import pytest

from support.attack import SYSTEM_PYTHON, Session, Target, assert_contained, assert_usable_or_said, control, payload
from support.host import agent_of

MIB = 1 << 20


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


@pytest.mark.attack("RES04", "RES06")
def test_limits_cannot_be_lifted(session: Session) -> None:
    attack = payload("resources.raise_limits")
    lower = 'exec prlimit --data=4000000000: --nproc=500: --fsize=4000000000: "$@"'
    assert_contained(control(attack, before=lower), session.attack(attack))
    session.assert_usable()


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
    assert_usable_or_said(fresh_session, attacked, crashed)


@pytest.mark.attack("RES17")
def test_a_daemon_ends_with_its_session(target: Target) -> None:
    """Control: on the host a double fork outlives the process that made it."""
    daemon = (  # the pipe closes when the daemon's program has begun
        "import os\nr, w = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.execv('/bin/sleep', ['sleep', '{}'])\n    os._exit(0)\nos.close(w)\nos.wait()\nos.read(r, 1)"
    )
    seconds = [str(54_321 + secrets.randbelow(10**6) * 2 + which) for which in range(2)]

    def running(which: int) -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", seconds[which]]]

    subprocess.run([SYSTEM_PYTHON, "-c", daemon.format(seconds[0])], check=True)
    outlived = running(0)
    for process in outlived:
        process.kill()
    assert len(outlived) == 1, "void"
    attacked = target.session(name="daemon")
    ran = attacked.run(daemon.format(seconds[1]))
    assert ran["success"], ran["error"]
    daemons = running(1)
    assert len(daemons) == 1, "void: the daemon does not run"
    attacked.delete()
    psutil.wait_procs(daemons, timeout=10)
    assert not daemons[0].is_running()


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


@pytest.mark.attack("RES08")
def test_watches_and_pipes_used_up(fresh_session: Session) -> None:
    """What the kernel counts by user, the agent shares with the code: it must do without."""
    attacked = fresh_session.run(
        "import ctypes, os\n_libc = ctypes.CDLL(None, use_errno=True)\nkept = []\n"
        "while (d := _libc.inotify_init1(0)) >= 0: kept.append(d)\n"
        "print('instances', len(kept))\n"
        "try:\n    while True:\n        r, w = os.pipe(); kept += [r, w]; os.set_blocking(w, False)\n"
        "        try: os.write(w, bytes(1 << 16))\n        except BlockingIOError: pass\n"
        "except OSError as e: print(e.errno)"
    )
    assert "instances" in attacked["stdout"], attacked
    ran = fresh_session.run("print('x' * 100_000); 1 + 1")
    assert ran["success"], ran
    assert len(ran["stdout"]) == 100_001
    fresh_session.run("import os\nfor d in kept: os.close(d)")
    found = fresh_session.run("open('found.csv', 'w').write('1')")
    assert [file["name"] for file in found["files"]] == ["found.csv"]
    fresh_session.assert_usable()
