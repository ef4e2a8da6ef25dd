"""Names that every cell has without an import: ``pd np plt sns go px sm``, ``safe_open`` and an honest ``input``.

They live in ``builtins``, not in the user's namespace. A name that user code binds wins, at module level and inside
functions alike; nothing shows up in the list of the session's variables; and user code keeps running over plain
dicts (a namespace with ``__missing__`` would take the interpreter off its fast path for every global it reads).

``pd``, ``np`` and ``plt`` are the real modules, imported before the fork anyway. ``sns``, ``go``, ``px`` and ``sm`` are
stand-ins that import on first use: together they would cost every sandbox some 140 MB and seconds of start-up.
"""

from __future__ import annotations

import builtins
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final, NoReturn

PRELOADED: Final = {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot"}
LAZY: Final = {
    "sns": "seaborn",
    "go": "plotly.graph_objects",
    "px": "plotly.express",
    "sm": "statsmodels.api",
}


class LazyModule(ModuleType):
    """A module that is imported when something is first asked of it, and then steps out of the way."""

    def __init__(self, alias: str, target: str) -> None:
        super().__init__(target)
        # written past __setattr__, which forwards to the real module
        self.__dict__["_lazy_alias"] = alias
        self.__dict__["_lazy_target"] = target

    def _load(self) -> ModuleType:
        module = importlib.import_module(self.__dict__["_lazy_target"])
        alias = self.__dict__["_lazy_alias"]
        if vars(builtins).get(alias) is self:
            setattr(builtins, alias, module)
        return module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._load(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._load(), name)

    def __dir__(self) -> list[str]:
        return dir(self._load())

    def __repr__(self) -> str:
        return repr(self._load())

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__dict__["_lazy_target"],)


class StdinNotAvailableError(EOFError):
    """Code asked for keyboard input; a session has no keyboard."""

    __module__ = "builtins"  # how tracebacks name it


def no_input(prompt: object = "", /) -> NoReturn:
    """Stands in for ``input``: says at once what cannot work instead of waiting for a line that never comes."""
    raise StdinNotAvailableError(
        f"input({str(prompt)[:80]!r}) cannot be answered: a session has no keyboard. Put the value into the code."
    )


class WorkspaceOpener:
    """``safe_open``: ``open``, but only beneath the session's own folder. A help for careful code, not the sandbox."""

    def __init__(self, workspace: Path) -> None:
        self._root = Path(os.path.realpath(workspace))

    def __call__(self, path: str | os.PathLike[str], mode: str = "r", **options: Any) -> IO[Any]:
        """Open ``path`` (relative to the workspace, or absolute and inside it) with ``open``'s own options.

        Raises ``PermissionError`` where the path, its links resolved, leaves the workspace. Folders on the way to a
        file that is written are made.
        """
        target = Path(os.path.realpath(self._root / os.fspath(path)))
        if not target.is_relative_to(self._root):
            raise PermissionError(f"safe_open: {os.fspath(path)!r} is outside the workspace {str(self._root)!r}")
        if not set(mode).isdisjoint("wax"):
            target.parent.mkdir(parents=True, exist_ok=True)
        return target.open(mode, **options)

    def __repr__(self) -> str:
        return f"safe_open(path, mode='r', **options): open(), restricted to {self._root}"


def install(workspace: Path) -> None:
    """Put the names into ``builtins``; imports numpy, pandas and matplotlib.pyplot."""
    for alias, target in PRELOADED.items():
        setattr(builtins, alias, importlib.import_module(target))
    for alias, target in LAZY.items():
        setattr(builtins, alias, LazyModule(alias, target))
    builtins.safe_open = WorkspaceOpener(workspace)  # type: ignore[attr-defined]
    builtins.input = no_input
