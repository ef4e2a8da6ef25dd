"""RES09-RES11, RES14: code that will not stop is stopped, and code that ends its process is no success."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from support.attack import SANDBOX_PYTHON, SYSTEM_PYTHON, Session, assert_usable_or_said
from support.host import agent_of

if TYPE_CHECKING:
    from pathlib import Path


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


STUBBORN = {
    "RES09 signals ignored": (
        "import signal\nfor s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):\n"
        "    signal.signal(s, signal.SIG_IGN)\nwhile True:\n    pass"
    ),
    "RES10 one long C call": "sum(range(10**12))",
    "RES10 a huge power": "9 ** 9 ** 9",
    "RES10 regular expression": "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
    "RES11 except BaseException": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        continue"
    ),
    "RES11 in a destructor": (
        "class C:\n    def __del__(self):\n        while True:\n            try:\n                while True:\n"
        "                    pass\n            except BaseException:\n                continue\nc = C()\ndel c"
    ),
    "RES09 child in its own session": (
        "import os, signal, time\nif os.fork() == 0:\n    os.setsid()\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "while True:\n    time.sleep(1)"
    ),
}
POLITE = {"RES10 regular expression", "RES10 a huge power"}
"""Here CPython's own C code looks for signals now and then: SIGINT is enough, and the state may be kept."""


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
