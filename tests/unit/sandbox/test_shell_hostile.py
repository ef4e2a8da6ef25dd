"""Objects and code that attack the shell itself: the cell's outcome stays true and the next cell runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.shell import ShellServer

pytestmark = [pytest.mark.attack("RES13")]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('boom')", "ValueError: boom"),
        ("raise SystemExit(3)", "SystemExit"),
        ("return repr(self)", "RecursionError"),
        ("return 5", "TypeError"),
        ("import os; return os.read(999, 1)", "OSError"),
        ("class E(Exception):\n      def __str__(self): raise E()\n    raise E()", "message could not be made"),
    ],
)
def test_a_repr_that_misbehaves_becomes_a_note(shell: ShellServer, body: str, said: str) -> None:
    cell, displayed, after = shell.session(
        f"class Bad:\n  def __repr__(self):\n    {body}\nBad()", "display(Bad()); 'went on'", "1 + 1"
    )
    assert cell.text is not None
    assert "Bad object" in cell.text
    assert said in cell.text
    assert said in " ".join(cell.notes)
    assert displayed.text == "'went on'"
    assert after.text == "2"


@pytest.mark.parametrize("method", ["_repr_html_", "_repr_mimebundle_", "_ipython_display_", "_repr_png_"])
def test_a_rich_representation_that_misbehaves_leaves_the_text(shell: ShellServer, method: str) -> None:
    for raised in ("ValueError('boom')", "SystemExit(3)"):
        cell = shell.cell(f"class Bad:\n  def {method}(self, **k): raise {raised}\nBad()")
        assert cell.text is not None
        assert "Bad" in cell.text
        assert raised.split("(")[0] in " ".join(cell.notes)


def test_representations_that_lie_about_their_type(shell: ShellServer) -> None:
    cell = shell.cell(
        "loop = {}; loop['me'] = loop\n"
        "class Odd:\n  def _repr_mimebundle_(self, **k):\n"
        "    return {'text/plain': 'odd', "
        "'application/json': {'set': {1}, 'nan': float('nan'), 'loop': loop, 'raw': b'x'},"
        " 'x/y': type('S', (str,), {'__str__': lambda s: 1/0})('sub')}\nOdd()"
    )
    assert cell.result is not None
    assert cell.text == "odd"
    assert cell.result["application/json"]["set"] == [1]
    assert cell.result["application/json"]["nan"] is None
    assert cell.result["x/y"] == "sub"
    json.dumps(cell.result, allow_nan=False)


def test_a_repr_of_fifty_megabytes_is_cut_and_said(shell: ShellServer) -> None:
    cell = shell.cell("class Big:\n  def __repr__(self): return 'x' * 50_000_000\nBig()")
    assert cell.text is not None
    assert len(cell.text) < 110_000
    assert "left out" in cell.text
    assert "50,000,000" in " ".join(cell.notes)


def test_a_page_over_the_display_limit_leaves_the_text(shell: ShellServer) -> None:
    cell = shell.cell(
        "class Page:\n  def _repr_html_(self): return 'x' * 3_000_000\nPage()", display_limit_bytes=1 << 20
    )
    assert cell.result is not None
    assert set(cell.result) == {"text/plain"}
    assert "text/html of 3,000,002 bytes left out" in cell.result["text/plain"]
    assert len(json.dumps(cell.events)) < 1 << 20


def test_a_traceback_of_fifty_megabytes_is_bounded(shell: ShellServer) -> None:
    message, lines, deep, chain = shell.session(
        "raise ValueError('x' * 50_000_000)",
        "raise ValueError('line\\n' * 5_000_000)",
        "def f(n): return f(n + 1)\nf(0)",
        "def f(n):\n  try: 1/0\n  except ZeroDivisionError:\n    if n: f(n - 1)\n    raise\nf(300)",
    )
    for cell in (message, lines, deep, chain):
        assert cell.status == "error"
        assert cell.error is not None
        assert len(cell.error["message"]) < 5_000
        assert len(cell.error["traceback"]) <= 200
        assert sum(len(line.encode()) for line in cell.error["traceback"]) <= 64 << 10
    assert deep.error is not None
    assert deep.error["type"] == "RecursionError"


@pytest.mark.parametrize("raised", ["1/0", "raise SystemExit", "return 7", "return self.__str__()"])
def test_an_exception_whose_text_misbehaves_is_still_an_error(shell: ShellServer, raised: str) -> None:
    cell, after = shell.session(f"class E(Exception):\n  def __str__(self):\n    {raised}\nraise E()", "1 + 1")
    assert cell.status == "error"
    assert cell.error is not None
    assert cell.error["type"] == "E"
    assert cell.error["traceback"]
    assert after.text == "2"


def test_an_interrupt_in_a_repr_ends_the_cell_not_the_session(shell: ShellServer) -> None:
    cell, after = shell.session(
        "import signal\nsignal.signal(signal.SIGALRM, signal.default_int_handler)\n"
        "class Slow:\n  def __repr__(self):\n    signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "    while True: pass\nSlow()",
        "1 + 1",
    )
    assert cell.status == "interrupted"
    assert after.text == "2"


@pytest.mark.attack("RES20")
@pytest.mark.parametrize(
    "code",
    [
        "import json\njson.dumps = json.loads = None\njson.JSONEncoder.encode = None",
        "import sys\nsys.stdout = sys.stderr = None",
        "import sys\nclass Bad:\n  def write(self, text): raise OSError\n  flush = write\nsys.stdout = Bad()",
        "import sys\nsys.stdout.close()",
        "import sys\nsys.displayhook = None; sys.excepthook = None",
        "import builtins\nbuiltins.len = builtins.isinstance = builtins.sorted = None",
        "import builtins\nbuiltins.print = builtins.open = builtins.__import__ = None",
        "import base64\nbase64.b64encode = None",
        "import traceback\ntraceback.TracebackException = None",
        "del np, pd",
    ],
)
def test_replacing_what_the_shell_stands_on_harms_at_most_one_more_cell(shell: ShellServer, code: str) -> None:
    _, shaken, after, failing = shell.session(code, "1 + 1", "class A: pass\n6 * 7", "1 / 0")
    assert shaken.status in {"ok", "error"}
    assert after.text == "42"
    assert failing.status == "error"
    assert failing.error is not None
    assert failing.error["type"] == "ZeroDivisionError"
