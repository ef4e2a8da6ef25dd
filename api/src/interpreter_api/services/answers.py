"""From a folded event stream to the public answer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interpreter_api.services.models import ExecutionErrorInfo, ExecutionResult

if TYPE_CHECKING:
    from interpreter_api.services.artifacts import Artifacts
    from interpreter_api.services.fold import Folded
    from interpreter_api.services.models import SessionInfo

_REMEDIES = {
    "timeout": "Give a longer timeout, or split the work: files and (where kept) variables stay in the session.",
    "memory_limit": "Free variables with del, load fewer columns or rows, or work in chunks.",
    "crashed": "The code ended the Python process (a native crash, os._exit or a kill). Change it and run it again.",
    "interrupted": "The call was cancelled. Run the code again if it is still wanted.",
    "cancelled": "The call was cancelled. Run the code again if it is still wanted.",
}
_MESSAGES = {
    "timeout": "The code ran longer than its time limit and was stopped.",
    "memory_limit": "The code needed more memory than the sandbox has.",
    "crashed": "The Python process ended while the code ran.",
    "interrupted": "The code was interrupted.",
    "error": "The code raised an exception.",
}


def error_of(folded: Folded) -> ExecutionErrorInfo | None:
    """What to tell of a run that did not succeed. A status other than ``ok`` always has an error."""
    if folded.error is not None:
        error = folded.error
        return ExecutionErrorInfo(
            code=error.code,
            type=error.type,
            message=error.message,
            traceback=error.traceback,
            remedy=_REMEDIES.get(error.code, ""),
        )
    if folded.status == "ok":
        return None
    status = folded.status or "crashed"
    code = "user_error" if status == "error" else status
    return ExecutionErrorInfo(code=code, type="", message=_MESSAGES[status], remedy=_REMEDIES.get(code, ""))


def answer(execution_id: str, folded: Folded, artifacts: Artifacts, session: SessionInfo) -> ExecutionResult:
    """The answer to the caller, without inline pictures."""
    error = error_of(folded)
    return ExecutionResult(
        execution_id=execution_id,
        success=folded.status == "ok" and error is None,
        stdout="".join(folded.stdout),
        stderr="".join(folded.stderr),
        result=folded.result,
        result_data=folded.result_data,
        displays=folded.displays,
        error=error,
        charts=artifacts.charts,
        files=artifacts.files,
        notes=folded.notes,
        elapsed_ms=round(folded.elapsed_ms, 3),
        session_info=session,
    )
