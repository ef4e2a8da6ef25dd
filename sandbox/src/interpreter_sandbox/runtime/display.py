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

    _failure: BaseException | None = None

    def format(
        self, obj: object, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> Bundle:
        """As in IPython; empty where the object took care of its display itself. Only an interrupt gets out."""
        return self.format_for("display", obj, include, exclude)

    def format_for(
        self, event: str, obj: object, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> Bundle:
        """The same for an object that is going out as ``event``."""
        if type(obj) in _PLAIN:
            return {TEXT: repr(obj)}, {}
        self._failure = None
        try:
            if not include and not exclude and self.figure(obj, event):
                return {}, {}
            data, metadata = super().format(obj, include=include, exclude=exclude)  # type: ignore[no-untyped-call]
            if data and not include and not exclude:
                preview = self._preview(obj)
                if preview is not None:
                    data[DATAFRAME] = preview
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # noqa: BLE001 - the object's own code, SystemExit included
            self._failure, data, metadata = error, {}, {}
        if self._failure is not None:
            text = self._say_failed(obj, self._failure)
            data.setdefault(TEXT, text)
            self._failure = None
        return data, metadata

    def one_failed(self, error: BaseException) -> None:
        """One of the formatters failed; IPython has caught it and goes on with the others."""
        self._failure = self._failure or error

    def _say_failed(self, obj: object, error: BaseException) -> str:
        name, reason = _type_name(obj), f"{type(error).__name__}: {cut(message_of(error), 300)}"
        self.outputs.note(f"A representation of a {name} object failed: {reason}")
        return f"<{name} object; its representation raised {reason}>"

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
        assert self.shell is not None
        formatter = self.shell.display_formatter
        assert isinstance(formatter, SafeFormatter)
        return formatter.format_for("result", result)

    def quiet(self) -> bool:
        """Whether the cell ends in a semicolon. IPython tokenizes every cell for that; most have none at all."""
        assert self.shell is not None
        assert self.shell.history_manager is not None
        cells = self.shell.history_manager.input_hist_parsed
        if not cells or ";" not in cells[-1]:
            return False
        return bool(self.semicolon_at_end_of_expression(cells[-1]))  # type: ignore[no-untyped-call]

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

    def publish(
        self, data: dict[str, Any], metadata: dict[str, Any] | None = None, source: Any = None, **_: Any
    ) -> None:
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
