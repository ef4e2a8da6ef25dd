"""plotly figures as images, without a browser to download: the renderer in kaleido's own wheel, driven over pipes.

kaleido 0.2.1 is the last release that ships its renderer (later ones look for an installed Chrome). We start its
program ourselves with plotly's own ``plotly.min.js``: its Python side would start it through a shell script that breaks
on paths with spaces, waits without a limit and leaves it running. It needs no network, no user namespace, no
/dev/shm, and is content with 256 MB of RLIMIT_DATA. It is started when a cell first needs it (about 1 s) and ended
with that cell: its 6 processes with 41 threads weigh 180 MB, more than the whole rest of a sandbox.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

TIMEOUT_SECONDS: Final = 60.0
MAX_IMAGE_BYTES: Final = 64 << 20
_TEXT_FORMATS: Final = frozenset({"svg", "eps", "json"})
FORMATS: Final = ("png", "jpeg", "webp", "svg", "pdf", "eps")


class RenderError(RuntimeError):
    """The renderer did not make an image; the message says why."""


class Renderer:
    """One renderer process, started on demand. Not thread-safe."""

    def __init__(self) -> None:
        """Starts nothing."""
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()

    def render(self, figure_json: str, *, kind: str, width: float, height: float, scale: float) -> bytes:
        """The image of a plotly figure. ``kind``: one of :data:`FORMATS`; sizes in CSS pixels. :class:`RenderError`."""
        options = json.dumps({"format": kind, "width": width, "height": height, "scale": scale})
        try:
            self._start()
            # the figure is JSON already: it is not parsed again to be put into the request
            self._send(f'{{"data":{figure_json},{options[1:]}\n'.encode())
            answer = self._receive()
        except BaseException:
            self.stop()  # an interrupt leaves half an answer in the pipe
            raise
        if answer.get("code"):
            raise RenderError(f"the figure could not be drawn: {answer.get('message')}")
        result = str(answer.get("result") or "")
        return result.encode() if kind in _TEXT_FORMATS else base64.b64decode(result)

    def stop(self) -> None:
        """End the process and its children."""
        process, self._process = self._process, None
        self._buffer.clear()
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        home = _package("kaleido") / "executable"
        script = _package("plotly") / "package_data" / "plotly.min.js"
        environment = {
            "PATH": os.defpath,
            "HOME": os.environ.get("TMPDIR", "/tmp"),  # noqa: S108 - the sandbox's own
            "LD_LIBRARY_PATH": str(home / "lib"),
            "FONTCONFIG_PATH": str(home / "etc" / "fonts"),
            "XDG_DATA_HOME": str(home / "xdg"),
        }
        arguments = [
            str(home / "bin" / "kaleido"),
            "plotly",
            f"--plotlyjs='{script}'",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--disable-breakpad",
            "--disable-dev-shm-usage",
        ]
        self._process = subprocess.Popen(
            arguments,
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._receive().get("code"):
            raise RenderError("the renderer refused to start")

    def _send(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RenderError("the renderer ended: the sandbox's memory or process limit may be too small") from None

    def _receive(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + TIMEOUT_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(deadline - time.monotonic()):
                    raise RenderError(f"no answer from the renderer within {TIMEOUT_SECONDS:.0f} s")
                part = os.read(self._process.stdout.fileno(), 1 << 20)
                if not part:
                    raise RenderError("the renderer ended: the sandbox's memory or process limit may be too small")
                self._buffer += part
                if len(self._buffer) > MAX_IMAGE_BYTES:
                    raise RenderError(f"the image is larger than {MAX_IMAGE_BYTES >> 20} MB")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        answer = json.loads(line)
        return answer if isinstance(answer, dict) else {"code": 1, "message": "not an answer"}


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise RenderError(f"{name} is not installed: images of plotly figures need it")
    return Path(spec.origin).parent
