"""``power-interpreter stdio``: what a desktop client starts. Messages go to the server of this DATA_DIR.

Where one runs already (``make run``, or another client's), it is used, so that all clients of a person share one
Postgres and one set of sessions. Where none runs, one is started on a free loopback port for as long as this client
stays. Standard output carries the protocol and nothing else; the server's log goes to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import queue
import signal
import sys
import threading
from typing import TYPE_CHECKING

import httpx2

from interpreter_api.instance import api_key, running_server
from interpreter_api.mcp.bridge import Bridge, Target
from interpreter_api.namespaces import die_with_parent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from interpreter_api.settings import Settings

START_SECONDS = 90.0
STOP_SECONDS = 10.0
DRAIN_SECONDS = 60.0
"""After the end of input, running calls may still answer for this long: ``printf ... | power-interpreter stdio``."""

MAX_LINE = 48 << 20


def run(settings: Settings) -> int:
    """Serve standard input until it ends, or a signal comes; the exit code."""
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(sig, stop.set)
    output = _Output()
    async with _server(settings) as server:
        bridge = Bridge(server.find, output.write)
        pump = asyncio.create_task(_pump(bridge))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([pump, stopped], return_when=asyncio.FIRST_COMPLETED)
        pump.cancel()
        stopped.cancel()
        await bridge.drain(0 if stop.is_set() else DRAIN_SECONDS)
        with contextlib.suppress(asyncio.CancelledError):
            await pump  # raises what ended it, if that was not the end of input
    output.close()
    return 0


async def _pump(bridge: Bridge) -> None:
    async for line in _lines():
        if line.strip():
            await bridge.accept(line)


class _LocalServer:
    """The server of this DATA_DIR: one that runs, or one that is started here and ends with this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def find(self) -> Target:
        """Where the server is; starts it where there is none. ``OSError`` where it does not start."""
        async with self._starting:
            if (target := self._running()) is None:
                target = await self._start()
            return target

    def _running(self) -> Target | None:
        server = running_server(self._settings.data_dir)
        return None if server is None else Target(server.url + "/mcp", api_key(self._settings))

    async def _start(self) -> Target:
        await self.stop()
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "interpreter_api.cli", "serve"),
            env={**os.environ, "HOST": "127.0.0.1", "PORT": "0", "DATA_DIR": str(self._settings.data_dir)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,  # the key and client configs: desktop clients keep what they see in logs
            start_new_session=True,  # a Ctrl-C in the client's terminal reaches this process, which ends its server
            preexec_fn=functools.partial(die_with_parent, signal.SIGTERM, os.getpid()),
        )
        why = "its log on standard error says why"
        async with asyncio.timeout(START_SECONDS):
            while True:
                if (target := self._running()) is not None and await _is_ready(target):
                    return target
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 0.05)
                if process.returncode is not None and not _is_claimed(self._settings.data_dir):
                    raise OSError(f"The server did not start (exit code {process.returncode}); {why}.")

    async def stop(self) -> None:
        """End the server that was started here, if one was."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def _server(settings: Settings) -> AsyncIterator[_LocalServer]:
    server = _LocalServer(settings)
    try:
        yield server
    finally:
        await server.stop()


def _is_claimed(data_dir: Path) -> bool:
    """Whether some server holds this DATA_DIR: another client may have started one at the same moment."""
    try:
        with (data_dir / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


async def _is_ready(target: Target) -> bool:
    async with httpx2.AsyncClient(trust_env=False, timeout=2) as http:
        try:
            return (await http.get(target.url.removesuffix("/mcp") + "/ready")).is_success
        except httpx2.HTTPError:
            return False


async def _lines() -> AsyncIterator[bytes]:
    """Lines of standard input, of whatever kind it is: a thread reads, since epoll takes pipes and sockets only."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(16)

    def read() -> None:
        # os.read, not sys.stdin: a daemon thread that holds the buffer's lock would abort the interpreter's end.
        with contextlib.suppress(RuntimeError, OSError):  # the loop is closed: this process ends
            while chunk := os.read(0, 1 << 16):
                asyncio.run_coroutine_threadsafe(chunks.put(chunk), loop).result()
            asyncio.run_coroutine_threadsafe(chunks.put(b""), loop).result()

    threading.Thread(target=read, name="stdin", daemon=True).start()
    rest = bytearray()
    while chunk := await chunks.get():
        rest += chunk
        if b"\n" in chunk:
            *lines, tail = bytes(rest).split(b"\n")
            rest = bytearray(tail)
            for line in lines:
                yield line
        if len(rest) > MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE} bytes on standard input")
    if rest:
        yield bytes(rest)


class _Output:
    """Writes lines to standard output from a thread: a client that does not read must not stop the loop."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue one message."""
        self._lines.put(line + b"\n")

    def close(self) -> None:
        """Wait until all is written, but not for a client that reads no more."""
        self._lines.put(None)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            while (line := self._lines.get()) is not None:
                view = memoryview(line)
                while view:
                    view = view[os.write(1, view) :]
