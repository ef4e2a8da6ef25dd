"""The shell: runs cells, and says how each ended.

``Shell`` is built in the zygote, once, and forked into every worker; ``emit`` is set there. stdout and stderr are
descriptors 1 and 2 and none of its business. What it emits: ``display`` and ``result`` events.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from interpreter_sandbox.protocol import ExecuteRequest, IntrospectRequest
from interpreter_sandbox.runtime import aliases
from interpreter_sandbox.runtime.charts import MatplotlibCharts
from interpreter_sandbox.runtime.interpreter import EXIT_MESSAGE, Interpreter
from interpreter_sandbox.runtime.introspection import Introspection
from interpreter_sandbox.runtime.outputs import Outputs
from interpreter_sandbox.runtime.plotly_charts import PlotlyCharts
from interpreter_sandbox.runtime.tracebacks import lines_of, message_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Outcome = tuple[str, dict[str, object] | None]

MEMORY_MESSAGE: Final = "the code needed more memory than the session may use; its variables are kept"
_REHEARSAL: Final = ("1 + 1", "pd.DataFrame({'x': [1.5], 'y': ['text']})", "plt.plot([1, 2]);")
_SYNTAX: Final = (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError)
"""What the tokenizer and the compiler raise for a text that is not a program."""


class Shell:
    """One IPython session. Not thread-safe: one cell at a time. One per process: it installs itself in libraries."""

    def __init__(self, emit: Callable[[str, dict[str, object]], None], workspace: Path) -> None:
        """Import what every session has and build the shell; ``emit(name, data)`` may be replaced later."""
        self._workspace = Path(os.path.realpath(workspace))
        self._outputs = Outputs(_to_nobody)
        aliases.install(self._workspace)
        self._matplotlib = MatplotlibCharts(self._outputs, self._workspace)
        self._plotly = PlotlyCharts(self._outputs, self._workspace)
        self._interpreter = Interpreter.create(self._outputs, self._figure)
        self._introspection = Introspection(self._interpreter)
        if "" not in sys.path:
            sys.path.append("")  # modules that a session writes; at the end, so that they shadow no library
        self._libc = ctypes.CDLL(None)
        self._builtins = dict(vars(builtins))
        self._rehearse()
        self._outputs.emit = emit

    @property
    def emit(self) -> Callable[[str, dict[str, object]], None]:
        """Where events go."""
        return self._outputs.emit

    @emit.setter
    def emit(self, emit: Callable[[str, dict[str, object]], None]) -> None:
        self._outputs.emit = emit

    @property
    def execution_count(self) -> int:
        """The number that the next cell gets; counts from 1."""
        return int(self._interpreter.execution_count)

    @property
    def notes(self) -> list[str]:
        """What the last cell's client should know: representations that failed, what was left out."""
        return list(self._outputs.notes)

    def run(self, request: ExecuteRequest) -> Outcome:
        """Run one cell → ``("ok" | "error" | "interrupted" | "memory_limit", ErrorInfo as a dict or None)``.

        Never raises for what user code does, except where an interrupt comes while the outcome is being made.
        """
        self._outputs.begin(
            cell=self.execution_count,
            display_limit_bytes=request.display_limit_bytes,
            max_charts=request.max_charts,
        )
        outcome = self._guarded(lambda: self._execute(request.code))
        # after an interrupt or without memory this is not the time to draw
        finished = self._guarded(lambda: self._finish(draw=outcome[0] in {"ok", "error"}))
        return finished if outcome[0] == "ok" else outcome

    def introspect(self, request: IntrospectRequest) -> dict[str, object]:
        """Look into the namespace without running a cell: ``Introspected.data``; raises what objects raise."""
        return self._introspection.answer(request)

    def _rehearse(self) -> None:
        """Run what most sessions begin with, before the fork: what it imports and caches is then there for all.

        Measured in a worker: its first cell takes 3.5 instead of 6.9 ms of CPU, its first table 12 instead of 21.
        """
        for code in _REHEARSAL:
            self.run(ExecuteRequest(execution_id="", code=code, timeout_seconds=60))
        self._interpreter.reset(new_session=True)  # type: ignore[no-untyped-call]

    def _guarded(self, step: Callable[[], Outcome]) -> Outcome:
        """One step; a failure of the machinery itself means that user code broke what it stands on: repair that."""
        try:
            return step()
        except (KeyboardInterrupt, MemoryError) as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 - see above
            vars(builtins).update(self._builtins)
            self._outputs.note("Built-in functions that the code had replaced are restored: IPython needs them.")
            return self._failed(error)

    def _execute(self, code: str) -> Outcome:
        result = self._interpreter.run_cell(code, store_history=True)  # type: ignore[no-untyped-call]
        # the exception holds its frames, and they the user's variables
        self._interpreter.last_execution_result = None
        refusal, error = result.error_before_exec, result.error_in_exec
        if isinstance(refusal, _SYNTAX):
            return self._failed(refusal, refused=True)
        if refusal is not None:
            raise refusal  # IPython itself failed before the code ran
        return ("ok", None) if error is None else self._failed(error)

    def _finish(self, *, draw: bool) -> Outcome:
        try:
            self._matplotlib.end_of_cell(draw=draw)
            self._outputs.end()
        finally:
            self._plotly.end_of_cell()
            self._flush()
        return "ok", None

    def _failed(self, error: BaseException, *, refused: bool = False) -> Outcome:
        status, code, message = "error", "user_error", None
        if isinstance(error, KeyboardInterrupt):
            status, code, message = "interrupted", "interrupted", "the execution was interrupted"
        elif isinstance(error, SystemExit):
            message = EXIT_MESSAGE
        elif refused:
            code = "syntax_error"
        elif isinstance(error, MemoryError):
            status, code = "memory_limit", "memory_limit"
        text = message or message_of(error) or (MEMORY_MESSAGE if status == "memory_limit" else "")
        lines = lines_of(error, self._workspace)
        # nothing may keep the failed frames' variables alive: after a MemoryError they are the memory
        error.__traceback__ = None
        return status, {"code": code, "type": type(error).__name__, "message": text, "traceback": lines}

    def _figure(self, obj: object, event: str) -> bool:
        """Capture ``obj`` where it is a figure of a library that we know."""
        return self._matplotlib.displayed(obj, event) or self._plotly.displayed(obj, event)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # user code may have put anything there
                stream.flush()
        self._libc.fflush(None)  # what C code printed


def _to_nobody(name: str, data: dict[str, object]) -> None:
    """``emit`` of the rehearsal."""
