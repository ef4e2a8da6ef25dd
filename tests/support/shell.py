"""Drives the shell of the sandbox's own environment from the tests' environment, which has no IPython."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interpreter_sandbox.protocol import ExecuteRequest

ROOT = Path(__file__).parents[2]
SANDBOX_PYTHON = Path(os.environ.get("SANDBOX_ENV", ROOT / ".venv-sandbox")) / "bin" / "python"


@dataclass(frozen=True)
class Cell:
    """How one cell ended, and all that it put out."""

    status: str
    error: dict[str, Any] | None
    notes: list[str]
    events: list[dict[str, Any]]
    count: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any] | None:
        """The bundle of the last expression."""
        found = [event["data"]["data"] for event in self.events if event["event"] == "result"]
        assert len(found) <= 1
        return found[0] if found else None

    @property
    def text(self) -> str | None:
        """The last expression as text; the cell must have succeeded."""
        assert self.status == "ok", self.error
        return None if self.result is None else self.result["text/plain"]

    @property
    def charts(self) -> list[dict[str, Any]]:
        """The captured charts with their bundles under ``data``."""
        return [
            event["data"]["chart"] | {"data": event["data"]["data"]} for event in self.events if event["data"]["chart"]
        ]

    @property
    def origins(self) -> list[str]:
        """Where the charts came from, in order."""
        return [chart["origin"] for chart in self.charts]


class ShellServer:
    """One preloaded process; every :meth:`session` is a fork of it, with an empty workspace."""

    def __init__(self, workspace: Path, home: Path) -> None:
        """Starts the process; the first session waits for its imports."""
        self.workspace = workspace
        self.home = home
        # an installed package, not a path: what a sandbox runs is what is tested
        environment = {
            "PATH": os.defpath,
            "HOME": str(home),
            "TMPDIR": tempfile.gettempdir(),
            "MPLCONFIGDIR": str(home / "matplotlib"),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT / "sandbox" / "src"),
        }
        self._process = subprocess.Popen(
            [SANDBOX_PYTHON, Path(__file__).with_name("shell_driver.py"), workspace],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def session(self, *cells: str | dict[str, Any]) -> list[Cell]:
        """Run the cells of one session; a dict gives fields of :class:`ExecuteRequest` besides ``code``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        requests = [{"code": cell} if isinstance(cell, str) else cell for cell in cells]
        assert all(set(request) <= set(ExecuteRequest.__dataclass_fields__) for request in requests)
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, list), answer["failed"]
        return [Cell(**outcome) for outcome in answer]

    def cell(self, code: str, **fields: Any) -> Cell:
        """A session of one cell."""
        return self.session({"code": code} | fields)[0]

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def image(chart: dict[str, Any], mime_type: str = "image/png") -> bytes:
    """The bytes of a chart's image."""
    return base64.b64decode(chart["data"][mime_type], validate=True)
