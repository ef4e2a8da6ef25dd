"""Scripts of the workspace: saved under a name, run as ``python script.py`` would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support import rest
from support.mcp_transports import connect, text_of

if TYPE_CHECKING:
    import httpx2

    from support.server import Server

REPORT = """
import os, sys
if __name__ == "__main__":
    print(sys.argv, os.getcwd(), "v" in globals())
    print("to stderr", file=sys.stderr)
    open("report.csv", "w").write("a\\n1\\n")
    v = 2
"""


def save(http: httpx2.Client, session_id: str, content: str, name: str = "job") -> str:
    answer = http.post(f"/api/sessions/{session_id}/scripts", json={"name": name, "content": content})
    assert answer.status_code == 201, answer.text
    path = answer.json()["path"]
    assert isinstance(path, str)
    return path


def run(http: httpx2.Client, session_id: str, path: str, *args: str, **body: Any) -> dict[str, Any]:
    json = {"path": path, "args": args, **body}
    answer = http.post(f"/api/sessions/{session_id}/scripts/run", json=json)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert isinstance(result, dict)
    return result


@pytest.mark.covers("C12", "R02")
def test_a_script_runs_as_a_program_beside_the_sessions_variables(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "v = 1; 41", session_id)
    path = save(http, session_id, REPORT)
    assert path == "scripts/job.py"
    args = ["a b", "'; import os", '"$(id)"', "ü\n", "--x=1"]
    result = run(http, session_id, path, *args)
    assert result["success"], result
    assert result["stdout"] == f"{['scripts/job.py', *args]} /workspace False\n"
    assert result["stderr"] == "to stderr\n"
    assert (result["result"], result["error"]) == (None, None)
    assert [file["path"] for file in result["files"]] == ["report.csv"]
    assert result["session_info"]["state"] == "kept"
    assert rest.value(http, "v, _", session_id) == "(1, 41)"


@pytest.mark.covers("C12")
def test_it_starts_in_the_workspace_wherever_the_session_is(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "import os; os.chdir('/tmp')", session_id)
    assert run(http, session_id, save(http, session_id, "import os\nprint(os.getcwd())"))["stdout"] == "/workspace\n"


@pytest.mark.covers("C12")
def test_a_script_finds_the_modules_and_libraries_beside_it(http: httpx2.Client, session_id: str) -> None:
    save(http, session_id, "def double(x):\n    return 2 * x", "helper.py")
    path = save(http, session_id, "import numpy\nfrom helper import double\nprint(double(numpy.int64(21)))")
    assert run(http, session_id, path)["stdout"] == "42\n"


@pytest.mark.covers("C12")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys; sys.exit(3)", "exit code 3"),
        ("raise ValueError('broken')", "exit code 1"),
        ("def (", "exit code 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
    ],
)
def test_a_script_that_fails_is_an_error_that_says_how(
    http: httpx2.Client, session_id: str, source: str, message: str
) -> None:
    rest.run(http, "v = 1", session_id)
    result = run(http, session_id, save(http, session_id, source))
    assert result["success"] is False
    assert (result["error"]["code"], result["error"]["type"]) == ("user_error", "ScriptError")
    assert message in result["error"]["message"]
    if "broken" in source:
        assert "ValueError: broken" in result["stderr"]
    assert rest.value(http, "v", session_id) == "1"


@pytest.mark.covers("C12")
@pytest.mark.parametrize("deaf", [False, True])
def test_a_script_over_its_time_is_ended_and_the_session_lives(
    http: httpx2.Client, session_id: str, deaf: bool
) -> None:
    rest.run(http, "v = 1", session_id)
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" if deaf else ""
    source = f"{ignore}import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    result = run(http, session_id, save(http, session_id, source), timeout=1.5)
    assert (result["success"], result["error"]["code"]) == (False, "timeout")
    assert result["elapsed_ms"] < 10_000
    left = f"import os; os.path.exists('/proc/{int(result['stdout'])}')"
    assert rest.value(http, left, session_id) == "False"
    assert rest.value(http, "v", session_id) == "1"


@pytest.mark.covers("C12")
@pytest.mark.parametrize("name", ["", "../a", "a/b", "a\\b", "/etc/a", ".hidden", "-c", "a\x00", "a b", "n" * 101, "ü"])
def test_a_name_that_is_no_plain_file_name_is_refused(http: httpx2.Client, session_id: str, name: str) -> None:
    answer = http.post(f"/api/sessions/{session_id}/scripts", json={"name": name, "content": "1"})
    assert rest.problem(answer, 400, "invalid_argument")["details"]["argument"] == "name"


@pytest.mark.covers("C12")
@pytest.mark.attack("FS03", "FS08")
def test_only_a_file_of_the_workspace_is_run(http: httpx2.Client, session_id: str) -> None:
    made = "import os; os.mkdir('d'); os.symlink('/usr/lib/python3.11/this.py', 'out.py'); os.mkfifo('f')"
    assert rest.run(http, made, session_id)["success"]

    def refused(path: str) -> httpx2.Response:
        return http.post(f"/api/sessions/{session_id}/scripts/run", json={"path": path})

    for path in ("../a.py", "/etc/passwd", "a/../../b.py", "", "d", "out.py", "f", "a\x00.py"):
        rest.problem(refused(path), 400, "invalid_argument")
    rest.problem(refused("scripts/none.py"), 404, "not_found")


@pytest.mark.covers("C12")
@pytest.mark.parametrize("args", [["a\x00"], ["a"] * 1001, ["a" * 70_000]])
def test_arguments_that_no_command_line_holds_are_refused(
    http: httpx2.Client, session_id: str, args: list[str]
) -> None:
    path = save(http, session_id, "1")
    answer = http.post(f"/api/sessions/{session_id}/scripts/run", json={"path": path, "args": args})
    assert rest.problem(answer, 400, "invalid_argument")["details"]["argument"] == "args"


@pytest.mark.covers("C12")
def test_a_file_whose_name_looks_like_an_option_is_a_file(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "_ = open('-V', 'w').write('print(1 + 1)')", session_id)
    assert run(http, session_id, "-V")["stdout"] == "2\n"


@pytest.mark.anyio
@pytest.mark.covers("C12", "R03")
async def test_the_tools_save_and_run_and_show_output_as_it_comes(server: Server) -> None:
    source = "import sys, time\nprint('first')\ntime.sleep(0.5)\nprint(sys.argv[1])\nsys.exit(len(sys.argv[1]))"
    shown: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        shown.append(message or "")

    key = rest.make_key(server, "scripter", "scripters")
    async with connect("http-2026-07-28", server, api_key=key) as client:
        saved = await client.call_tool("save_script", {"name": "slow", "content": source})
        assert not saved.is_error, text_of(saved)
        path = saved.structured_content["path"]
        result = await client.call_tool("run_script", {"path": path, "args": ["end"]}, progress_callback=on_progress)
        assert result.is_error
        answer = result.structured_content
        assert answer["stdout"] == "first\nend\n"
        assert "exit code 3" in answer["error"]["message"]
        assert any("first" in text and "end" not in text for text in shown), shown  # before the end of the script
        missing = await client.call_tool("run_script", {"path": "scripts/none.py"})
        assert missing.is_error
        assert missing.structured_content["code"] == "not_found"
