"""matplotlib figures: each captured exactly once, by ``plt.show()``, ``savefig``, display, or left open at the end.

How "once" is decided. A captured figure is remembered for the rest of its cell, with a mark that is set when anything
in it changes (matplotlib's own ``stale`` propagation; drawing alone does not count). Shown, saved or found open again:
without the mark it is the same figure, at no cost. With the mark it is drawn again the way it was captured, and only
other pixels make it another chart.

``plt.show()`` closes what it showed, as a window or a notebook does: the next ``plt.plot`` starts a new figure. A
figure that the code still holds, changes and shows again is a new chart.

seaborn and pandas draw with matplotlib and need nothing of their own.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.figure import Figure

from interpreter_sandbox.runtime.outputs import PNG, TEXT, Outputs
from interpreter_sandbox.runtime.tracebacks import message_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from interpreter_sandbox.protocol import Origin

FORMATS: Final = {
    "png": PNG,
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "webp": "image/webp",
}
"""What ``savefig`` can write that is a chart; others (``raw`` frames of an animation, PostScript) are only files."""

_VIEWABLE: Final = frozenset({PNG, "image/jpeg", "image/webp"})
_DEFAULT: Final = {"format": "png", "bbox_inches": "tight"}


@dataclass(slots=True)
class _Captured:
    """A figure as it was captured in this cell."""

    figure: Figure
    options: dict[str, Any]
    digest: bytes
    changed: bool = field(default=False)


class MatplotlibCharts:
    """Installs itself in matplotlib; there is one per process."""

    def __init__(self, outputs: Outputs, workspace: Path) -> None:
        """``workspace``: where saved files make ``Chart.path``."""
        self._outputs = outputs
        self._workspace = workspace
        self._captured: dict[int, _Captured] = {}
        self._savefig = Figure.savefig
        self._last_shown: Figure | None = None
        mpl.use("agg")
        self._install()

    def displayed(self, obj: object, event: str) -> bool:
        """Capture ``obj`` where it is a figure, for ``display(fig)`` or as a cell's last expression."""
        if not isinstance(obj, Figure):
            return False
        if not self._capture(obj, "display", event=event):
            self._outputs.publish(event, {TEXT: repr(obj)})
        return True

    def end_of_cell(self, *, draw: bool) -> None:
        """Capture what is open, where ``draw``; close everything and forget the cell's figures."""
        if not plt.get_fignums() and not self._captured:
            return
        try:
            for number in plt.get_fignums() if draw else ():
                figure = plt.figure(number)
                try:
                    self._capture(figure, "open")
                except Exception as error:  # noqa: BLE001 - artists are user code, and draw only now
                    text = (
                        f"A figure that was left open could not be drawn: {type(error).__name__}: {message_of(error)}"
                    )
                    self._outputs.note(text)
                    self._outputs.publish("display", {TEXT: text})
        finally:
            self._captured.clear()
            self._last_shown = None
            plt.close("all")

    def _install(self) -> None:
        charts = self
        savefig, draw, pyplot_savefig = Figure.savefig, Figure.draw, plt.savefig

        @functools.wraps(savefig)
        def save(figure: Figure, fname: Any, *args: Any, **kwargs: Any) -> None:
            savefig(figure, fname, *args, **kwargs)
            charts._saved(figure, fname, kwargs)

        @functools.wraps(draw)
        def draw_unmarked(figure: Figure, renderer: Any) -> None:
            captured = charts._captured.get(id(figure))
            before = captured is not None and captured.changed
            draw(figure, renderer)
            if captured is not None:
                captured.changed = before  # layout and ticks settle while drawing: no change of the user's

        @functools.wraps(plt.show)
        def show(*_: Any, **__: Any) -> None:
            charts._show()

        @functools.wraps(pyplot_savefig)
        def save_current(fname: Any, *args: Any, **kwargs: Any) -> None:
            # after plt.show() there is no current figure; an empty new one is never what was meant
            if not plt.get_fignums() and charts._last_shown is not None:
                charts._last_shown.savefig(fname, *args, **kwargs)
            else:
                pyplot_savefig(fname, *args, **kwargs)

        def manager_show(manager: FigureManagerBase) -> None:
            charts._capture(manager.canvas.figure, "show")

        Figure.savefig = save  # type: ignore[method-assign, assignment]
        Figure.draw = draw_unmarked  # type: ignore[method-assign, assignment]
        FigureManagerBase.show = manager_show  # type: ignore[method-assign, assignment]
        plt.show = show
        plt.savefig = save_current

    def _show(self) -> None:
        figures = [plt.figure(number) for number in plt.get_fignums()]
        again = [one.figure for one in self._captured.values() if one.changed and one.figure not in figures]
        for figure in [*figures, *again]:
            self._capture(figure, "show")
            self._last_shown = figure
        plt.close("all")

    def _saved(self, figure: Figure, fname: Any, options: dict[str, Any]) -> None:
        target = Path(fname) if isinstance(fname, str | os.PathLike) else None
        suffix = target.suffix.lstrip(".") if target is not None else ""
        kind = str(options.get("format") or suffix or mpl.rcParams["savefig.format"]).lower()
        if kind not in FORMATS:
            return
        if target is not None and not suffix and not options.get("format"):
            target = target.with_name(f"{target.name.rstrip('.')}.{kind}")
        png_options = {key: value for key, value in options.items() if key not in {"format", "metadata", "pil_kwargs"}}
        self._capture(
            figure, "savefig", options=png_options | {"format": "png"}, mime_type=FORMATS[kind], target=target
        )

    def _capture(
        self,
        figure: Figure,
        origin: Origin,
        *,
        event: str = "display",
        options: dict[str, Any] | None = None,
        mime_type: str = PNG,
        target: Path | None = None,
    ) -> bool:
        """Emit ``figure`` unless it is out already; says whether it emitted."""
        if self._unchanged(figure) or not self._outputs.may_add_chart():
            return False
        data: dict[str, object] = {TEXT: repr(figure)}
        saved = self._bytes(target)
        if mime_type == PNG and saved is not None:
            png, options = saved, options or dict(_DEFAULT)
        else:
            png, options = self._draw(figure, options)
        self._remember(figure, options, png)
        if saved is not None and mime_type != PNG:
            data[mime_type] = saved.decode("utf-8", "replace") if mime_type == FORMATS["svg"] else saved
        else:
            mime_type = PNG
        if mime_type not in _VIEWABLE or mime_type == PNG:
            data[PNG] = png
        path = self._relative(target)
        name = target.name if target is not None and path is not None else None
        self._outputs.chart(data, mime_type, origin, event=event, name=name, path=path)
        return True

    def _draw(self, figure: Figure, options: dict[str, Any] | None) -> tuple[bytes, dict[str, Any]]:
        """A PNG small enough for a display, and how it was made."""
        png = self._png(figure, options or _DEFAULT)
        if options and len(png) * 4 // 3 > self._outputs.display_limit_bytes:
            options = None  # saved for print, at 600 dpi: shown at the screen's resolution
            png = self._png(figure, _DEFAULT)
        return png, dict(options or _DEFAULT)

    def _png(self, figure: Figure, options: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        self._savefig(figure, buffer, **options)
        return buffer.getvalue()

    def _bytes(self, target: Path | None) -> bytes | None:
        """What the code saved, where it can be shown."""
        if target is None:
            return None
        try:
            if target.stat().st_size * 4 // 3 + 4096 > self._outputs.display_limit_bytes:
                return None
            return target.read_bytes()
        except OSError:
            return None

    def _relative(self, target: Path | None) -> str | None:
        if target is None:
            return None
        real = Path(os.path.realpath(target))
        return real.relative_to(self._workspace).as_posix() if real.is_relative_to(self._workspace) else None

    def _remember(self, figure: Figure, options: dict[str, Any], png: bytes) -> None:
        known = self._captured.get(id(figure))
        if known is not None:
            known.options, known.digest, known.changed = options, _digest(png), False
            return
        captured = self._captured[id(figure)] = _Captured(figure, options, _digest(png))
        figure.stale_callback = _marking(captured, figure.stale_callback)

    def _unchanged(self, figure: Figure) -> bool:
        captured = self._captured.get(id(figure))
        if captured is None:
            return False
        if captured.changed and _digest(self._png(figure, captured.options)) != captured.digest:
            return False
        captured.changed = False
        return True


def _marking(captured: _Captured, before: Callable[[Any, bool], None] | None) -> Callable[[Any, bool], None]:
    """A ``stale_callback`` that sets the mark and then does what the figure's own did."""

    def changed(artist: Any, value: bool) -> None:
        captured.changed = captured.changed or bool(value)
        if before is not None:
            before(artist, value)

    return changed


def _digest(png: bytes) -> bytes:
    return hashlib.blake2b(png, digest_size=16).digest()
