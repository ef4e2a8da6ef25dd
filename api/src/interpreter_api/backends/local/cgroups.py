"""Memory and process limits by control groups, where this machine lets us.

One group a sandbox, below one group a server, below one parent with a name that says whose it is::

    <parent>/power-interpreter/<server pid>-<its start time>/<sandbox uid>

so that what a killed server left is found and removed by the next one. Version 1 needs root. Version 2 needs root, or
a delegated group of one's own (``systemd-run --user --scope -p Delegate=yes``). Where neither is to be had the limits
of one process (``RLIMIT_DATA``, ``RLIMIT_NPROC``) remain, and the posture says what that leaves open.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

log = logging.getLogger(__name__)

PARENT: Final = "power-interpreter"
ROOT: Final = Path("/sys/fs/cgroup")
Controller = Literal["memory", "pids"]
CONTROLLERS: Final[tuple[Controller, ...]] = ("memory", "pids")

MISSING: Final[dict[Controller, str]] = {
    "memory": "no memory cgroup: shared memory and memfd are bounded by the machine's memory only",
    "pids": "no pids cgroup: the number of processes is bounded by RLIMIT_NPROC alone",
}
DELEGATION_HINT: Final = "run the server as root, or by 'systemd-run --user --scope -p Delegate=yes', to have cgroups"


@dataclass(frozen=True, slots=True)
class Group:
    """The control groups of one sandbox: one folder on version 2, one a controller on version 1."""

    folders: tuple[Path, ...]

    def join_files(self) -> list[str]:
        """Where a process writes its pid to join."""
        return [str(folder / "cgroup.procs") for folder in self.folders]

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed because the group was out of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with suppress(OSError):
                    for line in (folder / name).read_text().splitlines():
                        key, _, value = line.partition(" ")
                        if key == "oom_kill":
                            return int(value)
        return 0

    def remove(self) -> bool:
        """Remove the folders; False where one is still in use, so that it must be tried again."""
        removed = [_rmdir(folder) for folder in self.folders]
        return all(removed)


@dataclass(slots=True)
class Cgroups:
    """The places where this server makes its groups: controller → folder. Version 2 has one folder for both."""

    version: Literal[0, 1, 2]
    places: dict[Controller, Path]
    server: str
    _pending: list[Group] = field(default_factory=list)

    def degraded(self) -> list[str]:
        """What this machine lacks, with its consequence; empty where all is there."""
        missing = [text for controller, text in MISSING.items() if controller not in self.places]
        return [*missing[:-1], f"{missing[-1]} ({DELEGATION_HINT})"] if missing else []

    def create(self, name: str, *, memory_bytes: int, processes: int) -> Group | None:
        """A group with these limits; None where this machine has no groups for us."""
        self._pending = [group for group in self._pending if not group.remove()]
        folders = tuple(sorted({place / self.server / name for place in self.places.values()}))
        if not folders:
            return None
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        group = Group(folders)
        try:
            if "memory" in self.places:
                self._limit_memory(self.places["memory"] / self.server / name, memory_bytes)
            if "pids" in self.places:
                (self.places["pids"] / self.server / name / "pids.max").write_text(str(processes))
        except OSError:
            group.remove()
            raise
        return group

    def _limit_memory(self, folder: Path, memory_bytes: int) -> None:
        if self.version == 1:
            (folder / "memory.limit_in_bytes").write_text(str(memory_bytes))
            swap, value = folder / "memory.memsw.limit_in_bytes", str(memory_bytes)
        else:
            (folder / "memory.max").write_text(str(memory_bytes))
            swap, value = folder / "memory.swap.max", "0"
        if swap.exists():  # absent where the kernel does not account for swap
            swap.write_text(value)

    def discard(self, group: Group) -> None:
        """Remove a group whose processes are gone. One that the kernel still counts is tried again later."""
        if not group.remove():
            self._pending.append(group)

    def sweep(self) -> int:
        """Remove the groups of servers that no longer run; how many sandboxes' groups those were."""
        removed = 0
        for place in set(self.places.values()):
            for folder in place.iterdir() if place.is_dir() else ():
                if not folder.is_dir() or _alive(folder.name):
                    continue
                removed += sum(_rmdir(child) for child in folder.iterdir() if child.is_dir())
                _rmdir(folder)
        return removed

    def close(self) -> None:
        """Remove this server's own groups, and the parent where no other server uses it."""
        for group in self._pending:
            group.remove()
        for place in set(self.places.values()):
            _rmdir(place / self.server)
            _rmdir(place)


def detect(root: Path = ROOT, own_groups: Path = Path("/proc/self/cgroup")) -> Cgroups:
    """What this process may use. Tries by making the parent group: no other check is worth much."""
    server = server_name(os.getpid())
    if (root / "cgroup.controllers").exists():
        place = _detect_v2(root, own_groups)
        return Cgroups(2, dict.fromkeys(CONTROLLERS, place), server) if place else Cgroups(0, {}, server)
    places: dict[Controller, Path] = {}
    for controller in CONTROLLERS:
        place = root / controller / PARENT
        if (root / controller / "cgroup.procs").exists() and _make(place / server):
            places[controller] = place
    return Cgroups(1 if places else 0, places, server)


def _detect_v2(root: Path, own_groups: Path) -> Path | None:
    """The parent of our groups on version 2: in our own delegated group, or at the top where we are root."""
    own = next((line[3:] for line in own_groups.read_text().splitlines() if line.startswith("0::")), "/")
    group = root / own.lstrip("/")
    delegated = _delegated(group, top=root)
    for candidate in [group, root] if delegated else [root]:
        with suppress(OSError):
            if candidate == group and delegated:
                # a group with processes of its own cannot have controlled children: they move one down
                leaf = candidate / "server"
                leaf.mkdir(exist_ok=True)
                for pid in (candidate / "cgroup.procs").read_text().split():
                    (leaf / "cgroup.procs").write_text(pid)
            _enable(candidate)
            place = candidate / PARENT
            place.mkdir(exist_ok=True)
            _enable(place)
            mine = place / server_name(os.getpid())
            mine.mkdir(exist_ok=True)
            _enable(mine)
            return place
    return None


def _delegated(group: Path, top: Path) -> bool:
    """Whether systemd gave us the group, or it is the top of a container's own tree (the host's has no type)."""
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return group == top and (group / "cgroup.type").exists()


def _enable(folder: Path) -> None:
    control = folder / "cgroup.subtree_control"
    missing = [name for name in CONTROLLERS if name not in control.read_text().split()]
    if missing:
        control.write_text(" ".join(f"+{name}" for name in missing))


def server_name(pid: int) -> str:
    """A name for a running process that no later process has: its pid and its start in clock ticks."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return f"{pid}-{stat.rpartition(')')[2].split()[19]}"


def _alive(name: str) -> bool:
    """Whether the server of that name runs; a folder that is not named by us is not ours to remove."""
    pid, _, started = name.partition("-")
    if not (pid.isdecimal() and started.isdecimal()):
        return True
    try:
        return server_name(int(pid)) == name
    except OSError:
        return False


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            log.warning("cannot remove the control group %s: %s", folder, error.strerror)
        return False
    return True
