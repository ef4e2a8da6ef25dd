"""IPython's ``InteractiveShell``, told that there is neither a terminal nor a notebook.

No history database, no colours, no copies of what cells print; ``!cmd`` runs on descriptors 1 and 2; errors stay in
the cell's result for :mod:`shell` to report.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, Any, Final

from IPython.core import async_helpers
from IPython.core.autocall import ExitAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.text import LSString, SList
from traitlets import Type
from traitlets.config import Config

from interpreter_sandbox.runtime.display import Publisher, ResultHook, SafeFormatter
from interpreter_sandbox.runtime.outputs import TEXT
from interpreter_sandbox.runtime.tracebacks import CELL_PREFIX, strip_ansi

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from interpreter_sandbox.runtime.outputs import Outputs

EXIT_MESSAGE: Final = "exit() does not end a session: variables and files are kept, and the next cell runs as usual."
_BASH: Final = "/bin/bash"


class CellCompiler(CachingCompiler):
    """Cells are ``<cell 3>`` in tracebacks."""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        """The file name that a cell compiles under."""
        return f"{CELL_PREFIX}{number}>"


class NoExit(ExitAutocall):
    """``exit`` and ``quit``: in a session there is nothing to leave."""

    def __call__(self, code: object = None) -> None:
        """End the cell; the shell says the rest."""
        raise SystemExit(code)

    def __repr__(self) -> str:
        """What a cell shows that mentions it without calling it."""
        return EXIT_MESSAGE


class Interpreter(InteractiveShell):
    """The one IPython shell of a process; :meth:`connect` before the first cell."""

    compiler_class = CellCompiler
    displayhook_class = Type(ResultHook)
    display_pub_class = Type(Publisher)

    @classmethod
    def create(cls, outputs: Outputs, figure: Callable[[object, str], bool]) -> Interpreter:
        """The shell of this process; ``figure`` is asked first about everything that is displayed."""
        # a folder of its own, not one in anybody's home
        shell = cls.instance(config=_config(), ipython_dir=tempfile.mkdtemp(prefix="ipython-"))
        formatter, hook, publisher = shell.display_formatter, shell.displayhook, shell.display_pub
        assert isinstance(formatter, SafeFormatter)
        assert isinstance(hook, ResultHook)
        assert isinstance(publisher, Publisher)
        formatter.outputs = hook.outputs = publisher.outputs = outputs
        formatter.figure = figure
        shell.set_hook("show_in_pager", _page)  # type: ignore[no-untyped-call]
        _library_defaults()
        return shell

    def init_virtualenv(self) -> None:
        """The sandbox has one environment."""

    def init_history(self) -> None:
        """``In``, ``_i`` and ``%history`` within the session; no database, no thread."""
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)

    def init_display_formatter(self) -> None:
        """See :mod:`display`."""
        self.display_formatter = SafeFormatter(parent=self)

    def _exiter_default(self) -> NoExit:
        return NoExit(self)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """IPython keeps a copy of all output for its history; we promise flat memory."""
        yield

    def _format_exception_for_storage(self, exception: BaseException, *_: object, **__: object) -> dict[str, str]:
        """Nor are tracebacks kept."""
        return {}

    def showtraceback(self, exc_tuple: Any = None, *_: object, **__: object) -> None:
        """A cell's error is in its result and becomes an event; here only a formatter's failure has to be noted."""
        if exc_tuple is not None and isinstance(self.display_formatter, SafeFormatter):
            self.display_formatter.one_failed(exc_tuple[1])

    def showsyntaxerror(self, *_: object, **__: object) -> None:
        """It is in the cell's result too."""

    def system(self, cmd: str) -> None:
        """``!cmd``: bash on our own descriptors 1 and 2. ``_exit_code`` is its status, negative for a signal."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        command = self.var_expand(cmd, depth=1)  # type: ignore[no-untyped-call]
        self.user_ns["_exit_code"] = subprocess.call([_BASH, "-c", command], stdin=subprocess.DEVNULL)

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """``x = !cmd``: stdout and stderr as a list of lines."""
        done = subprocess.run(
            [_BASH, "-c", self.var_expand(cmd, depth=depth + 1)],  # type: ignore[no-untyped-call]
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
    config.InteractiveShell.loop_runner = _run_in_loop
    config.IPCompleter.use_jedi = False
    return config


def _run_in_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Top-level ``await``: one event loop for the whole session, so that tasks and connections outlive their cell."""
    loop = async_helpers.get_asyncio_loop()  # type: ignore[no-untyped-call]
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


def _library_defaults() -> None:
    """Wider tables than a terminal of 80 columns: a reader that is a program prefers columns to dots."""
    pandas = importlib.import_module("pandas")
    pandas.set_option("display.width", 160)
    pandas.set_option("display.max_columns", 40)
    pandas.set_option("display.max_rows", 60)
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")
