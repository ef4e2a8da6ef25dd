"""Which files a cell made or changed.

inotify names them, so that a cell that writes nothing costs one read of an empty queue. Folders that appear are
watched and looked through. Where the queue overflowed, or the kernel gives no more watches, the workspace is walked
for files whose ctime, which user code cannot set, lies after the cell began.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from interpreter_sandbox.runtime import linux
from interpreter_sandbox.runtime.files import PARTIAL_PREFIX, file_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interpreter_sandbox.protocol import FileEntry

MAX_REPORTED: Final = 10_000
MAX_WATCHES: Final = 2_000
_CLOCK_TICK_SECONDS: Final = 0.01


class ChangeTracker:
    """Call :meth:`begin` before a cell and :meth:`collect` after it."""

    def __init__(self, root: bytes) -> None:
        """Watches ``root`` and every folder below it from now on."""
        self._root = root
        self._began = time.time()
        self._folders: dict[int, bytes] = {}
        self._blind = False  # for good: the kernel gives no watch for some folder
        self._overflowed = False
        try:
            self._inotify = linux.inotify_open()
        except OSError:
            self._inotify = -1
            self._blind = True
        for _ in self._explore(b""):
            pass

    def begin(self) -> None:
        """Forget what happened between cells: the api's own writes, mostly."""
        self._touched()
        self._began = time.time()

    def collect(self) -> tuple[list[FileEntry], str]:
        """The files made or changed since :meth:`begin`, by path; a note where there were more than fit."""
        touched = self._touched()
        if self._blind or self._overflowed:
            self._overflowed = False
            touched = {path for path in self._explore(b"") if self._changed_since_begin(path)}
        entries = [entry for path in sorted(touched) if (entry := self._entry(path))]
        if len(entries) <= MAX_REPORTED:
            return entries, ""
        return entries[:MAX_REPORTED], f"only {MAX_REPORTED} of {len(entries)} changed files are listed"

    def _touched(self) -> set[bytes]:
        touched: set[bytes] = set()
        while self._inotify >= 0 and (changes := linux.inotify_read(self._inotify)):
            for change in changes:
                self._overflowed |= bool(change.mask & linux.IN_OVERFLOW)
                if change.mask & linux.IN_IGNORED:
                    self._folders.pop(change.watch, None)
                folder = self._folders.get(change.watch)
                if folder is None or not change.name or _hidden(change.name):
                    continue
                path = folder + change.name
                if change.mask & linux.IN_IS_DIR:
                    touched.update(self._explore(path + b"/"))
                else:
                    touched.add(path)
        return touched

    def _explore(self, folder: bytes) -> Iterator[bytes]:
        """Watch a folder and those below it; the paths of the files in them."""
        queue = [folder]
        while queue:
            folder = queue.pop()
            self._watch(folder)
            with suppress(OSError), os.scandir(os.path.join(self._root, folder)) as entries:  # noqa: PTH118
                for entry in entries:
                    if _hidden(os.fsencode(entry.name)):
                        continue
                    path = folder + os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(path + b"/")
                    else:
                        yield path

    def _watch(self, folder: bytes) -> None:
        if self._inotify < 0:
            return
        if len(self._folders) >= MAX_WATCHES:
            self._blind = True
            return
        try:
            self._folders[linux.inotify_watch(self._inotify, os.path.join(self._root, folder))] = folder  # noqa: PTH118
        except FileNotFoundError:
            return
        except OSError:
            self._blind = True

    def _changed_since_begin(self, path: bytes) -> bool:
        with suppress(OSError):
            return os.lstat(os.path.join(self._root, path)).st_ctime >= self._began - _CLOCK_TICK_SECONDS  # noqa: PTH118
        return False

    def _entry(self, path: bytes) -> FileEntry | None:
        """The file, where it still is one. A symlink is not: reading it is refused where it leaves the workspace."""
        with suppress(OSError):
            status = os.lstat(os.path.join(self._root, path))  # noqa: PTH118
            if stat.S_ISREG(status.st_mode):
                return file_entry(path, status)
        return None


def _hidden(name: bytes) -> bool:
    return name.startswith((b".", PARTIAL_PREFIX)) or name == b"__pycache__"
