"""The local backend in tests: the machine's ways, a runtime folder of one's own, and who is left afterwards."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from interpreter_api.backends.base import SandboxClass
from interpreter_api.backends.local import cgroups, host
from interpreter_api.backends.local.process import SandboxProcess

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from interpreter_api.backends.local.host import Machine

ENVIRONMENT = Path(__file__).parents[2] / ".venv-sandbox"
SMALL = SandboxClass(
    memory_bytes=512 << 20, workspace_bytes=16 << 20, workspace_inodes=200, max_processes=40, warm_pool_min=0
)
INNER_PYTHON = ["/opt/sandbox/bin/python", "-I", "-S", "-B", "-u", "-c"]


def machine() -> Machine:
    """How sandboxes are started here; raises where they cannot be."""
    return host.gather(ENVIRONMENT, "bwrap")


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """A folder with a short path, as Unix sockets need; pytest's own are too long."""
    folder = Path(tempfile.mkdtemp(prefix="pi-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def spawn(code: str, *, sandbox_class: SandboxClass = SMALL, group: cgroups.Group | None = None) -> SandboxProcess:
    """Plain Python as process 1 of a sandbox; what it prints is in ``stderr``."""
    here = machine()
    return SandboxProcess.spawn(
        here,
        sandbox_class,
        [*INNER_PYTHON, code],
        owner=here.spare_owner(),
        cgroups=[] if group is None else group.join_files(),
        keep_fds=[],
    )


async def run(code: str, *, sandbox_class: SandboxClass = SMALL) -> str:
    """What the code printed, once it ended well."""
    process = spawn(code, sandbox_class=sandbox_class)
    ended = await process.ended()
    assert ended == 0, process.stderr
    return process.stderr.strip()


async def until_printed(process: SandboxProcess, text: str, seconds: float = 10) -> None:
    """Wait for what the code prints when it has come to a certain place."""
    async with asyncio.timeout(seconds):
        while text not in process.stderr:  # noqa: ASYNC110 (a pipe tells of bytes, not of words)
            await asyncio.sleep(0.01)


def family(pid: int) -> list[psutil.Process]:
    """A process and everything below it, as the host sees them now."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def left_of(processes: list[psutil.Process], seconds: float = 5) -> list[psutil.Process]:
    """Those that still run after a while; a pid that was given out again is not the same process."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def started_besides(others: Collection[psutil.Process]) -> list[psutil.Process]:
    """This process's children but for ``others``, and all that is below them."""
    started = [child for child in psutil.Process().children() if child not in others]
    return [process for child in started for process in (child, *child.children(recursive=True))]
