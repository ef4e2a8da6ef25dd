"""LocalBackend driven directly: claim, use, release, loss, refusal; and what is left on the host afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from interpreter_api.backends.base import SandboxClass
from interpreter_api.backends.local.backend import LocalBackend
from interpreter_api.errors import CapacityError, InvalidArgumentError, SandboxUnavailableError
from interpreter_sandbox.protocol import ExecuteRequest
from support import backend_server, local

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from interpreter_api.backends.base import Sandbox, SandboxInfo

    Mine = Callable[[], list[psutil.Process]]

pytestmark = pytest.mark.anyio

CLASS = SandboxClass(workspace_bytes=64 << 20, warm_pool_min=0)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has cgroups of version 1 and other uids")


@pytest.fixture
def mine() -> Mine:
    """What this test has started: the server that other tests share is not its business."""
    others = psutil.Process().children()
    return lambda: local.started_besides(others)


@asynccontextmanager
async def backend_of(
    sandbox_class: SandboxClass = CLASS, *, limit: int = 4, bwrap: str = "bwrap", environment: Path = local.ENVIRONMENT
) -> AsyncIterator[LocalBackend]:
    """A started backend; when the block ends, none of its processes and none of its sockets may be left."""
    with local.runtime_folder() as folder:
        backend = LocalBackend(
            {"default": sandbox_class},
            environment=environment,
            runtime_dir=folder,
            max_sandboxes=limit,
            bwrap=bwrap,
            claim_wait_seconds=120,
        )
        others = psutil.Process().children()
        await backend.start()
        try:
            yield backend
            mine = local.started_besides(others)
        finally:
            await backend.close()
        assert local.left_of(mine, seconds=0) == []
        assert list(folder.iterdir()) == []


async def run(sandbox: Sandbox, code: str, execution_id: str = "exe_1", seconds: float = 30) -> tuple[str, str]:
    """Run a cell: its status and its stdout."""
    request = ExecuteRequest(execution_id=execution_id, code=code, timeout_seconds=seconds)
    events = [event async for event in sandbox.client.execute(request)]
    stdout = "".join(event.data["text"] for event in events if event.event == "stdout")
    return events[-1].data["status"], stdout


async def until_warm(backend: LocalBackend, count: int = 1) -> list[SandboxInfo]:
    """Wait until so many sandboxes wait for a session."""
    async with asyncio.timeout(30):
        while True:
            warm = [info for info in await backend.list() if info.state == "warm"]
            if len(warm) >= count:
                return warm
            await asyncio.sleep(0.01)


async def test_a_claimed_sandbox_runs_code_and_keeps_its_state() -> None:
    async with backend_of() as backend:
        assert backend.posture().ready, backend.posture()
        assert backend.posture().kind == "bubblewrap"
        sandbox = await backend.claim("default", "ses_a", "owner")
        assert await run(sandbox, "x = 41; import os; print(os.getuid(), os.getcwd())") == ("ok", "1000 /workspace\n")
        assert await run(sandbox, "print(x + 1)", "exe_2") == ("ok", "42\n")
        assert [(i.uid, i.session_id, i.state) for i in await backend.list()] == [(sandbox.uid, "ses_a", "claimed")]


async def test_the_warm_pool_hands_out_what_is_ready_and_makes_another() -> None:
    async with backend_of(replace(CLASS, warm_pool_min=1)) as backend:
        warm = (await until_warm(backend))[0]
        sandbox = await backend.claim("default", "ses_a", "owner")
        assert sandbox.uid == warm.uid
        assert (await until_warm(backend))[0].uid != warm.uid


@pytest.mark.attack("RES17", "XS03")
async def test_release_leaves_no_process_and_no_sandbox_is_used_twice(mine: Mine) -> None:
    async with backend_of(limit=1) as backend:
        first = await backend.claim("default", "ses_a", "owner")
        assert await run(first, backend_server.DAEMON) == ("ok", "daemon\n")
        marks = ["/workspace/mark", "/tmp/mark", "/dev/shm/mark"]
        assert (await run(first, f"for p in {marks}: open(p, 'w').close()", "exe_2"))[0] == "ok"
        before = mine()
        assert len(before) >= 4  # bubblewrap, agent, worker, daemon
        await asyncio.gather(backend.release(first.uid), backend.release(first.uid))
        assert local.left_of(before, seconds=0) == []
        await backend.release("sbx_unknown")
        second = await backend.claim("default", "ses_a", "owner")
        assert second.uid != first.uid
        assert await run(second, f"import os; print([p for p in {marks} if os.path.exists(p)])") == ("ok", "[]\n")


async def test_over_the_limit_and_unknown_class_are_typed() -> None:
    async with backend_of(limit=1) as backend:
        await backend.claim("default", "ses_a", "owner")
        with pytest.raises(CapacityError):
            await backend.claim("default", "ses_b", "owner")
        with pytest.raises(InvalidArgumentError, match="huge"):
            await backend.claim("huge", "ses_b", "owner")


async def test_a_burst_of_claims_gets_a_sandbox_each_and_nobody_s_variables() -> None:
    async with backend_of(limit=6) as backend:
        sandboxes = await asyncio.gather(*(backend.claim("default", f"ses_{i}", "owner") for i in range(6)))
        assert len({sandbox.uid for sandbox in sandboxes}) == 6
        answers = await asyncio.gather(*(run(s, f"mark = {i}; print(mark)") for i, s in enumerate(sandboxes)))
        assert answers == [("ok", f"{i}\n") for i in range(6)]


async def test_a_sandbox_that_dies_is_told_to_the_watchers_and_a_released_one_is_not() -> None:
    async with backend_of() as backend:
        losses = backend.watch()
        released = await backend.claim("default", "ses_released", "owner")
        killed = await backend.claim("default", "ses_killed", "owner")
        await backend.release(released.uid)
        [bwrap] = [child for child in psutil.Process().children() if child.name() == "bwrap"]
        bwrap.kill()
        async with asyncio.timeout(10):
            lost = await anext(losses)
        assert (lost.uid, lost.session_id) == (killed.uid, "ses_killed")
        assert lost.reason
        assert await backend.list() == []


@needs_root
@pytest.mark.attack("RES05")
async def test_a_sandbox_out_of_memory_is_told_and_the_server_lives() -> None:
    small = replace(CLASS, memory_bytes=256 << 20, workspace_bytes=8 << 20)
    async with backend_of(small) as backend:
        assert backend.posture().degraded == []
        neighbour = await backend.claim("default", "ses_neighbour", "owner")
        sandbox = await backend.claim("default", "ses_a", "owner")
        code = """
import mmap, os
kept = []
for _ in range({}):
    fd = os.memfd_create("m"); os.ftruncate(fd, 64 << 20); m = mmap.mmap(fd, 64 << 20); kept.append(m)
    for i in range(0, 64 << 20, 4096): m[i] = 1
print("kept")
"""
        assert await run(sandbox, code.format(1)) == ("ok", "kept\n")  # the control
        status, stdout = await run(sandbox, code.format(32), "exe_2")
        assert status in ("crashed", "memory_limit")
        assert "kept" not in stdout
        assert await run(neighbour, "print(1 + 1)") == ("ok", "2\n")


@needs_root
async def test_outside_too_sandboxes_have_a_uid_of_their_own(mine: Mine) -> None:
    async with backend_of() as backend:
        await backend.claim("default", "ses_a", "owner")
        members = mine()
        assert members
        assert {member.uids().real for member in members}.isdisjoint({0})


@pytest.mark.parametrize("runs", [1, 2])
async def test_a_server_that_is_killed_leaves_nothing(runs: int) -> None:
    with local.runtime_folder() as folder:
        for _ in range(runs):
            server = await asyncio.create_subprocess_exec(
                sys.executable, backend_server.__file__, str(folder), "2", stdout=subprocess.PIPE
            )
            assert server.stdout is not None
            try:
                said = await asyncio.wait_for(server.stdout.readline(), 60)
                below = psutil.Process(server.pid).children(recursive=True)
            finally:
                server.send_signal(signal.SIGKILL)
                await server.wait()
            assert said.split() == [b"ready", b"bubblewrap"]
            assert len(below) >= 8  # two sandboxes at least: bubblewrap, agent, worker, daemon
            assert local.left_of(below) == []
        async with backend_of():  # the next server removes the groups of the killed one
            pass
        assert not _groups_of(server.pid)


def _groups_of(pid: int) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"*/power-interpreter/{pid}-*"))


async def test_without_bubblewrap_nothing_is_executed_and_the_fix_is_named(tmp_path: Path, mine: Mine) -> None:
    proof = tmp_path / "executed"
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\necho bubblewrap 0.8.0\n[ $1 = --version ] || echo ran > {proof}; exit 1\n")
    fake.chmod(0o755)
    for bwrap, what in (
        ("/nowhere/bwrap", "not installed"),
        ("/bin/false", "is not bubblewrap"),
        (str(fake), "cannot isolate"),
    ):
        async with backend_of(replace(CLASS, warm_pool_min=1), bwrap=bwrap) as backend:
            found = backend.posture()
            assert (found.kind, found.ready) == ("none", False)
            assert what in found.detail
            with pytest.raises(SandboxUnavailableError) as caught:
                await backend.claim("default", "ses_a", "owner")
            assert caught.value.remedy == found.remedy != ""
            if "isolate" not in what:
                assert "bubblewrap" in found.remedy
            assert await backend.list() == []
            assert mine() == []
    async with backend_of() as backend:  # the control: the same call where bubblewrap is
        assert await run(await backend.claim("default", "ses_a", "owner"), "print('ran')") == ("ok", "ran\n")


async def test_without_the_sandbox_environment_the_posture_names_it(tmp_path: Path) -> None:
    async with backend_of(environment=tmp_path / "missing") as backend:
        assert not backend.posture().ready
        assert str(tmp_path / "missing") in backend.posture().detail


async def test_the_fix_is_noticed_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interpreter_api.backends.local.backend.RECHECK_SECONDS", 0.0)
    program = tmp_path / "bwrap"
    async with backend_of(bwrap=str(program)) as backend:
        with pytest.raises(SandboxUnavailableError):
            await backend.claim("default", "ses_a", "owner")
        program.symlink_to("/usr/bin/bwrap")
        assert await run(await backend.claim("default", "ses_a", "owner"), "print(1)") == ("ok", "1\n")
        assert backend.posture().ready


async def test_closing_while_a_claim_waits_ends_both(mine: Mine) -> None:
    with local.runtime_folder() as folder:
        backend = LocalBackend({"default": CLASS}, environment=local.ENVIRONMENT, runtime_dir=folder, max_sandboxes=2)
        await backend.start()
        watch = backend.watch()
        claim = asyncio.create_task(backend.claim("default", "ses_a", "owner"))
        await asyncio.sleep(0.05)
        await backend.close()
        with pytest.raises(SandboxUnavailableError):
            await claim
        assert [lost async for lost in watch] == []
        assert mine() == []
