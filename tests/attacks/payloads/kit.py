"""What every payload uses. It runs as a cell inside a sandbox, and as plain Python on the host for the control.

Only the standard library, and raw system calls: no tool that may be absent. A payload makes *attempts*. An
attempt succeeds where its action returns something true; it is refused where it returns nothing or raises.
"""

import contextlib
import ctypes
import errno
import os
import pickle
import platform
import signal

AT_FDCWD = -100
_LIBC = ctypes.CDLL(None, use_errno=True)
_COMMON = {
    "pidfd_open": 434, "pidfd_getfd": 438, "clone3": 435, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429,
    "open_tree_attr": 467, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
}  # fmt: skip
_X86_64 = {
    "unshare (x32)": 0x4000_0000 | 272,
    "clone": 56, "ptrace": 101, "pivot_root": 155, "acct": 163, "mount": 165, "umount2": 166, "sethostname": 170,
    "iopl": 172, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
    "kcmp": 312, "memfd_create": 319, "bpf": 321, "userfaultfd": 323, "renameat2": 316,
    "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240,
}  # fmt: skip
_AARCH64 = {
    "clone": 220, "ptrace": 117, "pivot_root": 41, "acct": 89, "mount": 40, "umount2": 39, "sethostname": 161,
    "add_key": 217, "request_key": 218, "keyctl": 219, "unshare": 97, "perf_event_open": 241,
    "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271,
    "kcmp": 272, "memfd_create": 279, "bpf": 280, "userfaultfd": 282, "renameat2": 276,
    "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180,
}  # fmt: skip
NUMBERS = {**_COMMON, **(_X86_64 if platform.machine() == "x86_64" else _AARCH64)}


def syscall(name, *arguments):
    """One raw system call: its return value, or OSError."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    answer = _LIBC.syscall(ctypes.c_long(NUMBERS[name]), *converted)
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {errno.errorcode.get(code, code)}")
    return answer


class Attempts:
    """What was tried, and what came of it."""

    def __init__(self):
        self.outcomes = {}

    def attempt(self, name, action):
        """Try, and note the outcome; the next attempt goes on whatever it was."""
        outcome = {"succeeded": False, "detail": "", "errno": None}
        try:
            value = action()
            outcome["succeeded"] = bool(value)
            outcome["detail"] = repr(value)[:300]
        except OSError as refusal:
            outcome["detail"], outcome["errno"] = str(refusal)[:300], refusal.errno
        except Exception as refusal:
            outcome["detail"] = f"{type(refusal).__name__}: {refusal}"[:300]
        self.outcomes[name] = outcome

    def isolated(self, name, action, seconds=5):
        """Try in a forked child, so that what the attempt changes (root, ids, namespaces) ends with it."""
        self.attempt(name, lambda: in_child(action, seconds))

    def report(self, **facts):
        """What the payload answers."""
        return {"attempts": self.outcomes, "facts": facts}


def in_child(action, seconds=5):
    """The value of ``action()`` in a forked child, or what it raised. A child that dies says by which signal."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        try:
            answer = (True, action())
        except OSError as refusal:
            answer = (False, (refusal.errno, str(refusal)))
        except BaseException as refusal:
            answer = (False, (None, repr(refusal)))
        os.write(writer, pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    data = b""
    with open(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if not data:
        raise OSError(None, f"the child died: wait status {status}")
    worked, value = pickle.loads(data)
    if worked:
        return value
    raise OSError(*value)


@contextlib.contextmanager
def idle_child():
    """A child of ours that waits: the victim of what one process may do to another."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def read_start(path, size=200):
    """The first bytes of a file as text."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, size).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
