"""A real server for tests: the program that `make run` starts, in its own process, on a port of its own."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

READY_SECONDS = 90.0


def free_port() -> int:
    """A TCP port on loopback that nothing listens on right now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Server:
    """A started server: where it listens, the first principal's key, its data folder and its process."""

    url: str
    api_key: str
    data_dir: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def headers(self) -> dict[str, str]:
        """The header that makes a request the first principal's."""
        return {"Authorization": f"Bearer {self.api_key}"}

    def output(self) -> str:
        """What the server printed so far."""
        return self.log.read_text(errors="replace")

    def stop(self, sig: signal.Signals = signal.SIGINT, seconds: float = 20.0) -> int:
        """Signal the server, as Ctrl-C does, and wait for its end; SIGKILL after ``seconds``."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        return int(self.process.returncode)


def spawn(
    data_dir: Path, env: Mapping[str, str] | None = None, *, port: int | None = None, show_key: bool = False
) -> Server:
    """Start the server and return at once; nothing is checked. Settings come from ``env`` alone.

    ``show_key``: as `make run` does, for a person at a terminal.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    api_key = (env or {}).get("API_KEY", "test-" + secrets.token_urlsafe(24))
    settings = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "API_KEY": api_key,
        "DATA_DIR": str(data_dir),
        "LOG_LEVEL": "INFO",
        **(env or {}),
    }
    log = data_dir.parent / f"{data_dir.name}-{port}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(Path(sys.prefix) / "bin" / "power-interpreter"), "serve", *(["--show-key"] if show_key else [])],
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(f"http://127.0.0.1:{port}", api_key, data_dir, process, log)


def start(
    data_dir: Path, env: Mapping[str, str] | None = None, *, port: int | None = None, show_key: bool = False
) -> Server:
    """Start the server and wait until ``/ready`` answers 200; raise with its log where it does not."""
    server = spawn(data_dir, env, port=port, show_key=show_key)
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}:\n{server.output()}")
        try:
            with urllib.request.urlopen(server.url + "/ready", timeout=2) as answer:
                if answer.status == 200:
                    return server
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.05)
    server.stop(signal.SIGKILL)
    raise RuntimeError(f"the server was not ready after {READY_SECONDS} s:\n{server.output()}")


def post(url: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """POST by the standard library alone; the answer's JSON object."""
    request = urllib.request.Request(url, body, dict(headers))
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.loads(answer.read())
    assert isinstance(found, dict)
    return found
