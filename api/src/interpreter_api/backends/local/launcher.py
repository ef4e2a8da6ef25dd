"""The program that stands between the server and bubblewrap: ``python -I -S launcher.py CONFIG``.

bubblewrap alone cannot bound a tmpfs in inodes, join a cgroup or become another user; and forking, unsharing and
changing uids have no place inside the asyncio server. So the server starts this small single-threaded program:

1. die with the server; close every descriptor that was not handed over;
2. a mount namespace of its own (with a user namespace where the server is an ordinary user);
3. a staging tmpfs, and in it whatever the sandbox will see: the environment bound from wherever it lives (a folder
   below /root, say, that another uid could not traverse), the workspace as a tmpfs whose ``size`` and ``nr_inodes``
   are the disk quota, a small /etc;
4. join the cgroups; become the sandbox's own uid; set the limits;
5. exec bubblewrap. The process id stays the same from the server's start to bubblewrap's end.

Anything that fails is one line on stderr and exit code :data:`EXIT_FAILED`. Standard library only.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from interpreter_api import namespaces
else:  # run as a program, without site-packages: see namespaces.py
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    import namespaces

EXIT_FAILED = 125
PROGRAM = "bwrap"
STAGE_TOKEN = "@stage@"  # noqa: S105 (no secret: it stands for the staging folder in argv)


class Tmpfs(TypedDict):
    """A bounded tmpfs below the staging folder; ``mode`` is octal text."""

    size_bytes: int
    inodes: int
    mode: str


class Config(TypedDict):
    """What the server says; JSON, as the only argument. Nothing in it is secret.

    ``parent``: the server's pid. ``binds``: name in the staging folder → folder on the host. ``files``: name →
    text. ``owner``: uid and gid to become, None to stay the server's user. ``cgroups``: files that take the pid.
    ``argv``: what is executed, with :data:`STAGE_TOKEN` for the staging folder.
    """

    parent: int
    binds: dict[str, str]
    tmpfs: dict[str, Tmpfs]
    files: dict[str, str]
    owner: int | None
    cgroups: list[str]
    rlimits: dict[str, int]
    oom_score_adj: int
    keep_fds: list[int]
    argv: list[str]


def close_all_but(kept: list[int]) -> None:
    """Close every descriptor above 2 that the server did not hand over."""
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
    for fd in kept:
        os.set_inheritable(fd, True)


def leave_namespaces(*, as_root: bool) -> None:
    """A private mount namespace; an ordinary user needs a user namespace to be allowed to."""
    if as_root:
        namespaces.unshare(namespaces.CLONE_NEWNS)
    else:
        uid, gid = os.getuid(), os.getgid()
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    namespaces.make_mounts_private()


def build_stage(config: Config, uid: int) -> Path:
    """Everything that the sandbox will see, at a place that its uid can reach."""
    # opened first: the staging tmpfs may cover the path of one of them
    sources = {name: os.open(path, os.O_PATH | os.O_DIRECTORY) for name, path in config["binds"].items()}
    program = os.open(config["argv"][0], os.O_PATH)
    stage = namespaces.private_tmpfs(size="4m")
    (stage / PROGRAM).touch()
    namespaces.bind(program, str(stage / PROGRAM))
    os.close(program)
    for name, fd in sources.items():
        target = stage / name
        target.mkdir()
        namespaces.bind(fd, str(target))
        os.close(fd)
    for name, limits in config["tmpfs"].items():
        target = stage / name
        target.mkdir()
        options = f"size={limits['size_bytes']},nr_inodes={limits['inodes']},mode={limits['mode']},uid={uid}"
        namespaces.mount("tmpfs", str(target), "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, options)
    for name, text in config["files"].items():
        target = stage / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return stage


def run(config: Config) -> None:
    """Steps 1 to 5 of the module's docstring; returns only by an exception."""
    namespaces.die_with_parent(signal.SIGKILL, config["parent"])
    close_all_but(config["keep_fds"])
    os.umask(0o022)
    owner = config["owner"]
    for path in config["cgroups"]:
        Path(path).write_text(str(os.getpid()))
    Path("/proc/self/oom_score_adj").write_text(str(config["oom_score_adj"]))
    leave_namespaces(as_root=owner is not None)
    stage = build_stage(config, os.getuid() if owner is None else owner)
    os.chdir("/")
    for name, value in config["rlimits"].items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (bounded, bounded))
    if owner is not None:
        namespaces.drop_to(owner, owner)
        namespaces.die_with_parent(signal.SIGKILL, config["parent"])  # a change of uid forgets it
    namespaces.forbid_new_privileges()
    argv = [part.replace(STAGE_TOKEN, str(stage)) for part in config["argv"]]
    os.execv(stage / PROGRAM, argv)  # noqa: S606 (no shell is the point)


def main() -> None:
    """Run, and say in one line what was refused."""
    try:
        run(json.loads(sys.argv[1]))
    except OSError as error:
        print(f"launcher: {error.filename or 'call'}: {error.strerror}", file=sys.stderr)  # noqa: T201
        raise SystemExit(EXIT_FAILED) from None


if __name__ == "__main__":
    main()
