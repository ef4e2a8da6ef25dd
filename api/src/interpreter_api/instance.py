"""One server for one DATA_DIR: the lock, the runtime folder, and what a stdio client needs to find a running server.

DATA_DIR/lock          flock, held while a server (or `keys` without one) runs
DATA_DIR/server.json   {"url", "pid"} of the running server, mode 0600
DATA_DIR/api-key       the generated key where API_KEY is not set, mode 0600
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interpreter_api.data.embedded import write_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from interpreter_api.settings import Settings


class StartError(Exception):
    """The server cannot start here; the message is for whoever typed the command."""


class AlreadyRunningError(StartError):
    """Another process holds this DATA_DIR."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What ``server.json`` says."""

    url: str
    pid: int


def running_server(data_dir: Path) -> RunningServer | None:
    """The server that runs on this DATA_DIR, if there is one: the file counts only while its writer lives."""
    try:
        found = json.loads((data_dir / "server.json").read_text())
        server = RunningServer(str(found["url"]), int(found["pid"]))
        os.kill(server.pid, 0)
    except PermissionError:
        return server
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return server


@contextmanager
def claim(settings: Settings) -> Iterator[None]:
    """Hold DATA_DIR for this process; makes it and the runtime folder. Raises ``StartError``."""
    data_dir = settings.data_dir
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StartError(
            f"DATA_DIR {data_dir} cannot be written: {error.strerror}. Name a folder of yours with DATA_DIR."
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = running_server(data_dir)
            who = f"pid {other.pid} at {other.url}" if other else "another process that is just starting or ending"
            raise AlreadyRunningError(
                f"DATA_DIR {data_dir} is in use: {who}. Stop it, or name another folder with DATA_DIR."
            ) from None
        (data_dir / "server.json").unlink(missing_ok=True)
        _make_runtime_dir(settings.runtime_dir)
        yield
    finally:
        os.close(lock)


def _make_runtime_dir(folder: Path) -> None:
    """Ours alone: in a shared /tmp somebody else may have made it first."""
    try:
        for part in (folder.parent, folder):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = part.stat(follow_symlinks=False)
            if status.st_uid != os.getuid() or part.is_symlink():
                raise StartError(f"{part} belongs to somebody else (uid {status.st_uid}); remove it.")
            part.chmod(0o700)
    except OSError as error:
        raise StartError(f"the runtime folder {folder} cannot be made: {error.strerror}.") from None


@contextmanager
def announced(data_dir: Path, url: str) -> Iterator[None]:
    """``server.json`` says where the server is, for as long as it is."""
    path = data_dir / "server.json"
    write_private(path, json.dumps({"url": url, "pid": os.getpid()}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def api_key(settings: Settings) -> str:
    """API_KEY, or the generated key of this DATA_DIR, made at the first call."""
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    path = settings.data_dir / "api-key"
    try:
        if key := path.read_text().strip():
            return key
    except FileNotFoundError:
        pass
    key = new_key()
    write_private(path, key + "\n")
    return key


def new_key() -> str:
    """A key of 256 random bits; the prefix lets secret scanners find one that leaked."""
    return "pi_" + secrets.token_urlsafe(32)
