"""What a second call with an execution id gets: the stored answer, or a typed error; never a second run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from interpreter_api.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    SandboxLostError,
    SessionBusyError,
)
from interpreter_api.services.models import ExecutionResult

if TYPE_CHECKING:
    from interpreter_api.data.executions import ExecutionRow
    from interpreter_api.data.servers import ServerPresence
    from interpreter_api.services.ports import ExecuteCommand


def request_digest(command: ExecuteCommand) -> bytes:
    """What makes two requests the same: the code, the session and the time limit that were asked for."""
    head = f"{command.session_id!r} {command.timeout_seconds!r}\n"
    return hashlib.sha256(head.encode() + command.code.encode()).digest()


async def replay(row: ExecutionRow, presence: ServerPresence) -> ExecutionResult:
    """The answer that the row holds, or the error that says why it holds none.

    For rows that no execution of this server is working on: a ``running`` one is another server's, alive or gone.
    """
    if row.state == "done" and row.answer is not None:
        return stored(row.answer)
    if row.state == "lost":
        raise sandbox_lost(row.id, row.reason)
    if row.state == "deleted":
        raise NotFoundError("The session of this execution was deleted.", execution_id=row.id)
    if row.server_number != presence.number and await presence.is_alive(row.server_number):
        raise still_running(row.id)
    raise OutcomeUnknownError(
        "The server stopped while this execution ran; how far it came is not known.", execution_id=row.id
    )


def stored(answer: bytes) -> ExecutionResult:
    """A stored answer, marked as such."""
    return ExecutionResult.model_validate_json(answer).model_copy(update={"replayed": True})


def other_request(execution_id: str) -> ConflictError:
    """The id was used with other code."""
    return ConflictError(
        "This execution_id was used for another request (other code, session or timeout).",
        remedy="Use a new execution_id for new code.",
        execution_id=execution_id,
    )


def still_running(execution_id: str) -> SessionBusyError:
    """No answer yet."""
    return SessionBusyError(
        "This execution is still running.", remedy="Ask again in a moment.", execution_id=execution_id
    )


def sandbox_lost(execution_id: str, reason: str) -> SandboxLostError:
    """The code was running when its sandbox died."""
    return SandboxLostError(
        f"The sandbox was lost while the code ran: {reason}.",
        remedy="Run the code again under a new execution_id: the session gets a new sandbox, without its variables.",
        execution_id=execution_id,
    )
