"""The shell: IPython's ``InteractiveShell`` without a kernel, a terminal, a history file or colours.

``Shell`` is built in the zygote, once, and forked into every worker; ``emit`` is set there. stdout and stderr are
descriptors 1 and 2 and none of its business. What it emits: ``display`` and ``result`` events; what it returns: how
the cell ended.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from IPython.core import async_helpers
from IPython.core.autocall import ExitAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.error import UsageError
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.text import LSString, SList
from traitlets import Type
from traitlets.config import Config

from interpreter_sandbox.runtime import aliases, charts, display, plotly_charts
from interpreter_sandbox.runtime.outputs import TEXT, Outputs
from interpreter_sandbox.runtime.tracebacks import CELL_PREFIX, lines_of, message_of, strip_ansi

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from interpreter_sandbox.protocol import ExecuteRequest

    Outcome = tuple[str, dict[str, object] | None]

EXIT_MESSAGE: Final = (
    "exit() does not end a session: its variables and files are kept, and the next cell runs as usual."
)
MEMORY_MESSAGE: Final = "the code needed more memory than the session may use; its variables are kept"
_BASH: Final = "/bin/bash"
_SYNTAX: Final = (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError, TypeError)
"""What the tokenizer and the compiler raise for a text that is not a program."""


class Shell:
    """One IPython session. Not thread-safe: one cell at a time."""

    def __init__(self, emit: Callable[[str, dict[str, object]], None], workspace: Path) -> None:
        """Import what every session has and build the shell; ``emit(name, data)`` may be replaced later."""
        self._workspace = Path(os.path.realpath(workspace))
        self._outputs = Outputs(emit)
        aliases.install(self._workspace)
        self._matplotlib = charts.MatplotlibCharts(self._outputs, self._workspace)
        self._plotly = plotly_charts.PlotlyCharts(self._outputs, self._workspace)
        self._ip = _Interpreter.instance(config=_config())
        self._ip.connect(self._outputs, self._figure)
        _pandas_options()
        if "" not in sys.path:
            sys.path.append("")  # modules that a session writes; at the end, so that they shadow no library
        self._libc = ctypes.CDLL(None)
        self._builtins = dict(vars(builtins))

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
        return int(self._ip.execution_count)

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
        finished = self._guarded(lambda: self._finish(draw=outcome[0] in {"ok", "error"}))
        return finished if outcome[0] == "ok" else outcome

    def _guarded(self, step: Callable[[], Outcome]) -> Outcome:
        """One step; a failure of the machinery itself means that user code broke what it stands on: repair that."""
        try:
            return step()
        except (KeyboardInterrupt, MemoryError) as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 - see above
            self._repair()
            return self._failed(error)

    def _execute(self, code: str) -> Outcome:
        result = self._ip.run_cell(code, store_history=True)
        # the exception holds its frames, and they the user's variables
        self._ip.last_execution_result = None
        if result.error_before_exec is not None:
            error = result.error_before_exec
            return self._failed(error, refused=isinstance(error, _SYNTAX) and not isinstance(error, UsageError))
        if result.error_in_exec is not None:
            return self._failed(result.error_in_exec)
        return "ok", None

    def _finish(self, *, draw: bool) -> Outcome:
        try:
            self._matplotlib.end_of_cell(draw=draw)
            self._outputs.end()
        finally:
            self._plotly.end_of_cell()
            self._flush()
        return "ok", None

    def _failed(self, error: BaseException, *, refused: bool = False) -> Outcome:
        kind = type(error).__name__
        if isinstance(error, KeyboardInterrupt):
            return "interrupted", _error("interrupted", kind, "the execution was interrupted", self._lines(error))
        if isinstance(error, MemoryError) and not refused:
            message = message_of(error) or MEMORY_MESSAGE
            return "memory_limit", _error("memory_limit", kind, message, self._lines(error))
        if isinstance(error, SystemExit):
            return "error", _error("user_error", kind, EXIT_MESSAGE, self._lines(error))
        code = "syntax_error" if refused else "user_error"
        return "error", _error(code, kind, message_of(error), self._lines(error))

    def _lines(self, error: BaseException) -> list[str]:
        lines = lines_of(error, self._workspace)
        # nothing may keep the failed frames' variables alive: after a MemoryError they are the memory
        error.__traceback__ = None
        return lines

    def _figure(self, obj: object, event: str) -> bool:
        """Capture ``obj`` where it is a figure of a library that we know."""
        return self._matplotlib.displayed(obj, event) or self._plotly.displayed(obj, event)

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # user code may have put anything there
                stream.flush()
        self._libc.fflush(None)

    def _repair(self) -> None:
        vars(builtins).update(self._builtins)
        self._outputs.note("Built-in functions that the code had replaced were restored: the interpreter needs them.")

    def repair(self) -> None:
        """Give ``builtins`` back what they had at the start."""
        self._repair()


class _CellCompiler(CachingCompiler):
    """Cells are ``<cell 3>`` in tracebacks."""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return f"{CELL_PREFIX}{number}>"


class _NoExit(ExitAutocall):
    """``exit`` and ``quit``: in a session there is nothing to leave."""

    def __call__(self, code: object = None) -> None:
        raise SystemExit(code)

    def __repr__(self) -> str:
        return EXIT_MESSAGE


class _Interpreter(InteractiveShell):
    """IPython, told that there is neither a terminal nor a notebook."""

    compiler_class = _CellCompiler
    displayhook_class = Type(display.ResultHook)
    display_pub_class = Type(display.Publisher)

    def connect(self, outputs: Outputs, figure: Callable[[object, str], bool]) -> None:
        """Route what is displayed."""
        self.display_formatter.outputs = outputs
        self.display_formatter.figure = figure
        self.displayhook.outputs = outputs
        self.display_pub.outputs = outputs
        self.set_hook("show_in_pager", _page)

    def init_virtualenv(self) -> None:
        """The sandbox has one environment."""

    def init_profile_dir(self, profile_dir: object) -> None:
        """Nothing under the user's home: a temporary folder, private to the sandbox."""
        super().init_profile_dir(None)

    def init_history(self) -> None:
        """``In``, ``_i`` and ``%history`` within the session; no database, no thread."""
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)
        self.configurables.append(self.history_manager)

    def init_display_formatter(self) -> None:
        """See :mod:`display`."""
        self.display_formatter = display.SafeFormatter(parent=self)
        self.configurables.append(self.display_formatter)

    def _exiter_default(self) -> _NoExit:
        return _NoExit(self)

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """IPython keeps a copy of all output for its history; we promise flat memory."""
        yield

    def _format_exception_for_storage(self, exception: BaseException, *_: object, **__: object) -> dict[str, str]:
        """Nor the tracebacks."""
        return {}

    def showtraceback(self, *_: object, **__: object) -> None:
        """The error is in the cell's result; it becomes an event, not text on stdout."""

    showsyntaxerror = showtraceback

    def system(self, cmd: str) -> None:
        """``!cmd``: bash on our own descriptors 1 and 2. ``_exit_code`` is its status, negative for a signal."""
        sys.stdout.flush()
        sys.stderr.flush()
        command = self.var_expand(cmd, depth=1)
        self.user_ns["_exit_code"] = subprocess.call([_BASH, "-c", command], stdin=subprocess.DEVNULL)

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """``x = !cmd``: stdout and stderr as a list of lines."""
        command = self.var_expand(cmd, depth=depth + 1)
        done = subprocess.run(
            [_BASH, "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.user_ns["_exit_code"] = done.returncode
        text = done.stdout.decode("utf-8", "replace")
        return SList(text.splitlines()) if split else LSString(text)

    def enable_gui(self, gui: str | None = None) -> None:
        """There is no screen."""

    def enable_matplotlib(self, gui: str | None = None) -> tuple[str, str]:
        """``%matplotlib inline`` and its kin: figures are captured whatever it says."""
        return "inline", "agg"


def _config() -> Config:
    config = Config()
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.autoindent = False
    config.InteractiveShell.enable_tip = False
    config.InteractiveShell.ipython_dir = tempfile.mkdtemp(prefix="ipython-")
    config.InteractiveShell.display_page = False
    config.InteractiveShell.loop_runner = _run_in_loop
    config.IPCompleter.use_jedi = False
    return config


def _run_in_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Top-level ``await``: one event loop for the whole session, so that tasks and connections outlive their cell."""
    loop = async_helpers.get_asyncio_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except KeyboardInterrupt:
        # the cell ends with its interrupt; left pending, it would go on inside the next one
        task.cancel()
        with contextlib.suppress(BaseException):
            loop.run_until_complete(task)
        raise


def _page(shell: object, data: Any, start: int = 0, screen_lines: int = 0) -> None:
    """What a pager would show (``?``, ``??``, ``%psource``) goes to stdout."""
    text = data.get(TEXT, "") if isinstance(data, dict) else data
    print(strip_ansi(str(text)))  # noqa: T201


def _pandas_options() -> None:
    """Wider tables than a terminal of 80 columns: a reader that is a program prefers columns to dots."""
    import pandas as pd

    pd.set_option("display.width", 160)
    pd.set_option("display.max_columns", 40)
    pd.set_option("display.max_rows", 60)
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")


def _error(code: str, kind: str, message: str, traceback: list[str]) -> dict[str, object]:
    return {"code": code, "type": kind, "message": message, "traceback": traceback}
