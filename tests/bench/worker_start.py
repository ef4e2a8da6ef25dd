"""A worker's start against a Jupyter kernel's with the same imports, in one run on one machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2

from bench.report import Sample, heading

if TYPE_CHECKING:
    from support.server import Server

ROOT = Path(sys.prefix).parent
JUPYTER = ROOT / ".venv-bench" / "bin" / "python"
ROUNDS = 5
IMPORTS = "import numpy, pandas, matplotlib.pyplot"

KERNEL = f"""
import json, time
from jupyter_client.manager import start_new_kernel
begun = time.perf_counter()
manager, client = start_new_kernel(kernel_name="python3")
started = time.perf_counter()
client.execute_interactive({IMPORTS!r}, timeout=60)
imported = time.perf_counter()
client.execute_interactive("1+1", timeout=60, output_hook=lambda m: None)
spent = []
for _ in range(50):
    t = time.perf_counter()
    client.execute_interactive("1+1", timeout=60, output_hook=lambda m: None)
    spent.append(time.perf_counter() - t)
print(json.dumps([started - begun, imported - started, sorted(spent)[25]]))
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


async def against_jupyter(server: Server) -> None:
    """Ours: a sandbox whose worker crashed, until the fresh worker's next result. Theirs: start, imports, 1+1."""
    heading("worker start -> first result, against a Jupyter kernel with the same imports")
    start, imports, cell = (
        Sample("Jupyter kernel: start"),
        Sample("Jupyter kernel: the same imports"),
        Sample("Jupyter: 1+1"),
    )
    ours = Sample("our worker: crash -> fresh worker's first result (REST)")
    async with httpx2.AsyncClient(base_url=server.url, headers=server.headers, timeout=60) as rest:
        session = (await rest.post("/api/sessions", json={})).json()["session_id"]
        body = {"session_id": session, "code": IMPORTS + "; 1+1"}
        await rest.post("/api/execute", json=body)
        for _ in range(ROUNDS):
            done = subprocess.run([str(JUPYTER), "-c", KERNEL], stdout=subprocess.PIPE, check=True, timeout=120)
            for sample, seconds in zip((start, imports, cell), json.loads(done.stdout), strict=True):
                sample.seconds.append(seconds)
            crashed = await rest.post("/api/execute", json={"session_id": session, "code": "import os; os._exit(3)"})
            assert crashed.json()["success"] is False, crashed.text
            begun = time.perf_counter()
            answer = await rest.post("/api/execute", json=body)
            ours.seconds.append(time.perf_counter() - begun)
            assert answer.json()["success"] is True, answer.text
        await rest.delete(f"/api/sessions/{session}")
    for sample in (start, imports, cell, ours):
        print(sample.line())
    print(f"  -> Jupyter start + imports / our fresh worker, p50: {(start.p50 + imports.p50) / ours.p50:.0f}x")
