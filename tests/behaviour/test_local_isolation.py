"""The launcher and the bubblewrap profile, with plain Python as process 1: what holds before any agent runs.

Each refusal has its control beside it: the same code does the thing where it may.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from interpreter_api.backends.base import SandboxClass
from interpreter_api.backends.local import cgroups, process, profile
from support import local

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a sandbox another uid or a v1 cgroup")


@pytest.mark.anyio
async def test_process_1_has_the_sandbox_s_uid_no_rights_and_only_the_documented_environment() -> None:
    code = """
import json, os
status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
print(json.dumps({"pid": os.getpid(), "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
    "cwd": os.getcwd(), "environ": sorted(os.environ),
    "caps": [status["Cap" + c].strip() for c in ("Prm", "Eff", "Bnd", "Amb")],
    "nnp": status["NoNewPrivs"].strip(), "fds": sorted(map(int, os.listdir("/proc/self/fd")))}))
"""
    seen = json.loads(await local.run(code))
    assert seen["pid"] == 1
    assert seen["uid"] == seen["gid"] == [profile.INNER_UID] * 3
    assert set(seen["caps"]) == {"0" * 16}
    assert seen["nnp"] == "1"
    assert seen["cwd"] == "/workspace"
    assert set(seen["environ"]) == {*profile.environment_variables(), "PWD"}
    assert seen["fds"] == [0, 1, 2, 3]  # 3 is the listing's own
    if os.geteuid() == 0:
        assert seen["groups"] == []


@needs_root
@pytest.mark.anyio
async def test_outside_too_a_sandbox_of_a_root_server_is_not_root_and_no_two_share_a_uid() -> None:
    uids = set()
    for _ in range(2):
        sandbox = local.spawn("print('up'); import time; time.sleep(60)")
        await local.until_printed(sandbox, "up")
        for member in local.family(sandbox.pid):
            assert member.uids().real == member.uids().effective == member.uids().saved
            uids.add(member.uids().real)
        await sandbox.kill()
    assert len(uids) == 2
    assert min(uids) >= 2_000_000_000


@pytest.mark.attack("FS01")
@pytest.mark.anyio
async def test_the_host_s_files_are_not_there(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("canary")
    canary.chmod(0o644)
    assert canary.read_text() == "canary"  # the control
    names = [str(canary), "/etc/shadow", "/root", "/home", "/var", "/run", "/sys", "/boot", str(Path(__file__).parent)]
    code = f"import os; print([n for n in {names!r} if os.path.exists(n)])"
    assert await local.run(code) == "[]"


@pytest.mark.attack("FS02")
@pytest.mark.anyio
async def test_only_workspace_tmp_and_shm_can_be_written() -> None:
    code = """
import os
def can(folder):
    try:
        open(folder + "/probe", "w").close()
        return True
    except OSError:
        return False
everywhere = ["/", "/dev", "/etc", "/opt", "/usr", "/usr/lib", "/proc", "/proc/sys/kernel"]
everywhere += [root for root, _, _ in os.walk("/opt/sandbox/lib") if root.endswith("site-packages")]
everywhere += ["/workspace", "/tmp", "/dev/shm"]
print([f for f in everywhere if can(f)])
"""
    assert await local.run(code) == "['/workspace', '/tmp', '/dev/shm']"


@pytest.mark.attack("RES06")
@pytest.mark.anyio
async def test_the_workspace_is_full_at_its_size() -> None:
    code = """
written = 0
try:
    with open("/workspace/big", "wb") as f:
        while True:
            written += f.write(b"x" * (1 << 20)); f.flush()
except OSError as e:
    print(e.errno, written >> 20)
"""
    assert await local.run(code) == f"28 {local.SMALL.workspace_bytes >> 20}"


@pytest.mark.attack("RES07")
@pytest.mark.anyio
async def test_the_workspace_is_full_at_its_number_of_files() -> None:
    code = """
import os
count = 0
try:
    while True:
        open(f"/workspace/{count}", "w").close(); count += 1
except OSError as e:
    print(e.errno, count)
"""
    errno, count = map(int, (await local.run(code)).split())
    assert errno == 28
    assert local.SMALL.workspace_inodes - 5 <= count <= local.SMALL.workspace_inodes


@pytest.mark.attack("RES01")
@pytest.mark.anyio
async def test_processes_end_at_the_limit() -> None:
    code = """
import os, time
made = 0
try:
    while made < 1000:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except OSError as e:
    print(e.errno, made)
"""
    errno, made = map(int, (await local.run(code)).split())
    assert errno == 11
    assert 10 < made <= process.process_limit(local.SMALL)


@pytest.mark.attack("FS12")
@pytest.mark.anyio
async def test_no_user_namespace_inside() -> None:
    attempt = "import ctypes; print(ctypes.CDLL(None).unshare(0x10000000))"
    control = await asyncio.create_subprocess_exec(sys.executable, "-c", attempt, stdout=subprocess.PIPE)
    assert (await control.communicate())[0].strip() == b"0"
    assert await local.run(attempt) == "-1"


@pytest.mark.attack("NET13")
@pytest.mark.anyio
async def test_the_network_is_an_empty_loopback() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            pass  # the control
        code = f"""
import socket
print([n for _, n in socket.if_nameindex()])
try: socket.create_connection(("127.0.0.1", {port}), timeout=2); print("reached")
except OSError as e: print(type(e).__name__)
try: socket.create_connection(("192.0.2.1", 80), timeout=2); print("reached")
except OSError as e: print(e.errno)
"""
        assert (await local.run(code)).splitlines() == ["['lo']", "ConnectionRefusedError", "101"]


@pytest.mark.attack("RES17")
@pytest.mark.anyio
async def test_kill_ends_daemons_too_and_returns_when_they_are_gone() -> None:
    code = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(0)
print("up"); time.sleep(1000)
"""
    sandbox = local.spawn(code)
    await local.until_printed(sandbox, "up")
    family = local.family(sandbox.pid)
    assert len(family) >= 5  # bubblewrap, process 1, three daemons (and perhaps their parents)
    await sandbox.kill()
    assert local.left_of(family, seconds=0) == []


@pytest.mark.anyio
async def test_a_kill_right_after_the_start_leaves_nothing() -> None:
    for _ in range(5):
        sandbox = local.spawn("import time; time.sleep(1000)")
        family = local.family(sandbox.pid)
        await sandbox.kill()
        assert await sandbox.ended() != 0
        assert local.left_of(family, seconds=0) == []


@pytest.mark.anyio
async def test_an_end_from_inside_is_told_with_its_code() -> None:
    sandbox = local.spawn("import sys; print('last words'); sys.exit(7)")
    assert await sandbox.ended() == 7
    assert "last words" in sandbox.stderr


def test_what_the_launcher_cannot_do_is_one_line() -> None:
    here = local.machine()
    config = process.launch_config(here, SandboxClass(), ["true"], owner=here.spare_owner())
    config["binds"]["environment"] = "/nowhere/at/all"
    ended = subprocess.run(process.launcher_command(config), capture_output=True, text=True, check=False)
    assert ended.returncode == 125
    assert ended.stderr == "launcher: /nowhere/at/all: No such file or directory\n"


def test_the_launcher_ends_when_its_server_is_not_there_any_more() -> None:
    here = local.machine()
    config = process.launch_config(here, SandboxClass(), ["/usr/bin/true"], owner=here.spare_owner())
    control = subprocess.run(process.launcher_command(config), capture_output=True, check=False)
    assert control.returncode == 0, control.stderr
    config["parent"] = 1
    assert subprocess.run(process.launcher_command(config), capture_output=True, check=False).returncode == 1


@needs_root
@pytest.mark.attack("RES05")
@pytest.mark.anyio
async def test_shared_memory_beyond_the_cgroup_is_killed_and_counted() -> None:
    groups = cgroups.detect()
    assert groups.degraded() == [], "root has cgroups"
    code = """
import mmap, os
fd = os.memfd_create("m"); os.ftruncate(fd, {size}); m = mmap.mmap(fd, {size})
for i in range(0, {size}, 4096): m[i] = 1
print("kept")
"""
    for size, survives in ((32 << 20, True), (256 << 20, False)):
        group = groups.create(f"sbx_test{size}", memory_bytes=128 << 20, processes=64)
        assert group is not None
        sandbox = local.spawn(code.format(size=size), group=group)
        ended = await sandbox.ended()
        assert (ended == 0) is survives, sandbox.stderr
        assert ("kept" in sandbox.stderr) is survives
        if not survives:
            assert ended in (128 + signal.SIGKILL, -signal.SIGKILL)
        assert (group.oom_kills() > 0) is not survives
        groups.discard(group)
        assert not any(folder.exists() for folder in group.folders)
    groups.close()


def test_a_sandbox_whose_server_is_gone_does_not_get_past_the_gate() -> None:
    command = profile.gated(["/bin/echo", "ran"])
    control = subprocess.run(command, input="\n", capture_output=True, text=True, check=False)
    assert (control.returncode, control.stdout, control.stderr) == (0, f"{profile.AT_THE_GATE}\n", "ran\n")
    alone = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert (alone.returncode, alone.stdout, alone.stderr) == (1, f"{profile.AT_THE_GATE}\n", "")
