"""What this machine is like: gathered once at start, so that everything after it can be a pure function."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from interpreter_api.backends.local import profile

OWNER_FIRST: Final = 2_000_000_000
OWNER_COUNT: Final = 1 << 27
"""Where sandboxes' own user ids come from: above every range that distributions, systemd, LXD and subuid files use
(systemd's table of uids ends its last range at 1,879,048,191 and begins the next at 2,147,352,576)."""

SMALL_RANGE: Final = 8192
"""In a rootless container the ids at the top of what it maps are taken, where it maps at least twice as many."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How sandboxes are started here.

    ``owners``: first uid and count of the range for sandboxes, None where the server is an ordinary user.
    ``nproc``: whether ``RLIMIT_NPROC`` counts the sandbox alone, so that it may be set before bubblewrap starts.
    """

    bwrap: str
    bwrap_version: tuple[int, int]
    environment: Path
    base: Path | None
    layout: profile.HostLayout
    owners: tuple[int, int] | None
    nproc: bool

    def spare_owner(self) -> int | None:
        """A uid for one sandbox, at random: two sandboxes of one machine, whoever's, do not share one."""
        return None if self.owners is None else self.owners[0] + secrets.randbelow(self.owners[1])


def gather(environment: Path, bwrap: str) -> Machine:
    """Look at the machine. ``FileNotFoundError`` names the program or folder that is missing."""
    program = shutil.which(bwrap)
    if program is None:
        raise FileNotFoundError(2, "bubblewrap is not installed", bwrap)
    environment = environment.resolve()
    if not os.access(environment / "bin" / "python", os.X_OK):
        raise FileNotFoundError(2, "the sandbox environment is not installed", str(environment))
    base = base_prefix(environment)
    owners = owner_range(Path("/proc/self/uid_map").read_text()) if os.geteuid() == 0 else None
    return Machine(
        bwrap=program,
        bwrap_version=bwrap_version(program),
        environment=environment,
        base=base,
        layout=layout(base),
        owners=owners,
        nproc=owners is not None or kernel_version() >= (5, 14),
    )


def layout(base: Path | None, root: Path = Path("/")) -> profile.HostLayout:
    """The names that the profile has to know, as found below ``root``."""
    links = {name: str((root / name).readlink()) for name in profile.RUNTIME_FOLDERS if (root / name).is_symlink()}
    return profile.HostLayout(
        links=links,
        folders=[name for name in profile.RUNTIME_FOLDERS if name not in links and (root / name).is_dir()],
        etc=[name for name in profile.ETC_FROM_HOST if (root / "etc" / name).exists()],
        proc_files=[name for name in profile.HIDDEN_PROC_FILES if (root / "proc" / name).exists()],
        proc_folders=[name for name in profile.HIDDEN_PROC_FOLDERS if (root / "proc" / name).is_dir()],
        base=None if base is None else str(base),
    )


def base_prefix(environment: Path) -> Path | None:
    """The Python installation below a virtual environment; None where it is in /usr, which every sandbox sees.

    The environment's own ``bin/python`` is a link to it and ``pyvenv.cfg`` names it, so it appears at its own path.
    """
    lines = (environment / "pyvenv.cfg").read_text().splitlines()
    home = next(value.strip() for key, _, value in (line.partition("=") for line in lines) if key.strip() == "home")
    prefix = Path(home).parent
    return None if prefix == Path("/usr") or Path("/usr") in prefix.parents else prefix


def owner_range(uid_map: str) -> tuple[int, int] | None:
    """First uid and count for sandboxes by what this user namespace maps; None where it maps too few."""
    ranges = [(int(first), int(count)) for first, _, count in (line.split() for line in uid_map.splitlines())]
    if any(first <= OWNER_FIRST and first + count >= OWNER_FIRST + OWNER_COUNT for first, count in ranges):
        return OWNER_FIRST, OWNER_COUNT
    first, count = max(ranges, key=lambda entry: entry[1], default=(0, 0))
    return (first + count - SMALL_RANGE, SMALL_RANGE) if count >= 2 * SMALL_RANGE else None


def bwrap_version(program: str) -> tuple[int, int]:
    """Major and minor; (0, 0) where the program does not say, as a broken one would not."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    found = re.search(r"bubblewrap (\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def kernel_version() -> tuple[int, int]:
    """Major and minor of the running kernel."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return int(major), int(minor)


def launcher_python() -> str:
    """The interpreter that runs the launcher: the real one, so that ``-S`` finds its standard library."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)))
