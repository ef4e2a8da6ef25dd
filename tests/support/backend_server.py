"""A server that is only a local backend: it claims sandboxes, runs a daemon in each, says so, and waits.

Run as a program (``python backend_server.py RUNTIME_DIR COUNT``) so that a test can kill it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from interpreter_api.backends.base import SandboxClass
from interpreter_api.backends.local.backend import LocalBackend
from interpreter_sandbox.protocol import ExecuteRequest

ENVIRONMENT = Path(__file__).parents[2] / ".venv-sandbox"
DAEMON = "import subprocess; subprocess.Popen(['setsid', 'sleep', '1000']); print('daemon')"


async def main(runtime_dir: Path, count: int) -> None:
    """Claim, start a daemon in each sandbox, print ``ready``, and wait to be killed."""
    backend = LocalBackend(
        {"default": SandboxClass(warm_pool_min=1)},
        environment=ENVIRONMENT,
        runtime_dir=runtime_dir,
        max_sandboxes=count + 1,
    )
    await backend.start()
    for number in range(count):
        sandbox = await backend.claim("default", f"ses_{number}", "owner")
        request = ExecuteRequest(execution_id=f"exe_{number}", code=DAEMON, timeout_seconds=30)
        events = [event async for event in sandbox.client.execute(request)]
        if events[-1].data["status"] != "ok":
            raise SystemExit(f"the daemon did not start: {events}")
    print("ready", backend.posture().kind, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
