"""Runs under the sandbox's own Python: the real `Shell`, preloaded once, one forked process per session.

Each line on stdin is ``[{ExecuteRequest fields}, ...]``, the cells of one session; the answer is one line with, for
each cell, its status, error, notes, events and what it printed on descriptors 1 and 2.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from interpreter_sandbox.protocol import ExecuteRequest
from interpreter_sandbox.runtime.shell import Shell


def record(events: list[dict[str, Any]], name: str, data: dict[str, Any]) -> None:
    """Keep one emitted event."""
    events.append({"event": name, "data": data})


def run_session(shell: Shell, cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the cells one after the other, with descriptors 1 and 2 in files."""
    outcomes: list[dict[str, Any]] = []
    for number, cell in enumerate(cells):
        events: list[dict[str, Any]] = []
        shell.emit = partial(record, events)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            fields: dict[str, Any] = {"execution_id": f"exe_{number}", "timeout_seconds": 60.0} | cell
            request = ExecuteRequest(**fields)
            count = shell.execution_count
            status, error = shell.run(request)
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode("utf-8", "replace"))
        outcomes.append(
            {
                "status": status,
                "error": error,
                "notes": shell.notes,
                "events": events,
                "count": count,
                "stdout": texts[0],
                "stderr": texts[1],
            }
        )
    return outcomes


def main() -> None:
    """Serve until stdin closes."""
    workspace = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    dumps = json.JSONEncoder().encode  # before any cell can replace it
    shell = Shell(lambda name, data: None, workspace)
    for line in sys.stdin:
        for left in workspace.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        try:
            os.chdir(workspace)
            answers.write(dumps(run_session(shell, json.loads(line))) + "\n")
        except BaseException:  # noqa: BLE001 - reported to the test, whatever it is
            answers.write(dumps({"failed": traceback.format_exc()}) + "\n")
        answers.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
