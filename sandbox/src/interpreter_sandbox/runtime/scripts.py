"""A script of the workspace, run as ``python script.py`` runs it: a process of its own, below the worker.

It has its own ``__main__`` and ``sys.argv`` and sees nothing of the session's variables. It stays in the worker's
process group, so that what interrupts a cell interrupts the script too.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from interpreter_sandbox.protocol import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Sequence


class ScriptError(Exception):
    """The script did not end with exit code 0."""

    __module__ = "builtins"  # how tracebacks name it


def run(path: str, args: Sequence[str], workspace: str = WORKSPACE) -> None:
    """Run it and wait. Its output is the cell's output; ``ScriptError`` says how it ended where it did not succeed."""
    if not Path(workspace, path).is_file():
        raise ScriptError(f"{path} is not there any more.")
    # -u: a pipe is no reason to hold back what the script prints. A name that begins with "-" is no option.
    command = [sys.executable, "-u", f"./{path}" if path.startswith("-") else path, *args]
    process = subprocess.Popen(command, cwd=workspace, stdin=subprocess.DEVNULL)
    try:
        code = process.wait()  # an interrupt reaches the script too, and this gives it 0.25 s to end
    except BaseException:
        process.kill()
        process.wait()  # else a zombie stays behind
        raise
    if code:
        raise ScriptError(f"{path} {_ending(code)}; stdout and stderr hold what it printed.")


def _ending(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
