"""The session's workspace as the api sees it: list, read, write, delete, and nothing outside of it.

User code owns the folder and may swap any part of it for a symlink, a FIFO or a device at any moment. So every path
is resolved by the kernel, beneath the workspace (``openat2``), and everything after that goes by descriptor.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from interpreter_sandbox.protocol import AGENT_ERRORS, FileEntry
from interpreter_sandbox.runtime import linux

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

MAX_LISTED: Final = 10_000
CHUNK_BYTES: Final = 1 << 18
PARTIAL_PREFIX: Final = b".interpreter-partial-"
_MAX_PATH_BYTES: Final = 4096

_REFUSED_ERRNOS: Final = {errno.EXDEV, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
_MISSING_ERRNOS: Final = {errno.ENOENT, errno.ENOTDIR}
_FULL_ERRNOS: Final = {errno.ENOSPC, errno.EDQUOT}


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """A request that the agent refuses; ``code`` is one of :data:`~interpreter_sandbox.protocol.AGENT_ERRORS`."""

    def __init__(self, code: str, message: str) -> None:
        """``message`` may name the caller's own path and nothing else of this machine."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = AGENT_ERRORS[code]


@dataclass(slots=True)
class OpenFile:
    """A regular file, open for reading; ``size`` is what will be read even if it grows."""

    descriptor: int
    size: int

    async def chunks(self) -> AsyncIterator[bytes]:
        """The first ``size`` bytes; fewer where the file has shrunk since."""
        left = self.size
        while left > 0 and (data := os.read(self.descriptor, min(CHUNK_BYTES, left))):
            left -= len(data)
            yield data

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def clean(path: str, *, root_allowed: bool = False) -> bytes:
    """``path`` as relative bytes; ``Refusal`` for one that is absolute, empty or cannot be a path."""
    try:
        raw = path.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal("path_refused", "a path is valid text") from None
    if b"\0" in raw or len(raw) > _MAX_PATH_BYTES:
        raise Refusal("path_refused", f"a path has no NUL and at most {_MAX_PATH_BYTES} bytes")
    if raw.startswith(b"/"):
        raise Refusal("path_refused", "a path is relative to the workspace")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise Refusal("path_refused", "a path stays in the workspace: no '..'")
    if not parts and not root_allowed:
        raise Refusal("invalid_argument", "the path of a file is needed")
    return b"/".join(parts) or b"."


@contextmanager
def _refusals(path: str) -> Iterator[None]:
    """The kernel's refusals in the protocol's words."""
    try:
        yield
    except OSError as error:
        if error.errno in _MISSING_ERRNOS:
            raise Refusal("not_found", f"no such file: {path[:200]!r}") from None
        if error.errno in _REFUSED_ERRNOS:
            raise Refusal("path_refused", f"the path leaves the workspace or is closed: {path[:200]!r}") from None
        if error.errno in _FULL_ERRNOS:
            raise Refusal("no_space", "the workspace is full: delete files and try again") from None
        if error.errno == errno.EFBIG:
            raise Refusal("too_large", "the file is over the size limit of one file") from None
        raise Refusal("not_a_file", f"not a file that can be used: {path[:200]!r} ({error.strerror})") from None


class Workspace:
    """The folder; ``max_file_bytes`` is the limit of one written file."""

    def __init__(self, root: Path, max_file_bytes: int) -> None:
        """``root`` must exist; it is held open from now on."""
        self.root = os.fsencode(root)
        self._max_file_bytes = max_file_bytes
        self._fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def usage(self) -> tuple[int, int]:
        """Used bytes and size in bytes of the file system that holds the workspace."""
        status = os.fstatvfs(self._fd)
        return (status.f_blocks - status.f_bfree) * status.f_frsize, status.f_blocks * status.f_frsize

    def list(self, path: str, *, recursive: bool) -> tuple[list[FileEntry], bool]:
        """The entries of a folder, by path, without partial uploads; True where there were more than fit."""
        found: list[FileEntry] = []
        asked = clean(path, root_allowed=True)
        queue = [asked]
        while queue:
            folder = queue.pop()
            try:
                with _refusals(path):
                    fd = linux.open_beneath(self._fd, folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
            except Refusal:
                if folder == asked:
                    raise
                continue  # it was a folder a moment ago
            prefix = b"" if folder == b"." else folder + b"/"
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        if name.startswith(PARTIAL_PREFIX):
                            continue
                        if len(found) >= MAX_LISTED:
                            return _sorted(found), True
                        with suppress(FileNotFoundError):
                            found.append(file_entry(prefix + name, entry.stat(follow_symlinks=False)))
                        if recursive and entry.is_dir(follow_symlinks=False):
                            queue.append(prefix + name)
            finally:
                os.close(fd)
        return _sorted(found), False

    def open(self, path: str) -> OpenFile:
        """A regular file for reading; anything else is refused at once, a FIFO too."""
        with _refusals(path):
            fd = linux.open_beneath(self._fd, clean(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise Refusal("not_a_file", f"not a regular file: {path[:200]!r}")
        return OpenFile(fd, status.st_size)

    async def write(self, path: str, body: AsyncIterator[bytes]) -> FileEntry:
        """Make or replace a file by one rename; parents are made. Nothing is left of a write that fails."""
        raw = clean(path)
        folder, _, name = raw.rpartition(b"/")
        partial = PARTIAL_PREFIX + secrets.token_hex(8).encode()
        with _refusals(path):
            folder_fd = self._make_folder(folder)
        try:
            with _refusals(path):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(partial, flags, 0o644, dir_fd=folder_fd)
            try:
                await self._fill(fd, path, body)
                status = os.fstat(fd)
                with _refusals(path):
                    os.rename(partial, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
            except BaseException:
                with suppress(OSError):
                    os.unlink(partial, dir_fd=folder_fd)
                raise
            finally:
                os.close(fd)
        finally:
            os.close(folder_fd)
        return file_entry(raw, status)

    def delete(self, path: str) -> None:
        """Remove a file, a symlink (not what it points to), or a folder with all in it."""
        folder, _, name = clean(path).rpartition(b"/")
        with _refusals(path):
            folder_fd = linux.open_beneath(self._fd, folder or b".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                if stat.S_ISDIR(os.lstat(name, dir_fd=folder_fd).st_mode):
                    shutil.rmtree(name, dir_fd=folder_fd)
                else:
                    os.unlink(name, dir_fd=folder_fd)
            finally:
                os.close(folder_fd)

    async def _fill(self, fd: int, path: str, body: AsyncIterator[bytes]) -> None:
        size = 0
        async for data in body:
            size += len(data)
            if size > self._max_file_bytes:
                raise Refusal("too_large", f"the file is over the limit of {self._max_file_bytes} bytes")
            view = memoryview(data)
            with _refusals(path):
                while view:
                    view = view[os.write(fd, view) :]

    def _make_folder(self, folder: bytes) -> int:
        """A descriptor of the folder, made part by part where it is missing."""
        fd = linux.open_beneath(self._fd, b".", os.O_RDONLY | os.O_DIRECTORY)
        for part in filter(None, folder.split(b"/")):
            parent = fd
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=parent)
                fd = linux.open_beneath(parent, part, os.O_RDONLY | os.O_DIRECTORY)
            finally:
                os.close(parent)
        return fd


def file_entry(path: bytes, status: os.stat_result) -> FileEntry:
    """The protocol's shape; names that are no UTF-8 are shown with replacement characters."""
    return FileEntry(path.decode("utf-8", "replace"), status.st_size, status.st_mtime, stat.S_ISDIR(status.st_mode))


def _sorted(entries: list[FileEntry]) -> list[FileEntry]:
    return sorted(entries, key=lambda entry: entry.path)
