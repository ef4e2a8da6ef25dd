"""RES12, RES13, RES18, RES20: output, values and errors made to hurt whoever reads them."""

from __future__ import annotations

import subprocess

import psutil
import pytest

from support.attack import SYSTEM_PYTHON, Session, Target, assert_usable_or_said
from support.host import agent_of

MIB = 1 << 20


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


@pytest.mark.attack("RES12")
@pytest.mark.parametrize(
    "code",
    [
        "from IPython.display import display, HTML\nfor _ in range(300):\n    display(HTML('h' * 5_000_000))",
        "from IPython.display import display, HTML\nfor n in range(100_000):\n    display(HTML('h'))",
        "class Rich:\n    def _repr_html_(self): return 'h' * 500_000_000\nRich()",
        "class Rich:\n    def _repr_mimebundle_(self, **_): \n"
        "        return {f'text/{n}': 'h' * 1000 for n in range(100_000)}\nRich()",
    ],
    ids=["large displays", "many displays", "a huge representation", "a huge bundle"],
)
def test_a_flood_of_displays(fresh_session: Session, target: Target, code: str) -> None:
    """Rich output is output too: bounded in the agent, in the server and in the answer."""
    agent = agent_of(fresh_session)
    server = psutil.Process(target.server.process.pid)
    before, server_before = agent.peak_bytes(), server.memory_info().rss
    answer = fresh_session.post(code, timeout=40)
    assert answer.status_code == 200, answer.text[:1000]
    assert len(answer.content) < 64 * MIB
    assert agent.peak_bytes() - before < 160 * MIB
    assert server.memory_info().rss - server_before < 256 * MIB
    fresh_session.assert_usable()


@pytest.mark.attack("RES12")
def test_a_flood_of_charts(fresh_session: Session) -> None:
    attacked = fresh_session.run(
        "import matplotlib.pyplot as plt\nfor n in range(60):\n    plt.figure(figsize=(1, 1)); plt.plot([n])",
        timeout=50,
    )
    assert attacked["success"], attacked["error"]
    assert len(attacked["charts"]) <= 20
    assert attacked["notes"], "what was dropped must be said"
    huge = fresh_session.run("plt.close('all')\nplt.figure(figsize=(600, 600), dpi=100)\nplt.plot([1]); plt.show()", 30)
    assert len(str(huge)) < 32 * MIB
    fresh_session.assert_usable()
