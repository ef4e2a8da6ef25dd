"""The bubblewrap profile: what a sandbox sees and what it may do, as a pure function to an argument list.

Nothing here touches the machine; :class:`HostLayout` carries what was found on it, so that every line can be tested.
The order of the arguments matters: bubblewrap mounts them one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from interpreter_api.backends.local.launcher import STAGE_TOKEN
from interpreter_sandbox.protocol import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INNER_UID: Final = 1000
ENVIRONMENT: Final = "/opt/sandbox"
"""Where the sandbox's own virtual environment appears inside."""

TMP_BYTES: Final = 256 << 20
SHM_BYTES: Final = 256 << 20
TMP_INODES: Final = 20_000

ETC_FILES: Final[Mapping[str, str]] = {
    "passwd": f"sandbox:x:{INNER_UID}:{INNER_UID}:sandbox:{WORKSPACE}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "group": f"sandbox:x:{INNER_UID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
    "hostname": "sandbox\n",
}
"""Our own /etc. What it lacks of the host's is on purpose; :data:`ETC_FROM_HOST` is the exception."""

ETC_FROM_HOST: Final = ("ld.so.cache", "alternatives", "fonts", "localtime", "mime.types")
"""Of the host's /etc: what the loader, the fonts and the clock need, and nothing that names a user or a secret."""

AT_THE_GATE: Final = "gate"

HIDDEN_PROC_FILES: Final = (
    "cmdline", "config.gz", "diskstats", "interrupts", "iomem", "ioports", "kallsyms", "kcore", "key-users", "keys",
    "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "mdstat", "modules", "mtrr", "partitions",
    "sched_debug", "slabinfo", "swaps", "sysrq-trigger", "timer_list", "vmallocinfo",
)  # fmt: skip
"""Of /proc: what tells about the host or its kernel and is of no use to a program. Hidden behind /dev/null."""

HIDDEN_PROC_FOLDERS: Final = ("acpi", "asound", "bus", "driver", "fs", "irq", "scsi")
"""Likewise; hidden behind an empty folder. /proc/sys stays, read-only: libraries read it."""

RUNTIME_FOLDERS: Final = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
"""Folders of / that hold programs: links into /usr on a merged system, folders of their own on an older one."""


@dataclass(frozen=True, slots=True)
class HostLayout:
    """What was found on this machine.

    ``links``: name in / → target, of :data:`RUNTIME_FOLDERS` that are links. ``folders``: those that are folders.
    ``etc``: names of :data:`ETC_FROM_HOST` that exist. ``proc_files``, ``proc_folders``: what is to be hidden and
    exists. ``base``: the environment's Python installation where it is outside /usr.
    """

    links: Mapping[str, str]
    folders: Sequence[str]
    etc: Sequence[str]
    proc_files: Sequence[str]
    proc_folders: Sequence[str]
    base: str | None = None


def environment_variables() -> dict[str, str]:
    """All that the sandbox's environment holds: nothing of the server's."""
    return {
        "PATH": f"{ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": WORKSPACE,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": "/tmp",  # noqa: S108 (the sandbox's own)
        "VIRTUAL_ENV": ENVIRONMENT,
        # what libraries would otherwise leave in the workspace, where the user's files are
        "IPYTHONDIR": "/tmp/.ipython",  # noqa: S108
        "MPLCONFIGDIR": "/tmp/.matplotlib",  # noqa: S108
        "XDG_CACHE_HOME": "/tmp/.cache",  # noqa: S108
        "XDG_CONFIG_HOME": "/tmp/.config",  # noqa: S108
        "PYTHONDONTWRITEBYTECODE": "1",
        # more threads reserve more memory than RLIMIT_DATA allows: see the design, section 3
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def bubblewrap_arguments(
    layout: HostLayout,
    command: Sequence[str],
    *,
    info_fd: int | None = None,
    disable_userns: bool = True,
) -> list[str]:
    """Everything after ``bwrap``: the namespaces, the mounts, the environment, then ``command`` as process 1.

    ``info_fd``: where bubblewrap writes the pid of process 1. ``disable_userns``: needs bubblewrap 0.8; the seccomp
    filter refuses new user namespaces in any case.
    """
    args = ["--unshare-all", "--unshare-user", "--new-session", "--die-with-parent", "--as-pid-1", "--clearenv"]
    args += ["--cap-drop", "ALL", "--hostname", "sandbox", "--uid", str(INNER_UID), "--gid", str(INNER_UID)]
    if disable_userns:
        args.append("--disable-userns")
    if info_fd is not None:
        args += ["--info-fd", str(info_fd)]
    args += ["--ro-bind", "/usr", "/usr"]
    for name, target in layout.links.items():
        args += ["--symlink", target, f"/{name}"]
    for name in layout.folders:
        args += ["--ro-bind", f"/{name}", f"/{name}"]
    for name in ETC_FILES:
        args += ["--ro-bind", f"{STAGE_TOKEN}/etc/{name}", f"/etc/{name}"]
    for name in layout.etc:
        args += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    args += ["--ro-bind", f"{STAGE_TOKEN}/environment", ENVIRONMENT]
    if layout.base is not None:
        args += ["--ro-bind", f"{STAGE_TOKEN}/base", layout.base]
    args += _proc(layout)
    # bubblewrap's /dev is an unbounded tmpfs that the sandbox owns: read-only, with a bounded /dev/shm in it
    args += ["--dev", "/dev", "--bind", f"{STAGE_TOKEN}/shm", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    args += ["--bind", f"{STAGE_TOKEN}/tmp", "/tmp", "--bind", f"{STAGE_TOKEN}/workspace", WORKSPACE]  # noqa: S108
    args += ["--remount-ro", "/", "--chdir", WORKSPACE]
    for name, value in environment_variables().items():
        args += ["--setenv", name, value]
    return [*args, "--", *command]


def _proc(layout: HostLayout) -> list[str]:
    # the host's /proc/sys shows the reader's own namespaces' values; those of ipc and pid would else be writable
    args = ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys"]
    for name in layout.proc_files:
        args += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for name in layout.proc_folders:
        args += ["--ro-bind", f"{STAGE_TOKEN}/empty", f"/proc/{name}"]
    return args


def gated(command: Sequence[str]) -> list[str]:
    """The command behind a gate: it says :data:`AT_THE_GATE` on stdout, and goes on when stdin answers with a line.

    bubblewrap asks for its death signal late in its start; were the server killed before that, the sandbox would live
    on. At the gate the signal is set, and a server that is gone cannot answer: the end of stdin ends the sandbox.
    """
    return ["/bin/sh", "-c", f'echo {AT_THE_GATE}; read -r go || exit 1; exec "$@" </dev/null >&2', "sh", *command]


def agent_command(config: str) -> list[str]:
    """The agent as process 1. ``-I``: nothing in the workspace can stand in for one of its modules."""
    return [f"{ENVIRONMENT}/bin/python", "-I", "-B", "-m", "interpreter_sandbox.runtime.agent", "--config", config]


def workspace_mounts(workspace_bytes: int, workspace_inodes: int) -> dict[str, tuple[int, int, str]]:
    """The writable places and their bounds: name → (bytes, inodes, mode)."""
    return {
        "workspace": (workspace_bytes, workspace_inodes, "0700"),
        "tmp": (TMP_BYTES, TMP_INODES, "1777"),
        "shm": (SHM_BYTES, TMP_INODES, "1777"),
        "empty": (4096, 2, "0555"),  # what hidden folders show
    }
