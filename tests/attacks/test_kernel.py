"""FS11-FS13, FS16, FS17: the kernel's own ways out, by raw system calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.attack import Session, assert_contained, control, payload

OWN_MOUNTS = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.mark.attack("FS11")
def test_nothing_can_be_mounted(session: Session, tmp_path: Path) -> None:
    """Control: as root in mount and pid namespaces of its own, which end with it."""
    attack = payload("kernel.mounts")
    before = Path("/proc/self/mounts").read_text()
    assert_contained(control(attack, namespaces=OWN_MOUNTS, cwd=tmp_path), session.attack(attack))
    assert Path("/proc/self/mounts").read_text() == before
    session.assert_usable()


@pytest.mark.attack("FS12")
def test_no_namespace_can_be_made(session: Session) -> None:
    attack = payload("kernel.namespaces")
    assert_contained(control(attack), session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("FS12")
def test_the_32_bit_calls_are_no_back_door(session: Session) -> None:
    attack = payload("kernel.foreign_calls")
    assert_contained(control(attack), session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("FS13")
def test_the_kernels_switches_cannot_be_written(session: Session) -> None:
    """Control: as root; it writes back what it read, and removes the control group that it made."""
    roots = [str(p) for p in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if p.is_dir()][:1]
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    devices = ["/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/dev/kmsg", "/dev/mem"]
    there = [path for path in devices if Path(path).exists()]  # a kernel may be built without sysrq or /dev/mem
    attack = payload("kernel.switches", devices=there, cgroup_roots=roots)
    assert_contained(control(attack, namespaces=["--uts"]), session.attack(attack))
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
    session.assert_usable()


@pytest.mark.attack("FS16")
def test_dangerous_calls_are_refused(session: Session, tmp_path: Path) -> None:
    attack = payload("kernel.forbidden_calls")
    assert_contained(control(attack, namespaces=["--uts"], cwd=tmp_path), session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("FS17")
def test_nothing_is_typed_into_a_terminal(session: Session) -> None:
    attack = payload("kernel.terminal")
    assert_contained(control(attack), session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("FS11", "FS16")
def test_honest_work_passes_the_filter(session: Session) -> None:
    """The reverse: threads, processes, shells and libraries must not notice the filter."""
    ran = session.run(
        "import concurrent.futures as cf, multiprocessing as mp, subprocess, numpy, pandas, sqlite3, asyncio, socket\n"
        "with cf.ThreadPoolExecutor(4) as pool:\n    assert sum(pool.map(abs, range(-9, 1))) == 45\n"
        "with cf.ProcessPoolExecutor(2, mp_context=mp.get_context('fork')) as pool:\n"
        "    assert list(pool.map(abs, [-1, -2])) == [1, 2]\n"
        "assert subprocess.run(['ls', '/'], capture_output=True).returncode == 0\n"
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n"
        "assert numpy.linalg.inv(numpy.eye(200)).trace() == 200\n"
        "assert pandas.DataFrame({'a': [1, 1, 2]}).groupby('a').size().sum() == 3\n"
        "async def f():\n    p = await asyncio.create_subprocess_exec('true'); return await p.wait()\n"
        "await f()"
    )
    assert ran["success"], ran["error"]
    assert ran["result"] == "0"
    shell = session.run("!echo $((6*7)) | cat")
    assert "42" in shell["stdout"]
