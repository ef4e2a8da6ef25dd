"""The few Linux calls that launchers need and Python's standard library lacks.

Standard library only, and no import of the package: launchers run as ``python -I -S launcher.py`` and append this
module's folder to ``sys.path``. Every function raises ``OSError`` with the call's name as its ``filename``, so that
the message says what failed.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

#: ``statvfs`` flags that a remount must repeat: inside a user namespace the kernel refuses to drop them.
_KEPT_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME

#: Where a private tmpfs may be put. Each exists on every distribution and none is needed by what we start.
STAGE_CANDIDATES = ("/mnt", "/media", "/srv", "/tmp")  # noqa: S108

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), call)


def unshare(flags: int) -> None:
    """Leave the given namespaces; single-threaded callers only (a user namespace demands it)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """``mount(2)``; empty strings stand for NULL."""
    result = _libc.mount(
        os.fsencode(source) or None,
        os.fsencode(target),
        os.fsencode(fstype) or None,
        ctypes.c_ulong(flags),
        os.fsencode(data) or None,
    )
    _check(result, f"mount {target}")


def make_mounts_private() -> None:
    """Nothing mounted from here on is seen outside, and the other way round."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def bind(source: str | int, target: str, *, readonly: bool = False) -> None:
    """Bind ``source`` over ``target``, which must exist.

    ``source`` may be an open file descriptor (``os.open(path, os.O_PATH)``): a folder that was opened before
    something was mounted over its path can still be bound.
    """
    mount(f"/proc/self/fd/{source}" if isinstance(source, int) else source, target, flags=MS_BIND | MS_REC)
    if readonly:
        kept = os.statvfs(target).f_flag & _KEPT_FLAGS
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | kept)


def private_tmpfs(*, size: str = "1m", mode: str = "0755") -> Path:
    """Mount a small tmpfs over one of :data:`STAGE_CANDIDATES` and return it: the place for bind mounts.

    A folder made in it can be traversed by any uid, wherever the bound folder really lives. Open whatever must be
    bound first: the tmpfs covers what was at that place.
    """
    for candidate in STAGE_CANDIDATES:
        if Path(candidate).is_dir() and not Path(candidate).is_symlink():
            mount("tmpfs", candidate, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},mode={mode}")
            return Path(candidate)
    raise FileNotFoundError(2, "none of these folders exists", " ".join(STAGE_CANDIDATES))


def die_with_parent(sig: int, parent: int) -> None:
    """Have the kernel send ``sig`` to this process when the thread that started it ends.

    The setting is lost at a change of uid: call it again after :func:`drop_to`. ``parent`` is the pid that the
    starter has; where that process is gone already the caller would never be told, so it ends here.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(sig), 0, 0, 0), "prctl PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        raise SystemExit(1)


def forbid_new_privileges() -> None:
    """No set-uid program gives this process or its children more rights than it has."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), "prctl PR_SET_NO_NEW_PRIVS")


def drop_to(uid: int, gid: int) -> None:
    """Become ``uid`` and ``gid`` for good, without any other group. Needs root."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def spare_id(wanted: int, reserve: int) -> int:
    """``wanted`` where this user namespace maps it, else an id near the top of what is mapped.

    Rootless containers map some 65,536 ids: there the ``reserve``-th from the top is taken. Raises ``OSError``
    where fewer than ``reserve`` ids are mapped, so that no other uid is to be had.
    """
    ranges = []
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = (int(part) for part in line.split())
        ranges.append((first, count))
        if first <= wanted < first + count:
            return wanted
    first, count = max(ranges, key=lambda entry: entry[1], default=(0, 0))
    if count <= reserve + 1:
        raise OSError(1, "this container maps no second user id", "uid_map")
    return first + count - reserve
