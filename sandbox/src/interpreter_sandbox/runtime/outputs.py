"""What one cell puts out besides text: displays, results and charts, within the limits of its execution.

Nothing is dropped silently. What is too large or one too many is replaced by a sentence in the same event, and the
sentence is a note of the execution too.
"""

from __future__ import annotations

import base64
import json
import math
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from interpreter_sandbox.protocol import Chart
from interpreter_sandbox.runtime.tracebacks import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from interpreter_sandbox.protocol import Origin

    Emit = Callable[[str, dict[str, object]], None]

TEXT_LIMIT_CHARS: Final = 100_000
"""Of one text/plain; a longer one keeps its head and its tail."""

_ENVELOPE_BYTES: Final = 8 << 10
"""Room within a display's limit for what is not its representations: names, metadata, the chart's description."""

MAX_NOTES: Final = 50
MAX_NESTING: Final = 60

TEXT: Final = "text/plain"
PNG: Final = "image/png"
PLOTLY: Final = "application/vnd.plotly.v1+json"

# Bound once: later cells keep their framing when user code replaces functions of these modules.
_dumps = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
_b64encode = base64.b64encode


class Outputs:
    """The events of the running cell. ``emit`` is set by the worker; it may be called from any thread."""

    def __init__(self, emit: Emit) -> None:
        """``emit(name, data)`` sends one event."""
        self.emit = emit
        self._lock = threading.RLock()
        self.begin(cell=0, display_limit_bytes=8 << 20, max_charts=20)

    def begin(self, *, cell: int, display_limit_bytes: int, max_charts: int) -> None:
        """Start a cell with the limits of its request."""
        self.notes: list[str] = []
        self._cell = cell
        self._limit = display_limit_bytes
        self._max_charts = max_charts
        self._charts = 0
        self._refused_charts = 0

    @property
    def display_limit_bytes(self) -> int:
        """Of one bundle of this cell, after base64."""
        return self._limit

    def note(self, text: str) -> None:
        """Remember one sentence for the execution's notes."""
        with self._lock:
            if len(self.notes) < MAX_NOTES and text not in self.notes:
                self.notes.append(text)

    def publish(
        self, event: str, data: Mapping[str, object], metadata: object = None, chart: Chart | None = None
    ) -> None:
        """Emit one bundle; the largest representations give way until the rest is within the limit."""
        with self._lock:
            bundle = self._within_limit({str(mime): as_json(value) for mime, value in data.items()})
            if chart is not None and chart.mime_type not in bundle:
                chart = None
            plain = as_json(metadata) if metadata else {}
            if not isinstance(plain, dict) or _size(plain) > _ENVELOPE_BYTES // 2:
                plain = {}
            self.emit(event, {"data": bundle, "metadata": plain, "chart": asdict(chart) if chart else None})

    def may_add_chart(self) -> bool:
        """Whether one more chart is within ``max_charts``; where not, it is counted as left out."""
        with self._lock:
            if self._charts < self._max_charts:
                return True
            self._refused_charts += 1
            return False

    def chart(
        self,
        data: Mapping[str, object],
        mime_type: str,
        origin: Origin,
        *,
        event: str = "display",
        name: str | None = None,
        path: str | None = None,
    ) -> None:
        """Emit a captured figure; ask :meth:`may_add_chart` before the work of drawing it."""
        with self._lock:
            self._charts += 1
            suffix = EXTENSIONS.get(mime_type, "bin")
            name = name or f"chart_{self._cell}_{self._charts}.{suffix}"
            self.publish(event, data, chart=Chart(name=name, origin=origin, mime_type=mime_type, path=path))

    def end(self) -> None:
        """Say what was left out."""
        if self._refused_charts:
            text = (
                f"{self._refused_charts} more chart(s) were not captured: "
                f"one execution may show {self._max_charts} (max_charts)."
            )
            self.note(text)
            self.publish("display", {TEXT: text})

    def _within_limit(self, bundle: dict[str, object]) -> dict[str, object]:
        text = bundle.get(TEXT)
        if isinstance(text, str) and len(text) > TEXT_LIMIT_CHARS:
            bundle[TEXT] = cut(text, TEXT_LIMIT_CHARS)
            self.note(f"A text of {len(text):,} characters was shortened to {TEXT_LIMIT_CHARS:,}.")
        sizes = {mime: _size(value) for mime, value in bundle.items()}
        room = max(self._limit - _ENVELOPE_BYTES, 0)
        while sum(sizes.values()) > room:
            mime = max(sizes, key=sizes.__getitem__)
            note = f"{mime} of {sizes.pop(mime):,} bytes left out: a display may have {self._limit:,} bytes."
            del bundle[mime]
            self.note(note)
            before = bundle.get(TEXT)
            text = f"{before}\n[{note}]" if before else f"[{note}]"
            bundle[TEXT] = text
            if mime == TEXT:
                bundle[TEXT] = f"[{note}]"
                break
            sizes[TEXT] = _size(text)
        return bundle


EXTENSIONS: Final = {
    PNG: "png",
    "image/jpeg": "jpg",
    "image/svg+xml": "svg",
    "image/webp": "webp",
    "application/pdf": "pdf",
    PLOTLY: "json",
}
"""File name extensions of a chart's MIME types."""


def as_json(value: object, depth: int = 0) -> Any:
    """``value`` as plain JSON types: bytes as base64, NaN and infinities as null, what JSON does not know as text."""
    if value is None or value is True or value is False or type(value) is str or type(value) is int:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return _b64encode(value).decode("ascii")
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return str.__str__(value)
    if depth > MAX_NESTING:
        return "[nested too deeply]"
    if isinstance(value, dict):
        return {str(key): as_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item, depth + 1) for item in value]
    if isinstance(value, int):
        return int(value)
    return str(value)


def _size(value: object) -> int:
    """Bytes of ``value`` on the wire, at most: it is sent as UTF-8, which is never longer than ASCII JSON."""
    return len(_dumps(value))
