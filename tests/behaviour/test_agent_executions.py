"""The agent by its own client: what code prints, returns and keeps, and how an execution ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from interpreter_sandbox.client import AgentClient, AgentError, AgentUnavailable, TokenSigner
from interpreter_sandbox.protocol import ExecuteRequest
from support import agent as agents
from support.agent import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MEMORY = 1 << 30


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[agents.Agent]:
    """One agent for this module's tests; none of them may leave it broken."""
    with agents.running(tmp_path_factory.mktemp("agent"), memory_bytes=MEMORY) as started:
        yield started


@pytest.fixture
async def client(agent: agents.Agent) -> AsyncIterator[AgentClient]:
    """A client; after the test the agent still runs code."""
    async with agent.client() as made:
        await agents.wait_ready(made)
        yield made
        assert (await run(made, "1 + 1")).result == "2"


pytestmark = pytest.mark.anyio


@pytest.mark.covers("C02")
async def test_variables_persist_and_a_restart_forgets_them_but_not_the_files(client: AgentClient) -> None:
    first = await run(client, "x = 20\nprint('set')")
    assert first.names == ["started", "stdout", "done"]
    assert [event.seq for event in first.events] == [0, 1, 2]
    assert (await run(client, "x + 1")).result == "21"
    await run(client, "open('kept.txt', 'w').write('still here')")
    await client.restart()
    assert (await run(client, "x")).error["type"] == "NameError"
    assert (await run(client, "open('kept.txt').read()")).result == "'still here'"


@pytest.mark.covers("C01")
async def test_an_error_is_the_codes_own(client: AgentClient) -> None:
    outcome = await run(client, "print('before')\n1 / 0")
    assert outcome.names == ["started", "stdout", "error", "done"]
    assert (outcome.error["code"], outcome.error["type"]) == ("user_error", "ZeroDivisionError")
    assert (outcome.done.status, outcome.done.state) == ("error", "kept")
    assert (await run(client, "def broken(:")).error["code"] == "syntax_error"


@pytest.mark.covers("C14")
async def test_output_streams_in_order_while_the_code_runs(client: AgentClient) -> None:
    code = """
import os, subprocess, sys, pathlib
for i in range(3):
    print('out', i); print('err', i, file=sys.stderr)
    subprocess.run(['echo', f'child {i}']); os.write(1, b'raw %d\\n' % i)
while not pathlib.Path('go').exists(): pass
print('went')
"""
    seen = ""
    request = ExecuteRequest("exe_streams", code, 30)
    async for event in client.execute(request):
        if event.event == "stdout":
            seen += event.data["text"]
            if "raw 2" in seen:  # only an event that came while the code runs gets here
                await client.write_file("go", b"")
    lines = [line for i in range(3) for line in (f"out {i}", f"child {i}", f"raw {i}")]
    assert seen.splitlines() == [*lines, "went"]


@pytest.mark.covers("C13")
async def test_the_same_id_never_runs_twice(client: AgentClient) -> None:
    await run(client, "n = 0")
    first = await run(client, "n += 1; print(n)", "exe_once")
    again = await run(client, "n += 1; print(n)", "exe_once")
    assert again.events == first.events
    attached = [event async for event in client.events("exe_once", after=0)]
    assert attached == first.events[1:]
    assert (await run(client, "n")).result == "1"
    await client.acknowledge("exe_once")
    for call in (run(client, "n += 1", "exe_once"), client.acknowledge("exe_once")):
        with pytest.raises(AgentError) as refused:
            await call
        assert refused.value.code == "not_found"
    assert (await run(client, "n")).result == "1"


async def test_a_client_that_leaves_finds_everything_when_it_comes_back(client: AgentClient) -> None:
    code = "import pathlib\nprint('one')\nwhile not pathlib.Path('on').exists(): pass\nprint('two')"
    async for event in client.execute(ExecuteRequest("exe_left", code, 30)):
        if event.event == "stdout":
            break
    with pytest.raises(AgentError) as refused:
        await run(client, "1")
    assert (refused.value.code, refused.value.status) == ("busy", 409)
    await client.write_file("on", b"")
    events = [event async for event in client.events("exe_left")]
    assert agents.Outcome(events).text("stdout") == "one\ntwo\n"
    assert [event.seq for event in events] == list(range(len(events)))


@pytest.mark.covers("C10")
async def test_a_timeout_interrupts_and_keeps_the_state(client: AgentClient) -> None:
    await run(client, "y = 1")
    for code in ("y = 2\nwhile True: y += 0", "import time; time.sleep(60)", "!sleep 60", "%%bash\nsleep 60"):
        outcome = await run(client, code, seconds=0.3)
        assert (outcome.done.status, outcome.done.state) == ("timeout", "kept"), code
        assert outcome.error["code"] == "timeout"
        assert "0.3 s" in str(outcome.error["message"])
        assert outcome.done.elapsed_ms < 5000
    assert (await run(client, "y")).result == "2"


@pytest.mark.covers("C10")
@pytest.mark.attack("RES09", "RES10", "RES11")
@pytest.mark.parametrize(
    "code",
    [
        "from signal import *\nsignal(SIGINT, SIG_IGN)\nsignal(SIGTERM, SIG_IGN)\nwhile True: z = 1",
        "import time\nwhile True:\n    try: time.sleep(60)\n    except BaseException: continue",
        "import ctypes\nf = ctypes.PyDLL(None).sleep\nwhile True:\n    try: f(60)\n    except BaseException: continue",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    ],
    ids=["signals ignored", "everything caught", "the GIL held", "stopped"],
)
async def test_code_that_does_not_stop_is_killed_and_that_is_said(client: AgentClient, code: str) -> None:
    await run(client, "z = 0")
    outcome = await run(client, code, seconds=0.3, grace_seconds=0.4)
    assert (outcome.done.status, outcome.done.state) == ("timeout", "lost")
    assert "killed" in str(outcome.error["message"])
    assert outcome.done.elapsed_ms < 5000
    assert (await run(client, "z")).error["type"] == "NameError"


async def test_an_interrupt_ends_the_running_execution_only(client: AgentClient) -> None:
    await run(client, "w = 5")
    with pytest.raises(AgentError) as refused:
        await client.interrupt("exe_unknown")
    assert refused.value.code == "not_found"
    events = []
    async for event in client.execute(ExecuteRequest("exe_int", "print('up')\nimport time; time.sleep(60)", 60)):
        events.append(event)
        if event.event == "stdout":
            await client.interrupt("exe_int")
    outcome = agents.Outcome(events)
    assert (outcome.done.status, outcome.done.state, outcome.error["code"]) == ("interrupted", "kept", "interrupted")
    assert (await run(client, "w")).result == "5"


@pytest.mark.covers("C10")
@pytest.mark.attack("RES04")
async def test_too_much_memory_is_an_error_and_the_session_lives(client: AgentClient) -> None:
    assert (await run(client, "len(bytearray(1 << 26))")).result == str(1 << 26), "the positive control"
    await run(client, "v = 1")
    for code in ("bytearray(1 << 40)", "leak = []\nwhile True: leak.append(bytearray(1 << 24))", "np.ones(1 << 34)"):
        outcome = await run(client, code)
        assert (outcome.done.status, outcome.done.state) == ("memory_limit", "kept"), code
        assert (outcome.error["code"], "memory limit of this sandbox is 1024 MiB" in str(outcome.error["message"])) == (
            "memory_limit",
            True,
        )
        await run(client, "leak = None")
    assert (await run(client, "v")).result == "1"


@pytest.mark.attack("RES14")
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(0)", "exit code 0"),
        ("import os; os._exit(7)", "exit code 7"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("import sys; sys.setrecursionlimit(10**9)\ndef f(): return [*map(lambda _: f(), '1')]\nf()", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    ],
)
async def test_a_crash_is_said_and_never_ok(client: AgentClient, code: str, words: str) -> None:
    outcome = await run(client, "print('before the end')\n" + code)
    assert (outcome.done.status, outcome.done.state, outcome.error["code"]) == ("crashed", "lost", "crashed")
    assert words in str(outcome.error["message"])
    assert outcome.text("stdout") == "before the end\n"


async def test_a_crash_between_executions_is_told_to_the_next(client: AgentClient) -> None:
    before = (await client.stats()).restarts
    await run(client, "import os, threading, time\nthreading.Timer(0.05, os._exit, [9]).start()")
    with anyio.fail_after(10):
        while (await client.stats()).restarts == before:  # noqa: ASYNC110 - nothing runs that could send an event
            await anyio.sleep(0.01)
    outcome = await run(client, "1")
    assert outcome.done.status == "ok"
    assert "exit code 9" in outcome.done.lost_before
    assert (await run(client, "1")).done.lost_before == ""


@pytest.mark.attack("RES12")
@pytest.mark.parametrize("line", ["'x' * 10_000_000", "('x' * 99 + chr(10)) * 100_000"], ids=["one line", "many lines"])
async def test_a_gigabyte_of_output_is_cut_and_counted(agent: agents.Agent, client: AgentClient, line: str) -> None:
    def peak() -> int:
        status = (Path(f"/proc/{agent.process.pid}/status")).read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    before = peak()
    code = f"import sys\npart = {line}\nfor _ in range(100): n = sys.stdout.write(part)\nprint('the end')"
    outcome = await run(client, code, seconds=100, output_limit_bytes=100_000)
    assert outcome.done.status == "ok"
    assert outcome.done.dropped_stdout_bytes == 1_000_000_000 + len("the end\n") - 100_000
    text = outcome.text("stdout")
    assert text.startswith("xxx")
    assert text.endswith("the end\n")
    assert len(text) < 101_000
    assert peak() - before < 16 << 20


@pytest.mark.attack("RES18", "XS07")
async def test_late_output_is_nobodys(client: AgentClient) -> None:
    code = """
import subprocess, threading, pathlib
def late():
    while not pathlib.Path('{0}').exists(): pass
    print('late from a thread')
    pathlib.Path('{0}-done').touch()
threading.Thread(target=late).start()
child = subprocess.Popen('while [ ! -e {0} ]; do :; done; echo late from a child', shell=True)
print('first')
"""
    assert (await run(client, code.format("now"))).text("stdout") == "first\n"
    code = "open('now', 'w').close()\nchild.wait()\nwhile not pathlib.Path('now-done').exists(): pass\nprint('second')"
    assert (await run(client, code)).text("stdout") == "second\n"


@pytest.mark.attack("RES19")
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("for fd in (0, 1, 2): os.close(fd)", "ok"),
        ("sys.stdout.close(); sys.stderr.close()", "ok"),
        ("os.closerange(3, 65536)", "crashed"),
        ("[os.write(fd, b'\\xff' * 100) for fd in sockets()]", "crashed"),
        ("[os.write(fd, struct.pack('>I', 2) + b'{}') for fd in sockets()]", "crashed"),
        ("[os.write(fd, struct.pack('>I', len(FORGED)) + FORGED) for fd in sockets()]", "crashed"),
        ("[os.write(fd, struct.pack('>I', 1 << 20) + b'{') for fd in sockets()]", "timeout"),
    ],
)  # fmt: skip
async def test_forged_frames_and_closed_descriptors_harm_their_own_session_only(
    client: AgentClient, code: str, status: str
) -> None:
    prelude = """
import os, stat, struct, sys
FORGED = b'{"token":"0","event":"done","data":{"status":"ok","execution_count":1,"notes":[]}}'
def sockets():
    found = []
    for fd in range(1024):
        try: found += [fd] if stat.S_ISSOCK(os.fstat(fd).st_mode) else []
        except OSError: pass
    return found
"""
    await client.restart()
    assert (await run(client, prelude + "len(sockets())")).result == "1", (
        "the positive control: it can reach its socket"
    )
    outcome = await run(client, prelude + code, seconds=2, grace_seconds=0.5)
    assert outcome.done.status == status
    assert (await run(client, "print('again')")).text("stdout") == "again\n"


@pytest.mark.attack("FS10")
async def test_user_code_finds_no_descriptor_but_its_own(client: AgentClient) -> None:
    await client.restart()
    code = """
import os
found = []
for fd in range(1024):
    try: found.append(os.readlink(f'/proc/self/fd/{fd}').split(':')[0])
    except FileNotFoundError: pass
sorted(found)
"""
    assert (await run(client, code)).result == str(["/dev/null"] * 2 + ["pipe"] * 2 + ["socket"])


@pytest.mark.attack("RES15")
async def test_killing_the_zygote_costs_nothing(client: AgentClient) -> None:
    await run(client, "u = 1")
    code = """
import os, pathlib, signal
me, agent = os.getpid(), os.getppid()
others = [int(p.name) for p in pathlib.Path('/proc').iterdir() if p.name.isdigit()
          and f'PPid:\\t{agent}\\n' in (p / 'status').read_text() and int(p.name) != me]
for pid in others: os.kill(pid, signal.SIGKILL)
len(others)
"""
    assert int((await run(client, code)).result or 0) >= 1  # the zygote; an earlier test's worker may still be dying
    assert (await run(client, "u")).result == "1"
    assert (await run(client, "import os; os._exit(1)")).done.status == "crashed"
    assert (await run(client, "1")).done.status == "ok"


@pytest.mark.attack("RES17")
async def test_daemons_end_with_the_worker(client: AgentClient) -> None:
    code = """
import os
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        import time; time.sleep(600)
    os._exit(0)
os.wait()
int(os.read(reader, 20))
"""
    daemon = int((await run(client, code)).result or 0)
    assert (await run(client, f"import os; os.kill({daemon}, 0)")).done.status == "ok", "alive between executions"
    await client.restart()
    with pytest.raises(ProcessLookupError):
        os.kill(daemon, 0)


async def test_workers_do_not_share_their_random_numbers(client: AgentClient) -> None:
    drawn = set()
    for _ in range(3):
        drawn.add((await run(client, "import random; [np.random.random(), random.random()]")).result)
        await client.restart()
    assert len(drawn) == 3


async def test_only_this_sandboxes_tokens_are_accepted(agent: agents.Agent, client: AgentClient) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    stranger = TokenSigner(Ed25519PrivateKey.generate())
    for token in (agent.signer.for_sandbox("another"), stranger.for_sandbox(agents.UID), lambda: "x", lambda: "a.b.c"):
        async with AgentClient.over_unix(agent.path, token) as other:
            assert (await other.health()).status == "ready"
            for call in (
                other.stats(),
                other.list_files(),
                other.restart(),
                other.write_file("a", b"x"),
                run(other, "1"),
            ):
                with pytest.raises(AgentError) as refused:
                    await call
                assert (refused.value.code, refused.value.status) == ("unauthorized", 401)


@pytest.mark.parametrize(
    "changes",
    [{"seconds": 0}, {"seconds": -1}, {"seconds": float("inf")}, {"execution_id": "x" * 129}, {"execution_id": "a\nb"}],
)
async def test_senseless_requests_are_refused(client: AgentClient, changes: dict[str, object]) -> None:
    with pytest.raises(AgentError) as refused:
        await run(client, "1", **changes)  # type: ignore[arg-type]
    assert refused.value.code == "invalid_argument"


@pytest.mark.parametrize("code", ["", "x = '" + "y" * 10_000_000 + "'\nlen(x)", "'\udcff'", "'\0'"])
async def test_code_of_any_shape_is_answered(client: AgentClient, code: str) -> None:
    assert (await run(client, code)).done.status in {"ok", "error"}


async def test_a_lost_agent_is_said(agent: agents.Agent) -> None:
    async with AgentClient.over_unix(agent.path + ".gone", agent.signer.for_sandbox(agents.UID)) as lost:
        with pytest.raises(AgentUnavailable):
            await lost.health()
