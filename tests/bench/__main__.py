"""`make bench`: every benchmark of the local backend against one freshly started server."""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
from pathlib import Path

from bench.latency import execute_against_noop, session_start
from bench.memory import idle_memory
from bench.worker_start import against_jupyter
from support import server as real_server


async def run(server: real_server.Server) -> None:
    """All of them, one after the other: they share two cores."""
    await execute_against_noop(server)
    await session_start(server)
    await against_jupyter(server)
    await idle_memory(server)


def main() -> None:
    """Start a server in a folder of its own, measure, stop it."""
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        server = real_server.start(Path(folder) / "data", {"LOG_LEVEL": "WARNING"})
        try:
            asyncio.run(run(server))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
