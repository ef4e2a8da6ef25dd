"""Can this machine isolate code? Asked at start, by doing it: a probe runs under the very profile of a sandbox.

Where it cannot, the answer carries the fix as a line to type, and nothing is executed until it is applied.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from interpreter_api.backends.base import Posture
from interpreter_api.backends.local import host, process, profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interpreter_api.backends.base import SandboxClass
    from interpreter_api.backends.local.host import Machine

PROBE_SECONDS: Final = 20.0
PROBE_ANSWER: Final = "isolated"
PROBE: Final = f"""
import os, socket
with open("/workspace/probe", "w") as f: f.write("x")
assert os.getpid() == 1, "not process 1"
assert os.getuid() == {profile.INNER_UID}, "not the sandbox's uid"
assert not os.path.exists("/etc/shadow"), "sees the host's /etc"
assert [name for _, name in socket.if_nameindex()] == ["lo"], "sees the host's network"
try: open("/probe", "w")
except OSError: print("{PROBE_ANSWER}")
"""
"""Runs as process 1 of a sandbox; prints :data:`PROBE_ANSWER` only where each layer shows."""

OLDEST_BWRAP: Final = (0, 5)
USERNS_SYSCTLS: Final = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
)
"""File below /proc/sys, the value that forbids user namespaces, and the setting that allows them."""

CONTAINER_REMEDY: Final = (
    "Start the container with: --cap-add SYS_ADMIN --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The posture, and how sandboxes are started; ``machine`` is None where they are not."""

    posture: Posture
    machine: Machine | None


async def check(environment: Path, bwrap: str, sandbox_class: SandboxClass, degraded: Sequence[str]) -> Verdict:
    """Look, try, and judge. ``degraded``: what is known to be missing already (cgroups). Takes some 100 ms."""
    try:
        machine = host.gather(environment, bwrap)
    except FileNotFoundError as error:
        return _refused(f"{error.strerror}: {error.filename}", _missing_remedy(error.strerror or ""))
    except (OSError, ValueError, StopIteration) as error:
        return _refused(f"the sandbox environment {environment} cannot be read: {error}", "make install")
    if machine.bwrap_version < OLDEST_BWRAP:
        return _refused(
            f"{machine.bwrap} is not bubblewrap {'.'.join(map(str, OLDEST_BWRAP))} or newer", install_remedy()
        )
    if not seccomp_filters():
        return _refused(
            "the kernel has no seccomp filters", "Use a kernel with CONFIG_SECCOMP_FILTER: every distribution's has it."
        )
    complaint = await _probe(machine, sandbox_class)
    if complaint:
        return _refused(f"bubblewrap cannot isolate here: {complaint}", userns_remedy())
    version = ".".join(map(str, machine.bwrap_version))
    lacks = list(degraded)
    if machine.bwrap_version < (0, 8):
        lacks.append(f"bubblewrap {version} cannot disable user namespaces: the seccomp filter alone refuses them")
    if machine.owners is None:
        why = "this container maps too few user ids" if os.geteuid() == 0 else "the server is an ordinary user"
        lacks.append(f"{why}: outside, sandboxes have the server's uid (inside they have no rights of it)")
    where = "each under a uid of its own" if machine.owners else "under the server's uid"
    detail = f"bubblewrap {version}, {where}, seccomp filter, no network, read-only system"
    return Verdict(Posture("bubblewrap", ready=True, detail=detail, degraded=lacks), machine)


async def _probe(machine: Machine, sandbox_class: SandboxClass) -> str:
    """Run the probe as a sandbox would run; empty where it is isolated, else what went wrong in one line."""
    command = [f"{profile.ENVIRONMENT}/bin/python", "-I", "-S", "-B", "-c", PROBE]
    config = process.launch_config(machine, sandbox_class, command, owner=machine.spare_owner())
    # from this thread: the launcher dies with the thread that starts it
    child = await asyncio.create_subprocess_exec(
        *process.launcher_command(config),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
    )
    try:
        out, err = await asyncio.wait_for(child.communicate(), PROBE_SECONDS)
    except TimeoutError:
        child.kill()
        await child.wait()
        return f"no answer within {PROBE_SECONDS:.0f} s"
    if child.returncode == 0 and out.decode("utf-8", "replace").strip() == PROBE_ANSWER:
        return ""
    lines = err.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"the probe ended with {child.returncode}"


def seccomp_filters(actions: Path = Path("/proc/sys/kernel/seccomp/actions_avail")) -> bool:
    """Whether the kernel can filter system calls."""
    return actions.exists() and "errno" in actions.read_text().split()


def install_remedy() -> str:
    """How bubblewrap is installed here."""
    for program, line in (
        ("apt-get", "apt-get install -y bubblewrap"),
        ("dnf", "dnf install -y bubblewrap"),
        ("apk", "apk add bubblewrap"),
        ("pacman", "pacman -S --noconfirm bubblewrap"),
        ("zypper", "zypper install -y bubblewrap"),
    ):
        if any((Path(folder) / program).exists() for folder in ("/usr/bin", "/sbin", "/usr/sbin", "/bin")):
            return _sudo(line)
    return "Install bubblewrap 0.8 or newer."


def userns_remedy(sysctls: Path = Path("/proc/sys")) -> str:
    """What most likely forbids user namespaces here, as the line that allows them."""
    for name, forbidding, setting in USERNS_SYSCTLS:
        file = sysctls / name
        if file.exists() and file.read_text().strip() == forbidding:
            return _sudo(f"sysctl -w {setting}")
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return CONTAINER_REMEDY
    return "Check that 'bwrap --unshare-all --ro-bind / / true' works for the user that runs the server."


def _missing_remedy(what: str) -> str:
    return install_remedy() if "bubblewrap" in what else "make install"


def _sudo(line: str) -> str:
    return line if os.geteuid() == 0 else f"sudo {line}"


def _refused(detail: str, remedy: str) -> Verdict:
    return Verdict(Posture("none", ready=False, detail=detail, remedy=remedy), None)
