"""Idle memory of a sandbox: the proportional set size of each of its processes, read from the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import psutil

from bench.report import heading, verdict

if TYPE_CHECKING:
    from support.server import Server


def sandbox_processes(server: Server) -> dict[str, list[psutil.Process]]:
    """The processes of each sandbox: every descendant of the server below a `bwrap`, by that bwrap's pid."""
    groups: dict[str, list[psutil.Process]] = {}
    for process in psutil.Process(server.process.pid).children(recursive=True):
        chain = [process, *process.parents()]
        outermost = [p for p in chain if p.name() == "bwrap"]
        if outermost:
            groups.setdefault(str(outermost[-1].pid), []).append(process)
    return groups


async def idle_memory(server: Server) -> None:
    """Each sandbox, warm and claimed, with pandas and matplotlib loaded; shared pages counted by share."""
    heading("idle memory of a sandbox (PSS of all its processes, pandas and matplotlib loaded)")
    async with httpx2.AsyncClient(base_url=server.url, headers=server.headers, timeout=60) as rest:
        session = (await rest.post("/api/sessions", json={})).json()["session_id"]
        await rest.post(
            "/api/execute",
            json={"code": "pd.DataFrame({'a': [1]}); plt.rcParams['dpi'] if 0 else 1", "session_id": session},
        )
        total = []
        for bwrap, processes in sorted(sandbox_processes(server).items()):
            sizes = [(p.name(), p.memory_full_info().pss / 2**20) for p in processes]
            total.append(sum(size for _, size in sizes))
            print(f"  sandbox {bwrap}: {total[-1]:6.1f} MiB = " + " + ".join(f"{n} {s:.1f}" for n, s in sizes))
        await rest.delete(f"/api/sessions/{session}")
    verdict(f"idle sandbox, largest of {len(total)}", max(total), 120.0, " MiB")
