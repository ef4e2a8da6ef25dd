"""Scripts: Python files of the workspace, saved under ``scripts/`` and run as ``python script.py`` would.

A run is an execution like any other, of a cell that starts the script: limits, turns, output, files and the answer
are those of ``execute``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from interpreter_api.errors import InvalidArgumentError
from interpreter_api.services.ports import ExecuteCommand
from interpreter_api.services.validate import check_code, check_timeout, encodable, workspace_path
from interpreter_sandbox.protocol import script_cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interpreter_api.services.models import ExecutionResult, FileWritten
    from interpreter_api.services.ports import ExecutionPort, Principal, RunScriptCommand, WorkspacePort
    from interpreter_api.services.sessions import SessionService

FOLDER = "scripts"
DEFAULT_TIMEOUT_SECONDS = 120.0
MAX_ARGS = 1000
MAX_ARGS_BYTES = 64 << 10
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z")


class ScriptService:
    """Over the workspace, which holds the scripts, and the executions, which run them."""

    def __init__(self, sessions: SessionService, workspace: WorkspacePort, executions: ExecutionPort) -> None:
        self._sessions = sessions
        self._workspace = workspace
        self._executions = executions

    async def save(self, principal: Principal, session_id: str, name: str, content: str) -> FileWritten:
        """Write ``scripts/{name}.py``, replacing one of that name; the answer's path is what :meth:`run` takes."""
        file = f"{FOLDER}/{script_name(name)}"
        check_code(content, argument="content")
        return await self._workspace.write_file(principal, session_id, file, content.encode())

    async def run(self, principal: Principal, command: RunScriptCommand) -> ExecutionResult:
        """Run a script that is there. One that exits with another code than 0 answers ``success: false``."""
        path = workspace_path(command.path)
        check_args(command.args)
        session = await self._sessions.row(principal, command.session_id)
        maximum = self._sessions.sandbox_class(session.class_name).execution_timeout_seconds
        if command.timeout_seconds is None:
            seconds = min(DEFAULT_TIMEOUT_SECONDS, maximum)
        else:
            seconds = check_timeout(command.timeout_seconds, maximum)
        # refuses what is missing, no regular file, or a link out of the workspace, before anything runs
        await self._workspace.read_file(principal, session.id, path, max_bytes=1)
        cell = ExecuteCommand(
            script_cell(path, command.args),
            session.id,
            seconds,
            inline_images=command.inline_images,
            on_event=command.on_event,
        )
        return await self._executions.execute(principal, cell)


def script_name(name: str) -> str:
    """A file name without folders; ``.py`` is added where it is not there."""
    if not _NAME.match(name):
        raise InvalidArgumentError(
            "name must be 1 to 100 characters of A-Z, a-z, 0-9, '_', '-' and '.', and begin with a letter, a digit "
            "or '_': it is a name, not a path.",
            argument="name",
        )
    return name if name.endswith(".py") else f"{name}.py"


def check_args(args: Sequence[str]) -> None:
    """What a command line can hold: texts without NUL, :data:`MAX_ARGS` of them, :data:`MAX_ARGS_BYTES` in all."""
    if len(args) > MAX_ARGS or sum(len(encodable("args", arg)) for arg in args) > MAX_ARGS_BYTES:
        raise InvalidArgumentError(
            f"args holds at most {MAX_ARGS} texts, of {MAX_ARGS_BYTES >> 10} KiB together.",
            remedy="Put the data into a file of the session and pass its path.",
            argument="args",
        )
    if any("\0" in arg for arg in args):
        raise InvalidArgumentError("args holds a NUL character; an argument cannot.", argument="args")
