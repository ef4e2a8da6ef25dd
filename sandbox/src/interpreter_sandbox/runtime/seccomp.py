"""The seccomp filter of every sandbox, loaded by the agent before the zygote starts and inherited by all.

Allow by default, refuse what a sandbox never needs and what reaches kernel code that ordinary programs do not:
namespaces and mounts, other processes' memory, io_uring, bpf, keyrings, socket families beyond Unix and IP. A refusal
is EPERM, so that libraries which merely try go on; ``clone3`` is ENOSYS, as its flags cannot be looked at and glibc
then falls back to ``clone``, whose flags can.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

import pyseccomp  # type: ignore[import-untyped]

_NEW_NAMESPACE_FLAGS: Final = (
    0x0000_0080,  # NEWTIME
    0x0002_0000,  # NEWNS
    0x0200_0000,  # NEWCGROUP
    0x0400_0000,  # NEWUTS
    0x0800_0000,  # NEWIPC
    0x1000_0000,  # NEWUSER
    0x2000_0000,  # NEWPID
    0x4000_0000,  # NEWNET
)
_ALLOWED_FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
_TERMINAL_INJECTION: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_WEAKER_LAYOUT: Final = (
    0x004_0000,
    0x010_0000,
    0x020_0000,
    0x040_0000,
)  # no randomisation, page zero, old, read = exec

_REFUSED: Final = (
    # namespaces and mounts
    *("unshare", "setns", "chroot", "pivot_root", "mount", "umount2", "open_tree", "move_mount", "mount_setattr"),
    *("fsopen", "fsmount", "fsconfig", "fspick", "quotactl", "quotactl_fd", "swapon", "swapoff"),
    *("name_to_handle_at", "open_by_handle_at", "fanotify_init"),
    # other processes
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp", "move_pages"),
    # kernel interfaces with a history
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("keyctl", "add_key", "request_key", "memfd_secret", "modify_ldt", "lookup_dcookie", "vmsplice"),
    # the machine itself
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "acct", "syslog"),
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "vhangup"),
    *("iopl", "ioperm", "nfsservctl"),
)
_NEWER_THAN_LIBSECCOMP: Final = (467,)  # open_tree_attr; numbers from 424 on are the same on every architecture


def load() -> None:
    """Load the filter into this process, for good; ``OSError`` or ``RuntimeError`` where the kernel will not."""
    _filter(pyseccomp).load()


def _filter(lib: Any) -> Any:
    """The filter as pyseccomp holds it (the library has no types)."""
    refuse, absent = lib.ERRNO(errno.EPERM), lib.ERRNO(errno.ENOSYS)
    rules = lib.SyscallFilter(lib.ALLOW)
    rules.set_attr(lib.Attr.ACT_BADARCH, lib.ERRNO(errno.EPERM))  # i386 and x32 calls on x86-64
    for call in (*_REFUSED, *_NEWER_THAN_LIBSECCOMP):
        rules.add_rule(refuse, call)
    rules.add_rule(absent, "clone3")
    for flag in _NEW_NAMESPACE_FLAGS[1:]:  # in clone() the lowest byte is a signal number, not NEWTIME
        rules.add_rule(refuse, "clone", lib.Arg(0, lib.MASKED_EQ, flag, flag))
    # every family but three; comparing 64 bits also catches a family with something in its upper half
    rules.add_rule(refuse, "socket", lib.Arg(0, lib.GT, max(_ALLOWED_FAMILIES)))
    for family in range(max(_ALLOWED_FAMILIES)):
        if family not in _ALLOWED_FAMILIES:
            rules.add_rule(refuse, "socket", lib.Arg(0, lib.EQ, family))
    for request in _TERMINAL_INJECTION:
        rules.add_rule(refuse, "ioctl", lib.Arg(1, lib.MASKED_EQ, 0xFFFF_FFFF, request))
    for bit in _WEAKER_LAYOUT:
        rules.add_rule(refuse, "personality", lib.Arg(0, lib.MASKED_EQ, bit, bit))
    return rules
