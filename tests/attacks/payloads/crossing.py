"""XS: from one session into another, through what processes of one user share."""

import ctypes
import os
import struct

from kit import Attempts, syscall

KEY = 0x70690001
_LIBC = ctypes.CDLL(None, use_errno=True)
IPC_CREAT = 0o1000


def leave(marker, name):
    """Leave the marker wherever a neighbour, or a successor, may look. Success: it could be left."""
    tries = Attempts()

    def write(path):
        with open(path, "w") as out:
            out.write(marker)
        return True

    for folder in ("/tmp", "/dev/shm", "/var/tmp", os.path.expanduser("~")):
        tries.attempt(folder, lambda folder=folder: write(f"{folder}/{name}"))

    def shared_memory():
        segment = syscall("shmget", KEY, 4096, IPC_CREAT | 0o666)
        _LIBC.shmat.restype = ctypes.c_void_p
        address = _LIBC.shmat(segment, None, 0)
        ctypes.memmove(address, marker.encode() + b"\0", len(marker) + 1)
        return True

    def message():
        queue = syscall("msgget", KEY, IPC_CREAT | 0o666)
        data = struct.pack("l", 1) + marker.encode()
        return _LIBC.msgsnd(queue, data, len(marker), 0) == 0

    def posix_queue():
        return _mq_open(name, os.O_CREAT | os.O_RDWR) >= 0

    tries.attempt("System V shared memory", shared_memory)
    tries.attempt("System V message queue", message)
    tries.attempt("System V semaphore", lambda: syscall("semget", KEY, 1, IPC_CREAT | 0o666) >= 0)
    tries.attempt("POSIX queue", posix_queue)
    return tries.report()


def _mq_open(name, flags):
    return syscall("mq_open", name.encode(), flags, 0o666, None)


def keyring_leave(marker):
    """XS04. Success: the marker is in the user's keyring, which every process of that user shares."""
    tries = Attempts()
    tries.attempt("user keyring", lambda: syscall("add_key", b"user", b"canary-key", marker.encode(), len(marker), -4))
    return tries.report()


def keyring_look():
    """XS04. Success: what another session put in the user's keyring."""
    tries = Attempts()

    def look():
        key = syscall("keyctl", 10, -4, b"user", b"canary-key", 0)
        buffer = ctypes.create_string_buffer(200)
        length = syscall("keyctl", 11, key, buffer, 200)
        return buffer.raw[:length].decode()

    tries.attempt("user keyring", look)
    return tries.report()


def look(name):
    """XS01, XS03, XS04. Success: anything that ``leave`` left."""
    tries = Attempts()
    for folder in ("/tmp", "/dev/shm", "/var/tmp", os.path.expanduser("~")):
        tries.attempt(folder, lambda folder=folder: open(f"{folder}/{name}").read())

    def shared_memory():
        segment = syscall("shmget", KEY, 4096, 0)
        _LIBC.shmat.restype = ctypes.c_void_p
        return ctypes.string_at(_LIBC.shmat(segment, None, 0)).decode()

    tries.attempt("System V shared memory", shared_memory)
    tries.attempt("System V message queue", lambda: syscall("msgget", KEY, 0) >= 0)
    tries.attempt("System V semaphore", lambda: syscall("semget", KEY, 1, 0) >= 0)
    tries.attempt("POSIX queue", lambda: _mq_open(name, os.O_RDWR) >= 0)
    return tries.report()
