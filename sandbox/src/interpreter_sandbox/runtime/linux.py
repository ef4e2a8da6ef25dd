"""The few Linux calls that Python's standard library lacks, by ctypes: prctl, openat2, signalfd, inotify."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import Final, NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_SYS_OPENAT2: Final = 437  # the same number on every architecture
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
_SIGSET_BYTES: Final = 128
_SIGINFO: Final = struct.Struct("=IiiI112x")

IN_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_IS_DIR: Final = 0x40000000
_IN_WATCHED: Final = 0x2 | 0x8 | 0x80 | 0x100  # MODIFY, CLOSE_WRITE, MOVED_TO, CREATE
_IN_ONLYDIR, _IN_DONT_FOLLOW, _IN_EXCL_UNLINK = 0x01000000, 0x02000000, 0x04000000
_INOTIFY_HEADER: Final = struct.Struct("=iIII")


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class FileChange(NamedTuple):
    """One inotify event: the watch's number, its mask and the name inside the watched folder."""

    watch: int
    mask: int
    name: bytes


def _checked(result: int, path: bytes | None = None) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    return result


def set_dumpable(dumpable: bool) -> None:
    """Whether this process's memory, environment and descriptors in /proc are open to its own uid."""
    _checked(_libc.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0))


def become_subreaper() -> None:
    """Orphaned descendants become children of this process, as they do of PID 1."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def die_with_parent() -> None:
    """SIGKILL to this process when its parent ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def open_beneath(folder_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open ``path`` so that no part of it, symlinks included, leaves the folder; ``OSError`` (EXDEV) where it would."""
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS
    how = _OpenHow(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, resolve)
    number, size = ctypes.c_long(_SYS_OPENAT2), ctypes.c_size_t(ctypes.sizeof(how))
    return _checked(_libc.syscall(number, ctypes.c_int(folder_fd), path, ctypes.byref(how), size), path)


def signal_descriptor(*signals: signal.Signals) -> int:
    """A descriptor that reports these signals instead of delivering them; read it with :func:`signal_sender`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    mask = ctypes.create_string_buffer(_SIGSET_BYTES)
    _libc.sigemptyset(mask)
    for number in signals:
        _libc.sigaddset(mask, int(number))
    return _checked(_libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK))


def signal_sender(descriptor: int) -> tuple[int, int]:
    """The next signal and the pid that sent it: 0 for a sender outside of this pid namespace."""
    number, _, _, pid = _SIGINFO.unpack(os.read(descriptor, _SIGINFO.size))
    return number, pid


def inotify_open() -> int:
    """A non-blocking inotify descriptor."""
    return _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def inotify_watch(descriptor: int, folder: bytes) -> int:
    """Watch what is made and written in one folder (not below it)."""
    flags = _IN_WATCHED | _IN_ONLYDIR | _IN_DONT_FOLLOW | _IN_EXCL_UNLINK
    return _checked(_libc.inotify_add_watch(descriptor, folder, ctypes.c_uint32(flags)), folder)


def inotify_read(descriptor: int) -> list[FileChange]:
    """The events that wait, at most 64 KiB of them; empty where there are none."""
    try:
        data = os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return []
    changes: list[FileChange] = []
    offset = 0
    while offset < len(data):
        watch, mask, _, length = _INOTIFY_HEADER.unpack_from(data, offset)
        offset += _INOTIFY_HEADER.size
        changes.append(FileChange(watch, mask, data[offset : offset + length].rstrip(b"\0")))
        offset += length
    return changes
