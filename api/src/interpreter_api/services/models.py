"""What the services answer: the public shapes that REST and MCP both send.

Field names are the public contract (checklist C01). Times are RFC 3339 in UTC, durations in milliseconds where
the name ends in ``_ms``, sizes in bytes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """The base: immutable, and strict about unknown fields so that a typo cannot hide."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FileLink(Model):
    """A stored file: a signed link that expires, and the same as an MCP resource uri."""

    id: str
    name: str = Field(description="File name without folders.")
    path: str = Field(description="Where the code wrote it, relative to the workspace.")
    uri: str = Field(description="kernel://{session_id}/{path}")
    url: str = Field(description="Signed link, valid until expires_at.")
    mime_type: str
    size: int = Field(description="Bytes.")
    sha256: str
    expires_at: datetime


class ChartLink(FileLink):
    """A captured figure. ``origin`` says how it was caught; each figure appears once."""

    origin: Literal["show", "savefig", "open", "display"]
    data_base64: str | None = Field(
        default=None,
        description="The picture, only where inline images were asked for and it is within the cap.",
    )


class ExecutionErrorInfo(Model):
    """Why the user's code did not succeed."""

    code: str = Field(description="user_error, syntax_error, timeout, memory_limit, crashed, interrupted, cancelled.")
    type: str = Field(description="The exception's class.")
    message: str
    traceback: list[str] = []
    remedy: str = ""
    retryable: bool = False


class SessionInfo(Model):
    """The session an execution ran in. ``state`` says whether earlier variables are there.

    ``fresh``: nothing ran before, or not since it was emptied. ``kept``: they are. ``lost``: they are not, and
    ``notice`` says why.
    """

    session_id: str
    created: bool = Field(description="True where this call made the session.")
    restored: bool = Field(description="True where saved state was brought back for this call.")
    state: Literal["fresh", "kept", "lost"]
    notice: str = ""
    expires_at: datetime


class ExecutionResult(Model):
    """What ``execute_code`` answers. ``success`` is about the code, not about the call."""

    execution_id: str
    success: bool
    stdout: str
    stderr: str
    result: str | None = Field(description="The last expression as text; None where there is none.")
    result_data: dict[str, Any] = Field(
        default_factory=dict, description="Its MIME bundle: text/html, application/json and so on."
    )
    displays: list[dict[str, Any]] = Field(default=[], description="MIME bundles shown on the way, charts excepted.")
    error: ExecutionErrorInfo | None = None
    charts: list[ChartLink] = []
    files: list[FileLink] = []
    notes: list[str] = Field(default=[], description="What was cut, skipped or is worth knowing.")
    elapsed_ms: float
    session_info: SessionInfo
    replayed: bool = Field(default=False, description="True where this is the stored answer of an earlier call.")


class Session(Model):
    """A session as its owner sees it."""

    session_id: str
    name: str
    description: str
    class_name: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    is_default: bool = Field(description='True where the caller\'s "default" points here.')
    sandbox: Literal["none", "running", "busy"]
    executions: int


class SessionList(Model):
    """One page; ``next_cursor`` is None on the last."""

    sessions: list[Session]
    next_cursor: str | None = None


class Restarted(Model):
    """A session whose variables are gone; its id and its files are not."""

    session_id: str
    restarted: bool = Field(description="False where the session had no running sandbox: there was nothing to drop.")
    interrupted_execution_id: str | None = Field(
        default=None, description="What ran in the session at that moment; its caller is told that it was interrupted."
    )
    message: str


class WorkspaceFile(Model):
    """A file or folder in a session's workspace."""

    path: str
    size: int
    modified_at: datetime
    is_dir: bool


class WorkspaceListing(Model):
    """One page of a workspace folder."""

    session_id: str
    path: str
    files: list[WorkspaceFile]
    next_cursor: str | None = None
    truncated: bool = Field(
        default=False,
        description="True where there are more entries than all pages show: 10,000 are. List a subfolder.",
    )


class FileContent(Model):
    """Part or all of a workspace file: ``content`` for text, ``content_base64`` for anything else."""

    session_id: str
    path: str
    size: int
    mime_type: str
    content: str | None = None
    content_base64: str | None = None
    truncated: bool = Field(description="True where max_bytes cut it; size is the whole file's.")


class FileWritten(Model):
    """A file that was written to the workspace."""

    session_id: str
    path: str
    size: int


class Deleted(Model):
    """What was deleted."""

    deleted: str


Count = Annotated[int, Field(ge=0, le=1 << 62)]
SandboxState = Literal["none", "running", "busy"]


class Variable(Model):
    """One name in a session. What is null is not known of such an object: only built-in types, numpy and pandas are."""

    name: str = Field(max_length=300)
    type: str = Field(max_length=200, description="Its class.")
    length: Count | None = Field(description="Elements, characters or rows.")
    shape: list[Count] | None = Field(max_length=64, description="Of an array or a table.")
    size_bytes: Count | None = Field(description="Its own memory, without what it refers to.")
    preview: str = Field(max_length=500, description="One line. Objects of other classes show their class only.")


class VariableList(Model):
    """What a session's code has made, by name."""

    session_id: str
    variables: list[Variable] = Field(max_length=500, description="The first 500; names with _ in front are left out.")
    total: Count
    note: str = Field(default="", description="Why the list is not complete, or that the look cost the variables.")


class CompletionMatch(Model):
    """One way to go on: it takes the place of the characters from cursor_start to cursor_end."""

    text: str = Field(max_length=500)
    type: str = Field(max_length=100, description="function, attribute, magic and so on; empty where not known.")


class CodeCompletions(Model):
    """What could stand at the cursor. Positions count characters."""

    session_id: str
    matches: list[CompletionMatch] = Field(max_length=200, description="The first 200.")
    total: Count
    cursor_start: Count
    cursor_end: Count
    note: str = Field(default="", description="Why there is nothing, or that the look cost the session's variables.")


class ObjectInfo(Model):
    """What a name is: signature, docstring, type and so on, as text."""

    session_id: str
    found: bool
    name: str = Field(max_length=300, description="The name at the cursor, or of the call that it is in.")
    text: str = Field(max_length=100_000)
    note: str = Field(default="", description="Why there is nothing, or that the look cost the session's variables.")


class KernelHealth(Model):
    """A session's sandbox by numbers; null where it has none. Times in seconds."""

    session_id: str
    sandbox: SandboxState
    busy: bool
    pid: int | None = Field(default=None, description="The process that runs the code, as the sandbox counts.")
    memory_bytes: int | None = None
    cpu_seconds: float | None = None
    threads: int | None = None
    processes: int | None = None
    uptime_seconds: float | None = None
    restarts: int | None = Field(default=None, description="How often the process that runs the code was replaced.")
    workspace_used_bytes: int | None = None
    workspace_size_bytes: int | None = None


class Responsiveness(Model):
    """Whether the process that runs a session's code answers within two seconds."""

    session_id: str
    sandbox: SandboxState
    responsive: bool = Field(description="It was asked and answered. False also where it is busy, or there is none.")
    busy: bool
    latency_ms: float | None = Field(default=None, description="The round trip; null without an answer.")
    detail: str = ""


class WorkspaceInfo(Model):
    """How full a session's workspace is."""

    session_id: str
    sandbox: SandboxState
    files: int
    folders: int
    used_bytes: int
    size_bytes: int | None = Field(default=None, description="What fits in all; null where there is no sandbox.")
    truncated: bool = Field(default=False, description="True where there are more files than were counted.")


class Pong(Model):
    """The server is there."""

    name: str
    version: str
    time: datetime
