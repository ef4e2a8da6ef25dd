"""What a cell may be written in, and how it ends: IPython's language, results, errors (C03, C04)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.shell import ShellServer

pytestmark = [pytest.mark.covers("C03")]


def test_the_last_expression_is_the_result_and_underscores_remember_it(shell: ShellServer) -> None:
    first, second, third, silent, none = shell.session("40 + 2", "_ + 1", "_1 + _2", "5;", "None")
    assert [first.text, second.text, third.text] == ["42", "43", "85"]
    assert silent.text is None
    assert none.text is None
    assert [first.count, second.count, third.count] == [1, 2, 3]
    assert first.events == [{"event": "result", "data": {"data": {"text/plain": "42"}, "metadata": {}, "chart": None}}]


def test_a_session_starts_empty_whatever_was_rehearsed_before_the_fork(shell: ShellServer) -> None:
    names = "sorted(name for name in globals() if not name.startswith('_'))"
    first, second = shell.session(f"{names}, len(Out), len(In), plt.get_fignums()", "_1 is Out[1], len(In)")
    assert first.text == "(['In', 'Out', 'exit', 'get_ipython', 'open', 'quit'], 0, 2, [])"
    assert second.text == "(True, 3)"


def test_shell_commands_write_to_the_cells_own_streams(shell: ShellServer) -> None:
    run, listed, failed, several = shell.session(
        "word = 'there'\nprint('before')\n!echo hello {word}; echo oops >&2\nprint('after')",
        "lines = !printf 'a\\nb'\nlines",
        "!exit 3\n_exit_code",
        '%%bash\nfor i in 1; do\necho "from bash" | tr a-z A-Z; done',
    )
    assert run.stdout == "before\nhello there\nafter\n"
    assert run.stderr == "oops\n"
    assert listed.text == "['a', 'b']"
    assert failed.text == "3"
    assert several.stdout == "FROM BASH\n"


def test_c_code_that_buffers_for_itself_is_heard(shell: ShellServer) -> None:
    cell = shell.cell("import ctypes; ctypes.CDLL(None).printf(b'from C\\n');")
    assert cell.stdout == "from C\n"


def test_magics(shell: ShellServer) -> None:
    timed, inline, unknown, written = shell.session(
        "%timeit -n1 -r1 sum(range(10))",
        "%matplotlib inline",
        "%no_such_magic",
        "%%writefile notes.txt\nkept",
    )
    assert "per loop" in timed.stdout
    assert (inline.status, inline.stdout, inline.stderr) == ("ok", "", "")
    assert unknown.error is not None
    assert unknown.error["type"] == "UsageError"
    assert "no_such_magic" in unknown.error["message"]
    assert written.status == "ok"
    assert (shell.workspace / "notes.txt").read_text() == "kept\n"


def test_top_level_await_keeps_one_loop_for_the_session(shell: ShellServer) -> None:
    start, later, plain = shell.session(
        "import asyncio\nqueue = asyncio.Queue()\ntask = asyncio.create_task(queue.get())\nawait asyncio.sleep(0)",
        "await queue.put('kept'); await task",
        "asyncio.run(asyncio.sleep(0, 'own loop'))",
    )
    assert start.status == "ok", start.error
    assert later.text == "'kept'"
    assert plain.text == "'own loop'"


def test_an_interrupted_await_does_not_go_on_in_the_next_cell(shell: ShellServer) -> None:
    interrupted, after = shell.session(
        "import asyncio, signal\ngone_on = []\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\nsignal.signal(signal.SIGALRM, signal.default_int_handler)\n"
        "await asyncio.sleep(1)\ngone_on.append(1)",
        "await asyncio.sleep(1.2); gone_on",
    )
    assert interrupted.status == "interrupted"
    assert interrupted.error is not None
    assert interrupted.error["code"] == "interrupted"
    assert after.text == "[]"


def test_question_marks_explain_on_stdout_without_colours(shell: ShellServer) -> None:
    short, long = shell.session("def greet(name):\n    '''Says hello.'''\n    return name\ngreet?", "greet??")
    assert "Says hello." in short.stdout
    assert "return name" in long.stdout
    assert "\x1b" not in short.stdout + long.stdout


@pytest.mark.parametrize("code", ["x = = 3", "return 5", "def f(:\n  pass", "a\0b", "'\ud800'", "(" * 400])
def test_text_that_is_no_program_is_a_syntax_error_and_the_session_goes_on(shell: ShellServer, code: str) -> None:
    refused, after = shell.session(code, "1 + 1")
    assert refused.status == "error"
    assert refused.error is not None
    assert refused.error["code"] == "syntax_error"
    assert refused.error["message"]
    assert after.text == "2"


@pytest.mark.parametrize("code", ["", "   \n", "# only a comment"])
def test_nothing_to_run_is_no_error(shell: ShellServer, code: str) -> None:
    assert shell.cell(code).status == "ok"


def test_a_traceback_shows_the_users_frames_and_source(shell: ShellServer) -> None:
    _, cell = shell.session(
        "def outer(n):\n    return inner(n)\ndef inner(n):\n    return 1 / n",
        "try:\n    outer(0)\nexcept ZeroDivisionError as error:\n"
        "    raise ValueError('\\x1b[31mred\\x1b[0m') from error",
    )
    assert cell.status == "error"
    assert cell.error is not None
    assert (cell.error["code"], cell.error["type"], cell.error["message"]) == ("user_error", "ValueError", "red")
    text = "\n".join(cell.error["traceback"])
    assert 'File "<cell 1>", line 4, in inner' in text
    assert "return 1 / n" in text
    assert "direct cause" in text
    assert "\x1b" not in text
    assert "IPython" not in text
    assert "interpreter_sandbox" not in text


def test_library_frames_stay_short(shell: ShellServer) -> None:
    cell = shell.cell("pd.DataFrame({'a': [1]})['b']")
    assert cell.error is not None
    assert cell.error["type"] == "KeyError"
    assert sum("File " in line for line in cell.error["traceback"]) <= 6


@pytest.mark.parametrize("code", ["exit()", "quit()", "exit", "import sys; sys.exit(3)", "raise SystemExit"])
def test_exit_says_that_it_does_not_end_a_session(shell: ShellServer, code: str) -> None:
    _, left, after = shell.session("x = 1", code, "x")
    assert left.error is not None
    assert "does not end a session" in left.error["message"]
    assert left.stderr == ""
    assert after.text == "1"


def test_input_says_that_there_is_no_keyboard(shell: ShellServer) -> None:
    cell = shell.cell("name = input('Your name? ')")
    assert cell.error is not None
    assert "no keyboard" in cell.error["message"]


def test_a_memory_error_names_memory_and_frees_what_the_frames_held(shell: ShellServer) -> None:
    lost, after = shell.session(
        "import weakref\nclass Big: pass\ndef f():\n    global seen\n    big = Big(); seen = weakref.ref(big)\n"
        "    return bytearray(1 << 60)\nf()",
        "seen() is None",
    )
    assert lost.status == "memory_limit"
    assert lost.error is not None
    assert "memory" in lost.error["message"]
    assert after.text == "True"


def test_leaves_nothing_in_the_home_folder(shell: ShellServer) -> None:
    assert shell.cell("1 + 1").status == "ok"
    assert list(shell.workspace.iterdir()) == []
    assert [path.name for path in shell.home.iterdir()] == ["matplotlib"]  # where MPLCONFIGDIR says


@pytest.mark.covers("C04")
def test_aliases_work_without_import_everywhere(shell: ShellServer) -> None:
    cells = shell.session(
        "def mean():\n    return np.mean(pd.Series([1, 2, 6]))\nfloat(mean())",
        "' '.join(alias.__name__ for alias in (pd, np, plt, sns, go, px, sm))",
        "import seaborn, plotly.express, plotly.graph_objects, statsmodels.api\n"
        "used = sns.lineplot, px.line, go.Figure, sm.OLS\n"
        "sns is seaborn, px is plotly.express, go is plotly.graph_objects, sm is statsmodels.api",
        "sm.OLS([1., 2., 3.], [1., 2., 3.]).fit().params.round(6).tolist()",
        "[name for name in ('pd', 'np', 'plt', 'sns', 'go', 'px', 'sm', 'safe_open') if name in globals()]",
    )
    assert [cell.text for cell in cells] == [
        "3.0",
        "'pandas numpy matplotlib.pyplot seaborn plotly.graph_objects plotly.express statsmodels.api'",
        "(True, True, True, True)",
        "[1.0]",
        "[]",
    ]


@pytest.mark.covers("C04")
def test_an_alias_never_shadows_the_users_own_name(shell: ShellServer) -> None:
    own, used, back = shell.session(
        "sns = px = pd = 7", "def f():\n    return sns + px + pd\nf()", "del pd\npd.__name__"
    )
    assert own.status == "ok"
    assert used.text == "21"
    assert back.text == "'pandas'"


@pytest.mark.covers("C04")
def test_the_heavy_aliases_cost_nothing_until_used(shell: ShellServer) -> None:
    cell = shell.cell("import sys\n[m for m in ('seaborn', 'plotly', 'statsmodels', 'scipy') if m in sys.modules]")
    assert cell.text == "[]"


@pytest.mark.covers("C04")
def test_safe_open_stays_in_the_workspace(shell: ShellServer) -> None:
    cells = shell.session(
        "with safe_open('deep/er/note.txt', 'w') as file:\n    file.write('kept')\n"
        "safe_open('deep/er/note.txt').read()",
        "safe_open('/etc/passwd')",
        "safe_open('../outside.txt', 'w')",
        "import os; os.symlink('/etc', 'link'); safe_open('link/passwd')",
    )
    assert cells[0].text == "'kept'"
    for cell in cells[1:]:
        assert cell.error is not None
        assert cell.error["type"] == "PermissionError"
        assert "outside the workspace" in cell.error["message"]


def test_dataframes_come_as_text_html_and_typed_preview(shell: ShellServer) -> None:
    wine, grouped, series, odd = shell.session(
        "from sklearn.datasets import load_wine\nwine = load_wine(as_frame=True).frame\nwine",
        "wine.groupby('target').alcohol.mean().to_frame()",
        "wine.alcohol.rename('strength')",
        "pd.DataFrame({'t': pd.to_datetime(['2024-02-29', None]), 'v': [float('nan'), float('inf')], 's': ['é', None],"
        " 'o': [{'a': 1}, [1]], 'i': pd.array([1, None], dtype='Int64')})",
    )
    assert wine.result is not None
    preview = wine.result["application/vnd.interpreter.dataframe+json"]
    assert (preview["total_rows"], len(preview["rows"]), preview["total_columns"]) == (178, 20, 14)
    assert preview["columns"][0] == {"name": "alcohol", "dtype": "float64"}
    assert preview["rows"][0][0] == 14.23
    assert wine.result["text/html"].count("<tr") <= 70
    assert "[178 rows x 14 columns]" in wine.result["text/plain"]
    assert grouped.result is not None
    preview = grouped.result["application/vnd.interpreter.dataframe+json"]
    assert preview["columns"][0] == {"name": "target", "dtype": "int64", "index": True}
    assert [row[0] for row in preview["rows"]] == [0, 1, 2]
    assert series.result is not None
    assert series.result["application/vnd.interpreter.dataframe+json"]["columns"][0]["name"] == "strength"
    assert odd.result is not None
    rows = odd.result["application/vnd.interpreter.dataframe+json"]["rows"]
    assert rows[0] == ["2024-02-29T00:00:00", None, "é", "{'a': 1}", 1]
    assert rows[1] == [None, None, None, "[1]", None]
    json.dumps(odd.result, allow_nan=False)
