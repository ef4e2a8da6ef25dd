"""Folds the events of one execution into what its answer needs. Pure: no I/O.

The agent bounds what it sends, but a sandbox runs hostile code: every size is bounded here once more, and every
text is made encodable (no lone surrogates, no NaN) so that nothing that code prints can break an answer.
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

from interpreter_api.services.links import safe_name
from interpreter_sandbox.protocol import (
    DISPLAYED_VALUES,
    ErrorCode,
    ErrorInfo,
    FileEntry,
    Origin,
    Status,
    count_values,
)

if TYPE_CHECKING:
    from interpreter_sandbox.protocol import Event

STREAM_CHARS = 4 << 20
BUNDLE_BYTES = 16 << 20
MAX_DISPLAYS = 200
MAX_CHARTS = 100
CHARTS_BYTES = 64 << 20
MAX_FILES = 10_000
MAX_TYPES = 20
MAX_NOTES = 50
NOTE_CHARS = 500
FURTHER_NOTES = "Further notes were left out."
PATH_CHARS = 4096
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
    lost_before: str = ""
    elapsed_ms: float = 0.0
    files: list[FileEntry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last_seq: int = -1
    _stream_chars: dict[str, int] = field(default_factory=dict)
    _bundle_bytes: int = 0
    _chart_bytes: int = 0
    _values_left: int = DISPLAYED_VALUES
    _left_out: int = 0
    _charts_left_out: int = 0
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
            self.notes.append(clean_text(text)[:NOTE_CHARS] if len(self.notes) < MAX_NOTES - 1 else FURTHER_NOTES)

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
        bundle = self._cleaned(data.get("data"))
        if is_result:
            text = bundle.get("text/plain")
            self.result = text[:RESULT_CHARS] if isinstance(text, str) else ""
            if isinstance(text, str) and len(text) > RESULT_CHARS:
                self.note(f"The result's text was cut: {len(text) - RESULT_CHARS} characters at its end.")
        if isinstance(data.get("chart"), dict):
            bundle = self._chart(data["chart"], bundle)
            if not is_result and set(bundle) <= {"text/plain"}:
                return
        size = sum(len(mime) + rough_size(value) for mime, value in bundle.items())
        if self._bundle_bytes + size > BUNDLE_BYTES or len(self.displays) >= MAX_DISPLAYS:
            self._left_out += 1
            return
        self._bundle_bytes += size
        if is_result:
            self.result_data = bundle
        elif bundle:
            self.displays.append(bundle)

    def _cleaned(self, raw: object) -> dict[str, Any]:
        """The bundle as it may be kept. Of one with too many values in it, its texts only."""
        if not isinstance(raw, dict):
            return {}
        if (values := count_values(raw, self._values_left)) > self._values_left:
            self._left_out += 1
            raw = {mime: value for mime, value in islice(raw.items(), MAX_TYPES) if isinstance(value, str)}
            values = len(raw)
        self._values_left -= values
        return {clean_text(mime): clean(value) for mime, value in raw.items()}

    def _chart(self, chart: dict[str, Any], bundle: dict[str, Any]) -> dict[str, Any]:
        """Keep the picture; answers what else the bundle holds (a plotly figure's JSON, say)."""
        mime_type = clean_text(chart.get("mime_type"))
        name, path = safe_name(clean_text(chart.get("name")) or "chart"), _path(chart.get("path"))
        origin = _ORIGINS.get(str(chart.get("origin")))
        rest = {mime: value for mime, value in bundle.items() if mime not in _IMAGES and mime != mime_type}
        picture = _picture(mime_type, bundle.get(mime_type))
        if picture is None or origin is None:
            self.note(f"The chart {name!r} could not be read and was left out.")
        elif len(self.charts) >= MAX_CHARTS or self._chart_bytes + len(picture) > CHARTS_BYTES:
            self._charts_left_out += 1
        else:
            self._chart_bytes += len(picture)
            self.charts.append(CapturedChart(name, origin, mime_type, path, picture))
        return rest

    def _done(self, data: dict[str, Any]) -> None:
        self.status = _STATUSES.get(str(data.get("status")), "crashed")
        self.state_lost = data.get("state") != "kept"
        self.lost_before = clean_text(data.get("lost_before"))[:NOTE_CHARS]
        self.elapsed_ms = max(_number(data.get("elapsed_ms")), 0.0)
        for stream in ("stdout", "stderr"):
            dropped = int(_number(data.get(f"dropped_{stream}_bytes"))) + self._dropped.get(stream, 0)
            if dropped > 0:
                self.note(f"{stream} was too long: {dropped} bytes in its middle were left out.")
        if self._left_out:
            self.note(f"The answer is full: {self._left_out} displayed objects were left out, or parts of them.")
        if self._charts_left_out:
            self.note(
                f"{self._charts_left_out} charts were left out: one execution stores at most {MAX_CHARTS}, "
                f"of {CHARTS_BYTES >> 20} MiB together."
            )
        for note in _list(data.get("notes")):
            self.note(clean_text(note))
        for entry in _list(data.get("files"))[:MAX_FILES]:
            if isinstance(entry, dict) and not entry.get("is_dir") and (path := _path(entry.get("path"))):
                self.files.append(FileEntry(path, int(_number(entry.get("size"))), _number(entry.get("modified"))))


def _path(value: object) -> str | None:
    """A path inside the workspace, as is; None for anything that is not one, a name of the host's above all."""
    if not isinstance(value, str):
        return None
    text = clean_text(value)
    if not text or len(text) > PATH_CHARS or text.startswith("/") or "\0" in text or ".." in text.split("/"):
        return None
    return text


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
