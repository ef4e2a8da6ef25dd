"""Every error that a client may see, as one tree.

    InterpreterError
    ├── InvalidArgumentError     400  invalid_argument      a value that the caller must change
    ├── UnauthorizedError        401  unauthorized          no key, or one that is not valid
    ├── ForbiddenError           403  forbidden             a link that expired or was altered, a refused origin
    ├── NotFoundError            404  not_found             unknown, or another tenant's: the same answer
    ├── ConflictError            409  conflict              an idempotency key used for something else
    │   ├── SessionBusyError     409  session_busy          another execution runs in this session
    │   ├── SessionLimitError    409  session_limit         the caller has as many sessions as one may have
    │   └── OutcomeUnknownError  409  outcome_unknown       the server stopped while that execution ran
    ├── SessionExpiredError      410  session_expired       the state is truly gone
    ├── TooLargeError            413  too_large             over a documented size limit
    ├── RangeNotSatisfiableError 416  range_not_satisfiable a byte range beyond a file's end
    ├── RateLimitedError         429  rate_limited          too many requests
    ├── CapacityError            503  capacity_exhausted    no sandbox free; try again
    ├── SandboxUnavailableError  503  sandbox_unavailable   no isolation on this machine: nothing is executed
    ├── DatabaseUnavailableError 503  database_unavailable  Postgres does not answer; try again
    ├── SandboxLostError         502  sandbox_lost          the sandbox died under the call
    └── InternalError            500  internal              our fault; the reference is in the log

An error of the *user's code* is not in this tree: an execution that raised is a successful call whose result
says ``success: false``. REST renders these as RFC 9457 problem details, MCP as tool errors; both carry
``code``, ``message``, ``remedy`` and ``retryable``.
"""

from __future__ import annotations

from typing import Any, ClassVar


class InterpreterError(Exception):
    """The root. ``message`` says what happened, ``remedy`` what the caller can do about it."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    default_remedy: ClassVar[str] = ""

    def __init__(self, message: str, *, remedy: str = "", **details: Any) -> None:
        """``details`` are JSON values shown to the client: ids and limits, never a secret."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy or self.default_remedy
        self.details = details

    def as_dict(self) -> dict[str, Any]:
        """The body that both renderings share."""
        body: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "retryable": self.retryable,
        }
        if self.details:
            body["details"] = self.details
        return body


class InvalidArgumentError(InterpreterError):
    """A value that the caller must change."""

    status, code = 400, "invalid_argument"
    default_remedy = "Change the named argument and call again."


class UnauthorizedError(InterpreterError):
    """No API key, or one that is not valid. Says no more than that, whatever was wrong."""

    status, code = 401, "unauthorized"
    default_remedy = "Send a valid API key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'."


class ForbiddenError(InterpreterError):
    """A request that no key makes right: an expired or altered link, a refused origin."""

    status, code = 403, "forbidden"


class NotFoundError(InterpreterError):
    """Unknown to this caller. Another tenant's object answers exactly like one that never was."""

    status, code = 404, "not_found"
    default_remedy = "Check the id; list_sessions and list_files show what exists."


class ConflictError(InterpreterError):
    """The request contradicts what the server already holds."""

    status, code = 409, "conflict"


class SessionBusyError(ConflictError):
    """Another execution runs in this session."""

    code, retryable = "session_busy", True
    default_remedy = "Wait for the running execution, or use another session."


class SessionLimitError(ConflictError):
    """The caller has as many sessions as one may have."""

    code = "session_limit"
    default_remedy = "Delete a session that is no longer needed (list_sessions shows them), then create the new one."


class OutcomeUnknownError(ConflictError):
    """The server stopped while this execution ran; it is never run a second time under the same id."""

    code = "outcome_unknown"
    default_remedy = "Look at the session's variables and files, then run the code again under a new execution id."


class SessionExpiredError(InterpreterError):
    """The state is truly gone."""

    status, code = 410, "session_expired"
    default_remedy = "Create a new session and run the code again."


class TooLargeError(InterpreterError):
    """Over a documented size limit."""

    status, code = 413, "too_large"


class RangeNotSatisfiableError(InterpreterError):
    """A byte range beyond a file's end; ``size`` stands in the details."""

    status, code = 416, "range_not_satisfiable"
    default_remedy = "Ask for a range inside the file, or for the whole file."


class RateLimitedError(InterpreterError):
    """Too many requests from this caller."""

    status, code, retryable = 429, "rate_limited", True
    default_remedy = "Wait as long as Retry-After says, then try again."


class SandboxLostError(InterpreterError):
    """The sandbox died under the call; the session lives on with a new one."""

    status, code, retryable = 502, "sandbox_lost", True
    default_remedy = "Call again: the session gets a new sandbox. Variables of the old one are gone."


class CapacityError(InterpreterError):
    """Every sandbox that this server may run is in use."""

    status, code, retryable = 503, "capacity_exhausted", True
    default_remedy = "Delete a session that is no longer needed, or try again in a moment."


class SandboxUnavailableError(InterpreterError):
    """This machine cannot isolate code, so nothing is executed. ``remedy`` is the operator's fix."""

    status, code = 503, "sandbox_unavailable"


class DatabaseUnavailableError(InterpreterError):
    """Postgres does not answer. What was asked may or may not have been done."""

    status, code, retryable = 503, "database_unavailable", True
    default_remedy = "Try again in a moment; code that must not run twice needs an execution_id."


class InternalError(InterpreterError):
    """Our fault. The message names a reference that stands in the log, and nothing of the cause."""

    status, code, retryable = 500, "internal", True
    default_remedy = "Try again; if it stays, give the reference to whoever runs this server."
