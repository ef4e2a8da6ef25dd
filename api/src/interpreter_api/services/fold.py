"""Folds the events of one execution into what its answer needs. Pure: no I/O.

The agent bounds what it sends, but a sandbox runs hostile code: every size is bounded here once more, and every
text is made encodable (no lone surrogates, no NaN) so that nothing that code prints can break an answer.
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from interpreter_sandbox.protocol import ErrorCode, ErrorInfo, FileEntry, Origin, Status

if TYPE_CHECKING:
    from interpreter_sandbox.protocol import Event

STREAM_CHARS = 4 << 20
BUNDLE_BYTES = 16 << 20
MAX_DISPLAYS = 200
MAX_CHARTS = 100
CHARTS_BYTES = 64 << 20
MAX_FILES = 10_000
MAX_NOTES = 50
NOTE_CHARS = 500
TRACEBACK_CHARS = 64 << 10
RESULT_CHARS = 1 << 20
_DEPTH = 64

# From what the agent says to what this program knows: anything else is not taken over.
_ORIGINS: dict[str, Origin] = {value: value for value in get_args(Origin)}
_CODES: dict[str, ErrorCode] = {value: value for value in get_args(ErrorCode)}
_STATUSES: dict[str, Status] = {value: value for value in get_args(Status)}
_IMAGES = ("image/png", "image/jpeg", "image/svg+xml")


@dataclass(frozen=True, slots=True)
class CapturedChart:
    """A figure as it came: its bytes, and the workspace path where the code wrote it itself."""

    name: str
    origin: Origin
    mime_type: str
    path: str | None
    data: bytes = field(repr=False)


@dataclass(slots=True)
class Folded:
    """What is known of an execution so far; complete once ``status`` is set."""

    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    result: str | None = None
    result_data: dict[str, Any] = field(default_factory=dict)
    displays: list[dict[str, Any]] = field(default_factory=list)
    charts: list[CapturedChart] = field(default_factory=list)
    error: ErrorInfo | None = None
    status: Status | None = None
    state_lost: bool = False
    elapsed_ms: float = 0.0
    files: list[FileEntry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last_seq: int = -1
    _stream_chars: dict[str, int] = field(default_factory=dict)
    _bundle_bytes: int = 0
    _chart_bytes: int = 0
    _dropped: dict[str, int] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take one event; one that came before (a stream taken up again) is skipped."""
        if event.seq <= self.last_seq or self.status is not None:
            return
        self.last_seq = event.seq
        data = event.data
        match event.event:
            case "stdout":
                self._text("stdout", self.stdout, data)
            case "stderr":
                self._text("stderr", self.stderr, data)
            case "display" | "result":
                self._bundle(data, is_result=event.event == "result")
            case "error":
                self.error = _error(data)
            case "done":
                self._done(data)
            case "started":
                pass

    @property
    def size(self) -> int:
        """About how many characters its events have."""
        return sum(self._stream_chars.values()) + self._bundle_bytes + self._chart_bytes

    def note(self, text: str) -> None:
        """Something the caller should know; bounded in number and length."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(clean_text(text)[:NOTE_CHARS])

    def _text(self, stream: str, parts: list[str], data: dict[str, Any]) -> None:
        text = clean_text(data.get("text"))
        room = STREAM_CHARS - self._stream_chars.get(stream, 0)
        if len(text) > room:
            self._dropped[stream] = self._dropped.get(stream, 0) + len(text) - room
            text = text[:room]
        self._stream_chars[stream] = self._stream_chars.get(stream, 0) + len(text)
        if text:
            parts.append(text)

    def _bundle(self, data: dict[str, Any], *, is_result: bool) -> None:
        raw = data.get("data")
        bundle = {clean_text(mime): clean(value) for mime, value in raw.items()} if isinstance(raw, dict) else {}
        if is_result:
            text = bundle.get("text/plain")
            self.result = text[:RESULT_CHARS] if isinstance(text, str) else ""
        if isinstance(data.get("chart"), dict):
            bundle = self._chart(data["chart"], bundle)
            if not is_result and set(bundle) <= {"text/plain"}:
                return
        size = sum(len(mime) + rough_size(value) for mime, value in bundle.items())
        if self._bundle_bytes + size > BUNDLE_BYTES or len(self.displays) >= MAX_DISPLAYS:
            self.note(f"A displayed object of {size} bytes was left out: the answer is full.")
            return
        self._bundle_bytes += size
        if is_result:
            self.result_data = bundle
        elif bundle:
            self.displays.append(bundle)

    def _chart(self, chart: dict[str, Any], bundle: dict[str, Any]) -> dict[str, Any]:
        """Keep the picture; answers what else the bundle holds (a plotly figure's JSON, say)."""
        mime_type = clean_text(chart.get("mime_type"))
        name, path = clean_text(chart.get("name")) or "chart", chart.get("path")
        origin = _ORIGINS.get(str(chart.get("origin")))
        rest = {mime: value for mime, value in bundle.items() if mime not in _IMAGES and mime != mime_type}
        picture = _picture(mime_type, bundle.get(mime_type))
        if picture is None or origin is None:
            self.note(f"The chart {name!r} could not be read and was left out.")
        elif len(self.charts) >= MAX_CHARTS or self._chart_bytes + len(picture) > CHARTS_BYTES:
            self.note(f"The chart {name!r} was left out: one execution stores at most {MAX_CHARTS} charts.")
        else:
            self._chart_bytes += len(picture)
            self.charts.append(
                CapturedChart(name, origin, mime_type, clean_text(path) if isinstance(path, str) else None, picture)
            )
        return rest

    def _done(self, data: dict[str, Any]) -> None:
        self.status = _STATUSES.get(str(data.get("status")), "crashed")
        self.state_lost = data.get("state") != "kept"
        self.elapsed_ms = max(_number(data.get("elapsed_ms")), 0.0)
        for stream in ("stdout", "stderr"):
            dropped = int(_number(data.get(f"dropped_{stream}_bytes"))) + self._dropped.get(stream, 0)
            if dropped > 0:
                self.note(f"{stream} was too long: {dropped} bytes in its middle were left out.")
        for note in _list(data.get("notes")):
            self.note(clean_text(note))
        for entry in _list(data.get("files"))[:MAX_FILES]:
            if isinstance(entry, dict) and isinstance(entry.get("path"), str) and not entry.get("is_dir"):
                self.files.append(
                    FileEntry(entry["path"], int(_number(entry.get("size"))), _number(entry.get("modified")))
                )


def clean_text(value: object) -> str:
    """Text that UTF-8 can carry: lone surrogates become U+FFFD. Empty for anything that is no text."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean(value: Any, depth: int = 0) -> Any:
    """A JSON value that every encoder takes: see :func:`clean_text`; NaN and infinities become null."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth > _DEPTH:
        return None
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): clean(item, depth + 1) for key, item in value.items()}
    return value


def rough_size(value: Any) -> int:
    """About how many bytes the value takes as JSON."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, list):
        return 2 + sum(rough_size(item) + 1 for item in value)
    if isinstance(value, dict):
        return 2 + sum(len(key) + rough_size(item) + 4 for key, item in value.items())
    return 8


def _picture(mime_type: str, value: Any) -> bytes | None:
    if mime_type not in _IMAGES or not isinstance(value, str) or not value:
        return None
    if mime_type == "image/svg+xml":
        return value.encode()
    try:
        return base64.b64decode(value, validate=False)
    except (binascii.Error, ValueError):
        return None


def _error(data: dict[str, Any]) -> ErrorInfo:
    lines, left = [], TRACEBACK_CHARS
    for line in _list(data.get("traceback")):
        text = clean_text(line)[:left]
        left -= len(text)
        lines.append(text)
        if left <= 0:
            break
    return ErrorInfo(
        code=_CODES.get(str(data.get("code")), "user_error"),
        type=clean_text(data.get("type"))[:200],
        message=clean_text(data.get("message"))[:TRACEBACK_CHARS],
        traceback=lines,
    )


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return 0.0


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
