"""plotly figures: ``fig.show()``, the last expression, ``display(fig)`` and ``write_image``, each captured once.

A chart of plotly is its JSON (``application/vnd.plotly.v1+json``, interactive in the web console) and a PNG for those
who cannot run it. plotly is imported by few cells, so nothing here imports it: a finder on ``sys.meta_path`` puts our
functions into plotly's modules when user code imports them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from interpreter_sandbox.runtime.outputs import PLOTLY, PNG, TEXT, Outputs
from interpreter_sandbox.runtime.renderer import FORMATS, Renderer, RenderError
from interpreter_sandbox.runtime.tracebacks import message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from interpreter_sandbox.protocol import Origin

    Hook = Callable[[ModuleType], None]

DEFAULT_WIDTH: Final = 700
DEFAULT_HEIGHT: Final = 500
MIME_TYPES: Final = {
    "png": PNG,
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
}


class PlotlyCharts:
    """Installs itself in plotly when that is imported; there is one per process."""

    def __init__(self, outputs: Outputs, workspace: Path) -> None:
        """``workspace``: where written images make ``Chart.path``."""
        self._outputs = outputs
        self._workspace = workspace
        self._renderer = Renderer()
        self._captured: set[bytes] = set()
        self._kept: dict[int, object] = {}
        sys.meta_path.insert(
            0, _AfterImport({"plotly.io._renderers": self._patch_show, "plotly.io._kaleido": self._patch_images})
        )

    def displayed(self, obj: object, event: str) -> bool:
        """Capture ``obj`` where it is a plotly figure."""
        base = sys.modules.get("plotly.basedatatypes")
        if base is None or not isinstance(obj, base.BaseFigure):
            return False
        if not self._capture(obj, "display", event=event):
            self._outputs.publish(event, {TEXT: _text(obj)})
        return True

    def end_of_cell(self) -> None:
        """End the renderer and forget the cell's figures."""
        if self._captured:
            self._captured.clear()
            self._kept.clear()
        self._renderer.stop()

    def _patch_show(self, module: ModuleType) -> None:
        def show(fig: Any, renderer: str | None = None, validate: bool = True, **_: Any) -> None:
            """Show a figure: it is captured as a chart, whatever renderer is named."""
            self._capture(_figure(fig, validate), "show")

        module.show = show  # type: ignore[attr-defined]

    def _patch_images(self, module: ModuleType) -> None:
        def to_image(
            fig: Any,
            format: str | None = None,  # noqa: A002 - plotly's name
            width: float | None = None,
            height: float | None = None,
            scale: float | None = None,
            validate: bool = True,
            engine: str | None = None,
        ) -> bytes:
            """The figure as the bytes of an image: png, jpeg, webp, svg, pdf or eps."""
            return self._render(_json(_figure(fig, validate)), _kind(format), width, height, scale)

        def write_image(
            fig: Any,
            file: Any,
            format: str | None = None,  # noqa: A002 - plotly's name
            scale: float | None = None,
            width: float | None = None,
            height: float | None = None,
            validate: bool = True,
            engine: str | None = None,
        ) -> None:
            """Write the figure as an image; the format is that of the file's name unless it is given."""
            target = Path(file) if isinstance(file, str | os.PathLike) else None
            if target is not None and not format and not target.suffix:
                raise ValueError(f"write_image: {str(target)!r} has no extension; give one, or format='png'")
            kind = _kind(format or (target.suffix.lstrip(".") if target else None))
            figure = _figure(fig, validate)
            image = self._render(_json(figure), kind, width, height, scale)
            if target is not None:
                target.write_bytes(image)
            else:
                file.write(image)
            self._capture(figure, "savefig", kind=kind, image=image, target=target)

        def write_images(fig: Any, file: Any, **options: Any) -> None:
            """Write several figures as images."""
            figures = list(fig) if isinstance(fig, list | tuple) else [fig]
            files = list(file) if isinstance(file, list | tuple) else [file]
            figures = figures * len(files) if len(figures) == 1 else figures
            for index, (one, target) in enumerate(zip(figures, files, strict=True)):
                own = {
                    key: value[index] if isinstance(value, list | tuple) else value for key, value in options.items()
                }
                write_image(one, target, **own)

        module.to_image, module.write_image, module.write_images = to_image, write_image, write_images  # type: ignore[attr-defined]

    def _render(
        self, text: str, kind: str, width: float | None = None, height: float | None = None, scale: float | None = None
    ) -> bytes:
        if width is None or height is None:
            layout = json.loads(text).get("layout", {})
            template = layout.get("template", {}).get("layout", {})
            width = width or layout.get("width") or template.get("width") or DEFAULT_WIDTH
            height = height or layout.get("height") or template.get("height") or DEFAULT_HEIGHT
        return self._renderer.render(text, kind=kind, width=width, height=height, scale=scale or 1)

    def _capture(
        self,
        figure: Any,
        origin: Origin,
        *,
        event: str = "display",
        kind: str = "png",
        image: bytes | None = None,
        target: Path | None = None,
    ) -> bool:
        """Emit ``figure`` unless this very state of it is out already; says whether it emitted."""
        text = _json(figure)
        key = hashlib.blake2b(f"{id(figure)} {text}".encode(), digest_size=16).digest()
        if key in self._captured:
            return False
        self._captured.add(key)
        self._kept[id(figure)] = figure  # an id is unique for as long as its object lives
        if kind not in MIME_TYPES or not self._outputs.may_add_chart():
            return False
        data: dict[str, object] = {TEXT: _text(figure), PLOTLY: json.loads(text)}
        mime_type = MIME_TYPES[kind]
        if image is not None:
            data[mime_type] = image.decode("utf-8", "replace") if kind == "svg" else image
        if PNG not in data and kind in {"png", "svg", "pdf"}:
            try:
                data[PNG] = self._render(text, "png")
            except RenderError as error:
                note = f"A plotly figure has no image, only its JSON: {message_of(error)}"
                self._outputs.note(note)
                data[TEXT] = f"{data[TEXT]}\n[{note}]"
                mime_type = PLOTLY
        path = self._relative(target)
        name = target.name if target is not None and path is not None else None
        self._outputs.chart(data, mime_type, origin, event=event, name=name, path=path)
        return True

    def _relative(self, target: Path | None) -> str | None:
        if target is None:
            return None
        real = Path(os.path.realpath(target))
        return real.relative_to(self._workspace).as_posix() if real.is_relative_to(self._workspace) else None


class _AfterImport:
    """A finder that finds nothing of its own: it runs a hook after the named modules have been executed."""

    def __init__(self, hooks: dict[str, Hook]) -> None:
        self._hooks = hooks

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual spec with a loader that calls the hook; nothing for all other modules."""
        hook = self._hooks.get(name)
        if hook is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            _call_after(spec.loader, hook)
        return spec


def _call_after(loader: Loader, hook: Hook) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        hook(module)

    loader.exec_module = exec_module  # type: ignore[method-assign]


def _kind(name: str | None) -> str:
    kind = (name or "png").lower()
    kind = "jpeg" if kind == "jpg" else kind
    if kind not in FORMATS:
        raise ValueError(f"plotly images are {', '.join(FORMATS)}; not {name!r}")
    return kind


def _figure(fig: Any, validate: bool) -> Any:
    """The figure itself, or one made of a dict, as plotly's own functions take either."""
    if isinstance(fig, dict):
        return importlib.import_module("plotly.graph_objects").Figure(fig, skip_invalid=not validate)
    return fig


def _json(figure: Any) -> str:
    return str(figure.to_json(validate=False, remove_uids=False))


def _text(figure: Any) -> str:
    kinds = ", ".join(trace.type for trace in figure.data[:10]) or "no traces"
    title = figure.layout.title.text
    return f"plotly figure ({kinds})" + (f": {title}" if title else "")
