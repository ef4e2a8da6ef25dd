"""A real agent for tests: the sandbox's own environment and process tree, without the walls around it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from interpreter_sandbox.client import AgentClient, AgentUnavailable, TokenSigner
from interpreter_sandbox.protocol import Done, Event, ExecuteRequest, FileEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

SANDBOX_PYTHON = Path(sys.prefix).parent / ".venv-sandbox" / "bin" / "python"
UID = "sandbox-under-test"
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Agent:
    """A started agent: its socket's path, its workspace, its process."""

    path: str
    workspace: Path
    process: subprocess.Popen[bytes]
    signer: TokenSigner

    def client(self, uid: str = UID) -> AgentClient:
        """A client with tokens for that uid; close it."""
        return AgentClient.over_unix(self.path, self.signer.for_sandbox(uid))


@contextmanager
def running(folder: Path, **limits: int) -> Iterator[Agent]:
    """An agent in ``folder``; when the context ends no process of it is left."""
    workspace = folder / "workspace"
    workspace.mkdir()
    path = str(folder / "agent.sock")
    signer = TokenSigner(Ed25519PrivateKey.generate())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        config = {
            "uid": UID,
            "public_key": signer.public_key_base64,
            "listen": {"fd": listening.fileno()},
            "workspace": str(workspace),
            "limits": limits,
        }
        process = subprocess.Popen(
            [str(SANDBOX_PYTHON), "-m", "interpreter_sandbox.runtime.agent", "--config", json.dumps(config)],
            env={"PATH": os.environ["PATH"], "HOME": str(workspace), "LANG": "C.UTF-8", "TMPDIR": str(folder)},
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
        )
    try:
        yield Agent(path, workspace, process, signer)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


async def wait_ready(client: AgentClient) -> None:
    """Until the first worker is there."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            health = await client.health()
        except AgentUnavailable:
            health = None
        if health is not None and health.status == "ready":
            return
        assert health is None or health.status != "failed", health
        await anyio.sleep(0.05)
    raise AssertionError("the agent did not get ready")


@dataclass(frozen=True)
class Outcome:
    """Everything that one execution answered."""

    events: list[Event]

    def text(self, name: str) -> str:
        """All of a stream's text."""
        return "".join(event.data["text"] for event in self.events if event.event == name)

    @property
    def names(self) -> list[str]:
        """The events' names."""
        return [event.event for event in self.events]

    @property
    def result(self) -> str | None:
        """The last expression's plain text."""
        return next((event.data["data"]["text/plain"] for event in self.events if event.event == "result"), None)

    @property
    def error(self) -> dict[str, object]:
        """The error event's data; empty where there is none."""
        return next((event.data for event in self.events if event.event == "error"), {})

    @property
    def done(self) -> Done:
        """The last event, which must be ``done`` and must be the only one."""
        assert self.names.count("done") == 1
        assert self.names[-1] == "done"
        data = dict(self.events[-1].data)
        data["files"] = [FileEntry(**entry) for entry in data["files"]]
        return Done(**data)


_ids = iter(range(10**9))


async def run(
    client: AgentClient, code: str, execution_id: str = "", seconds: float = 30.0, **options: object
) -> Outcome:
    """Run a cell to its end."""
    request = ExecuteRequest(execution_id or f"exe_{os.getpid()}_{next(_ids)}", code, seconds, **options)  # type: ignore[arg-type]
    return Outcome([event async for event in client.execute(request)])
