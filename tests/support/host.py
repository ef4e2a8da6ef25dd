"""What the host sees of a sandbox: its processes by pid, user and memory. Root is not needed for any of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.attack import Session

AGENT = b"interpreter_sandbox.runtime.agent"


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its pid on the host."""

    pid: int

    def status(self, field: str) -> int:
        """A number of ``/proc/<pid>/status``: ``PPid``, ``VmHWM`` (KiB) and the like; the real one of ``Uid``."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0])
        raise KeyError(field)

    @property
    def parent(self) -> Process:
        """The process that started it."""
        return Process(self.status("PPid"))

    @property
    def command(self) -> bytes:
        """Its command line."""
        return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return Path(f"/proc/{self.pid}").exists()

    def peak_bytes(self) -> int:
        """The most memory that it ever had resident."""
        return self.status("VmHWM") * 1024


def all_processes() -> list[Process]:
    """Every process of the host."""
    return [Process(int(folder.name)) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def worker_of(session: Session) -> Process:
    """The worker that runs the session's code: it marks itself by its name, which anybody can read."""
    mark = f"pi-{secrets.token_hex(5)}"
    ran = session.run(
        "import ctypes as _c, threading as _t\n"
        "_old = open(f'/proc/self/task/{_t.get_native_id()}/comm').read().strip().encode()\n"
        f"_c.CDLL(None).prctl(15, b'{mark}', 0, 0, 0)"
    )
    assert ran["success"], ran["error"]
    try:
        for process in all_processes():
            try:
                names = [p.read_text().strip() for p in Path(f"/proc/{process.pid}/task").glob("*/comm")]
            except OSError:
                continue  # it ended meanwhile
            if mark in names:
                return process
    finally:
        session.run("_c.CDLL(None).prctl(15, _old, 0, 0, 0)")
    raise AssertionError("the session's worker is not on this host")


def agent_of(session: Session) -> Process:
    """The agent above the session's worker: the topmost process that runs the agent's module."""
    process, agent = worker_of(session), None
    while process.pid > 1:
        if AGENT in process.command:
            agent = process
        process = process.parent
    assert agent, "no agent above the worker"
    return agent
