"""The process tree below the agent, read from /proc: what it uses, and its end."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KILL_PASSES: Final = 20


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One line of /proc: times in seconds."""

    pid: int
    parent: int
    threads: int
    cpu_seconds: float


def _read(pid: int) -> ProcessInfo | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # the second field is the command in parentheses and may itself hold spaces and parentheses
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    cpu = sum(int(ticks) for ticks in fields[11:13])
    return ProcessInfo(pid, int(fields[1]), int(fields[17]), cpu / _TICKS)


def descendants(root: int) -> list[ProcessInfo]:
    """Every living process below ``root``, nearest first."""
    names = os.listdir(_PROC)  # noqa: PTH208 - thousands of Path objects for names that are numbers
    everyone = [info for name in names if name.isdigit() and (info := _read(int(name)))]
    children: dict[int, list[ProcessInfo]] = {}
    for info in everyone:
        children.setdefault(info.parent, []).append(info)
    found: list[ProcessInfo] = []
    queue = [root]
    while queue:
        below = children.pop(queue.pop(), [])
        found += below
        queue += [info.pid for info in below]
    return found


def memory_bytes(pid: int) -> int:
    """The process's proportional set size; 0 where it has ended or may not be read."""
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def own_info() -> ProcessInfo:
    """This process."""
    info = _read(os.getpid())
    assert info is not None
    return info


def kill_all_below(root: int, spare: int | None) -> bool:
    """SIGKILL to every descendant of ``root`` but ``spare``, until no new one appears; False where they go on.

    What was killed takes a moment to be gone (its memory is freed first) and starts nothing any more: it is not
    waited for. A fork bomb can outrun a walk over /proc. As PID 1, ``kill(-1)`` reaches everything in one step,
    ``spare`` too, which then has to start and import again.
    """
    killed: set[int] = set()
    for _ in range(_KILL_PASSES):
        doomed = {info.pid for info in descendants(root)} - killed - {spare}
        if not doomed:
            return True
        for pid in doomed:
            signal_process(pid, signal.SIGKILL)
        killed |= doomed
    if root == 1:
        signal_process(-1, signal.SIGKILL)
    return False


def signal_process(pid: int, number: signal.Signals) -> None:
    """``kill`` that does not mind a process that has ended."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def signal_group(group: int, number: signal.Signals) -> None:
    """``killpg`` that does not mind a group that has ended."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return
