"""The agent protocol, version 1: what travels between the api and a sandbox's agent.

HTTP/1.1 on a Unix socket (local backend) or the pod's port (Kubernetes). Every request but ``GET /health``
carries ``Authorization: Bearer <JWT>``: EdDSA (Ed25519), ``aud`` = :data:`AUDIENCE`, ``sub`` = the sandbox's
uid, ``exp`` at most :data:`TOKEN_LIFETIME_SECONDS` ahead. The sandbox holds the public key only.

======================================  =============================================================
``GET /health``                         :class:`Health`; no token; says nothing but readiness
``GET /stats``                          :class:`Stats`
``POST /executions``                    :class:`ExecuteRequest` → NDJSON stream of :class:`Event`
``GET /executions/{id}/events?after=N`` NDJSON: the kept events with ``seq`` > N, then the live ones
``DELETE /executions/{id}``             acknowledge: the agent may forget that execution's events
``POST /executions/{id}/interrupt``     SIGINT to the worker; 404 where nothing with that id runs
``GET /files?path=&recursive=``         :class:`FileEntry` list of the workspace
``GET /files/content?path=``            the bytes, streamed
``PUT /files/content?path=``            the bytes, streamed; parents are made
``DELETE /files?path=``                 removes a file, or a folder with all in it
``POST /introspect``                    :class:`IntrospectRequest` → :class:`Introspected`
``POST /restart``                       a fresh worker with an empty namespace; files stay
======================================  =============================================================

A refusal is ``{"error": {"code", "message"}}`` with a status of 4xx or 5xx; codes are :data:`AGENT_ERRORS`.

One execution or introspection at a time: a second ``POST /executions`` while one runs answers 409 ``busy``. A repeated
``execution_id`` never runs again: it answers the stored events of the first run from the start.

Only the standard library is imported here: the api and the runtime share this module.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOL_VERSION: Final = 1
AUDIENCE: Final = "interpreter-sandbox"
TOKEN_LIFETIME_SECONDS: Final = 300
WORKSPACE: Final = "/workspace"
"""The session's own folder inside every sandbox; every ``path`` is relative to it."""
DISPLAYED_VALUES: Final = 100_000
"""JSON values (objects, lists, numbers, texts) in all displays of one execution. Each costs the api, which everybody
shares, a thousand times what its two bytes cost the code that made it."""

AGENT_ERRORS: Final = {
    "unauthorized": 401,
    "not_found": 404,
    "busy": 409,
    "invalid_argument": 400,
    "path_refused": 400,
    "not_a_file": 400,
    "too_large": 413,
    "no_space": 507,
    "worker_unavailable": 503,
}
"""Every refusal code of the agent and its HTTP status."""

EventName = Literal["started", "stdout", "stderr", "display", "result", "error", "done"]
ErrorCode = Literal["user_error", "syntax_error", "interrupted", "timeout", "memory_limit", "crashed", "cancelled"]
Status = Literal["ok", "error", "timeout", "interrupted", "memory_limit", "crashed"]
IntrospectKind = Literal["variables", "complete", "inspect", "nothing"]
Origin = Literal["show", "savefig", "open", "display"]
_EVENT_NAMES: Final[dict[str, EventName]] = {name: name for name in get_args(EventName)}


_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


def script_cell(path: str, args: Sequence[str]) -> str:
    """The cell that runs a script of the workspace as ``python path args...``; it leaves no name in the namespace."""
    call = f"run({path!r}, {list(args)!r})"
    return f"__import__('interpreter_sandbox.runtime.scripts', fromlist=['run']).{call}"


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """One cell of code to run.

    ``timeout_seconds``: SIGINT at the limit (state kept), SIGKILL ``grace_seconds`` later (state lost).
    ``output_limit_bytes``: per stream; the head and the tail are kept, the bytes between are counted.
    ``display_limit_bytes``: for one MIME bundle, after base64; a larger one is replaced by a note.
    """

    execution_id: str
    code: str
    timeout_seconds: float
    grace_seconds: float = 2.0
    output_limit_bytes: int = 1 << 20
    display_limit_bytes: int = 8 << 20
    max_charts: int = 20


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the NDJSON stream. ``seq`` counts from 0 without a gap within an execution.

    Data by event:

    - ``started``: ``{"execution_count": int}``
    - ``stdout``, ``stderr``: ``{"text": str}``
    - ``display``: ``{"data": {mime: value}, "metadata": {...}, "chart": Chart | None}``; PNG and other bytes as base64
    - ``result``: the same shape as ``display``, for the value of the last expression
    - ``error``: :class:`ErrorInfo`
    - ``done``: :class:`Done`; always last, exactly once
    """

    seq: int
    event: EventName
    data: dict[str, Any]

    def encode(self) -> bytes:
        """One NDJSON line with its newline."""
        line = _encode({"seq": self.seq, "event": self.event, "data": self.data})
        return line.encode("utf-8", "surrogatepass" if line.isascii() else "replace") + b"\n"

    @classmethod
    def decode(cls, line: bytes | str) -> Event:
        """The event of one line; ``ValueError`` where it is not one, whatever it is."""
        try:
            raw = json.loads(line)
        except RecursionError:
            raise ValueError("an event is not nested that deep") from None
        if not isinstance(raw, dict):
            raise ValueError("an event is an object")  # noqa: TRY004
        match raw:
            case {"seq": int(seq), "event": str(name), "data": dict(data)} if name in _EVENT_NAMES:
                return cls(seq=seq, event=_EVENT_NAMES[name], data=data)
        raise ValueError("an event is an object with seq, a known event and data")


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why an execution did not succeed: ``type`` is the exception's class name, ``traceback`` its plain lines."""

    code: ErrorCode
    type: str
    message: str
    traceback: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Chart:
    """A captured figure. ``path`` is set where the code itself wrote it to the workspace (savefig, write_image)."""

    name: str
    origin: Origin
    mime_type: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file or folder of the workspace; ``path`` is relative to it and uses ``/``. ``size`` in bytes."""

    path: str
    size: int
    modified: float
    is_dir: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an execution.

    ``state``: ``kept`` where the namespace is the one after this cell, ``lost`` where a fresh worker took over.
    ``lost_before``: why the namespace was already empty when this cell began, where code that an earlier cell left
    behind ended the worker in between; empty where it was not.
    ``files``: what the code wrote or changed in the workspace. ``dropped_stdout_bytes``: cut from the middle.
    """

    status: Status
    elapsed_ms: float
    execution_count: int
    state: Literal["kept", "lost"] = "kept"
    lost_before: str = ""
    files: list[FileEntry] = field(default_factory=list)
    dropped_stdout_bytes: int = 0
    dropped_stderr_bytes: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Health:
    """``status``: ``starting`` until the zygote has its imports, then ``ready``; ``failed`` for good."""

    status: Literal["starting", "ready", "failed"]
    protocol: int = PROTOCOL_VERSION
    detail: str = ""


@dataclass(frozen=True, slots=True)
class IntrospectRequest:
    """A look into the namespace that runs no cell: execution count, ``_`` and history stay as they are.

    ``complete`` and ``inspect`` are about ``code`` at ``cursor_pos`` (characters); ``nothing`` is a round trip through
    the worker. Objects' own code may be asked: SIGINT after ``timeout_seconds``, SIGKILL a little later. Only
    ``nothing`` is answered at the timeout, and its worker has some seconds more to show that it lives.
    """

    kind: IntrospectKind
    code: str = ""
    cursor_pos: int = 0
    detail_level: int = 0
    timeout_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Introspected:
    """What was found; ``message`` says why not, where ``status`` is not ``ok``. ``state`` is as in :class:`Done`.

    ``data`` by kind, empty where nothing was found out:

    - ``variables``: ``{"variables": [{"name", "type", "length", "shape", "size_bytes", "preview"}], "total": int}``
    - ``complete``: ``{"matches": [{"text", "type"}], "total": int, "cursor_start": int, "cursor_end": int}``
    - ``inspect``: ``{"found": bool, "name": str, "text": str}``
    """

    status: Literal["ok", "failed", "timeout", "crashed"]
    elapsed_ms: float
    state: Literal["kept", "lost"] = "kept"
    message: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stats:
    """The sandbox by numbers: memory in bytes (proportional set size), times in seconds."""

    worker_pid: int | None
    busy: bool
    memory_bytes: int
    cpu_seconds: float
    threads: int
    processes: int
    uptime_seconds: float
    workspace_used_bytes: int
    workspace_size_bytes: int
    restarts: int


def count_values(value: object, limit: int) -> int:
    """How many JSON values there are in it, itself included; any number over ``limit`` where there are more."""
    count, waiting = 1, [value]
    while waiting and count <= limit:
        inner = waiting.pop()
        if isinstance(inner, (dict, list)):
            count += len(inner)
            waiting += inner.values() if isinstance(inner, dict) else inner
    return count


def to_json(message: Any) -> bytes:
    """Any of this module's dataclasses as JSON."""
    return json.dumps(asdict(message), ensure_ascii=False).encode("utf-8", "replace")
