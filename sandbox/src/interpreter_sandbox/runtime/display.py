"""From a Python object to a MIME bundle: IPython's formatters, made safe against the objects they ask.

An object's ``__repr__`` is user code. It may raise, recurse, exit or give 50 MB; whatever it does, the cell's own
outcome stays what the cell's code made it, and the bundle has a text/plain.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, Final

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.formatters import DisplayFormatter

from interpreter_sandbox.runtime.outputs import PNG, TEXT, as_json
from interpreter_sandbox.runtime.tracebacks import cut, message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from interpreter_sandbox.runtime.outputs import Outputs

DATAFRAME: Final = "application/vnd.interpreter.dataframe+json"
"""``{"columns": [{"name", "dtype", "index"?}], "rows": [[...]], "total_rows", "total_columns"}``; named or
non-trivial index levels come first, marked ``"index": true``."""

PREVIEW_ROWS: Final = 20
PREVIEW_COLUMNS: Final = 100
PREVIEW_CELL_CHARS: Final = 500

IMAGE_TYPES: Final = (PNG, "image/jpeg", "image/svg+xml")

Bundle = tuple[dict[str, Any], dict[str, Any]]


class SafeFormatter(DisplayFormatter):
    """IPython's ``format``, for objects that may be hostile. ``outputs`` and ``figure`` are set by the shell."""

    outputs: Outputs
    figure: Callable[[object, str], bool]
    """Asked first: captures a figure and emits its event; says whether it did."""

    def format(
        self, obj: object, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> Bundle:
        """As in IPython; empty where the object took care of its display itself. Only an interrupt gets out."""
        try:
            if not include and not exclude and self.figure(obj, "display"):
                return {}, {}
            return self.bundle(obj, include, exclude)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # noqa: BLE001 - the object's own code, SystemExit included
            return {TEXT: self.failed(obj, error)}, {}

    def bundle(
        self, obj: object, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> Bundle:
        """The bundle of an object that is not a figure."""
        if type(obj) in _PLAIN:
            return {TEXT: repr(obj)}, {}
        data, metadata = super().format(obj, include=include, exclude=exclude)
        if data:
            preview = self._preview(obj)
            if preview is not None:
                data[DATAFRAME] = preview
            if TEXT not in data and not include and not exclude:
                data[TEXT] = f"<{_type_name(obj)} object>"
        return data, metadata

    def failed(self, obj: object, error: BaseException) -> str:
        """The text for an object whose own representation failed, and a note."""
        note = f"The representation of a {_type_name(obj)} object failed: {type(error).__name__}: {message_of(error)}"
        self.outputs.note(cut(note, 500))
        return f"<{_type_name(obj)} object; its representation raised {type(error).__name__}: {message_of(error)}>"

    def _preview(self, obj: object) -> dict[str, Any] | None:
        pandas = sys.modules.get("pandas")
        if pandas is None:
            return None
        if isinstance(obj, pandas.DataFrame):
            frame = obj
        elif isinstance(obj, pandas.Series):
            frame = obj.to_frame("value" if obj.name is None else obj.name)
        else:
            return None
        try:
            return dataframe_preview(frame)
        except Exception:  # noqa: BLE001 - extension types and subclasses are user code; the text is there anyway
            return None


class ResultHook(DisplayHook):
    """``sys.displayhook``: the last expression's value becomes the ``result`` event, ``_`` and ``_N``."""

    outputs: Outputs

    def compute_format_data(self, result: object) -> Bundle:
        """The value's bundle; empty where it is a figure, whose event is out by then."""
        formatter = self.shell.display_formatter
        assert isinstance(formatter, SafeFormatter)
        if _guarded(formatter.figure, result, "result"):
            return {}, {}
        return formatter.format(result)

    def write_output_prompt(self) -> None:
        """No ``Out[3]:`` on stdout."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Emit the event."""
        publish(self.outputs, "result", format_dict, md_dict)

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """IPython keeps every bundle in memory here, for notebooks."""

    def finish_displayhook(self) -> None:
        """Nothing to flush."""
        self._is_active = False


class Publisher(DisplayPublisher):
    """``display(...)`` and all that publishes through IPython."""

    outputs: Outputs

    def publish(self, data: dict[str, Any], metadata: dict[str, Any] | None = None, **_: Any) -> None:
        """Emit a display event."""
        publish(self.outputs, "display", data, metadata)

    def clear_output(self, wait: bool = False) -> None:
        """Events that are out cannot be taken back."""


def publish(outputs: Outputs, event: str, data: dict[str, Any], metadata: object = None) -> None:
    """Emit a bundle; one with an image counts as a chart, so that it is stored and shown like one."""
    mime_type = next((mime for mime in IMAGE_TYPES if mime in data), None)
    if mime_type is None:
        outputs.publish(event, data, metadata)
    elif outputs.may_add_chart():
        outputs.chart(data, mime_type, "display", event=event)
    else:
        outputs.publish(event, {TEXT: data.get(TEXT, "<image>")})


def dataframe_preview(frame: Any) -> dict[str, Any]:
    """The first rows of a pandas DataFrame with the types of its columns."""
    total_rows, total_columns = (int(count) for count in frame.shape)
    head = frame.iloc[:PREVIEW_ROWS, :PREVIEW_COLUMNS]
    columns: list[dict[str, Any]] = []
    values: list[list[Any]] = []
    index = head.index
    if index.nlevels > 1 or index.name is not None or type(index).__name__ != "RangeIndex":
        for level in range(index.nlevels):
            level_values = index.get_level_values(level)
            name = _label(level_values.name) if level_values.name is not None else f"index_{level}"
            columns.append({"name": name, "dtype": str(level_values.dtype), "index": True})
            values.append([_cell(value) for value in level_values])
    for position in range(head.shape[1]):
        series = head.iloc[:, position]
        columns.append({"name": _label(head.columns[position]), "dtype": str(series.dtype)})
        values.append([_cell(value) for value in series])
    return {
        "columns": columns,
        "rows": [list(row) for row in zip(*values, strict=True)],
        "total_rows": total_rows,
        "total_columns": total_columns,
    }


def _label(name: object) -> str:
    text = " / ".join(map(str, name)) if isinstance(name, tuple) else str(name)
    return cut(text, 200)


def _cell(value: Any) -> Any:
    """One value as JSON: numbers, booleans and text as they are, moments as ISO 8601, what is missing as null."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is sys.modules["pandas"].NaT or value is sys.modules["pandas"].NA:
        return None
    if isinstance(value, str):
        return cut(value, PREVIEW_CELL_CHARS)
    isoformat = getattr(value, "isoformat", None)
    text = isoformat() if isoformat is not None else str(as_json(value))
    return cut(str(text), PREVIEW_CELL_CHARS)


_PLAIN: Final = frozenset({bool, int, float, complex, type(None)})
"""Types whose text needs no formatter: asking all ten of them costs more than running ``1 + 1`` does."""


def _type_name(obj: object) -> str:
    return cut(str(type.__getattribute__(type(obj), "__name__")), 100)


def _guarded(function: Callable[[object, str], bool], obj: object, event: str) -> bool:
    """A figure of user code that fails to draw is no reason for the cell to fail: its text is shown instead."""
    try:
        return function(obj, event)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException:  # noqa: BLE001 - see above
        return False
