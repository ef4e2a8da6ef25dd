"""Sandboxes on this machine: bubblewrap process trees, a warm pool, and the watch over both."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from interpreter_api.backends.base import Posture, Sandbox, SandboxClass, SandboxInfo, SandboxLost
from interpreter_api.backends.local import cgroups, posture, process, profile
from interpreter_api.backends.local.pool import Pool, Slot
from interpreter_api.errors import InvalidArgumentError, SandboxUnavailableError
from interpreter_sandbox.client import AgentClient, AgentError, AgentUnavailable, TokenSigner
from interpreter_sandbox.protocol import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from interpreter_api.backends.local.host import Machine

log = logging.getLogger(__name__)

START_SECONDS: Final = 60.0
HEALTH_SECONDS: Final = 0.02
"""Between two questions to an agent that is still importing; nobody is asked once it is ready."""

RECHECK_SECONDS: Final = 5.0
REFILL_SECONDS: Final = 0.25
"""A sandbox's start takes a processor for a second: the first answer of the session just claimed goes first."""

BACKLOG: Final = 64


@dataclass(slots=True, eq=False)
class _Running:
    """A started sandbox and what it holds on the host."""

    uid: str
    process: process.SandboxProcess
    client: AgentClient
    socket_path: Path
    group: cgroups.Group | None
    watcher: asyncio.Task[None] | None = None
    out_of_memory: bool = False


class LocalBackend:
    """``SandboxBackend`` with bubblewrap; see ``backends/base.py`` for what each method promises."""

    def __init__(
        self,
        classes: Mapping[str, SandboxClass],
        *,
        environment: Path,
        runtime_dir: Path,
        max_sandboxes: int,
        bwrap: str = "bwrap",
        claim_wait_seconds: float = 30.0,
    ) -> None:
        """``environment``: the sandbox's virtual environment. ``runtime_dir``: a short path, for sockets, made 0700.

        ``bwrap``: the program's path or name. Use it from one event loop, in a thread that outlives it.
        """
        if "default" not in classes:
            raise ValueError("a class named 'default' is needed")
        self._classes = dict(classes)
        self._environment = environment
        self._runtime_dir = runtime_dir
        self._bwrap = bwrap
        self._limit = max_sandboxes
        self._claim_wait_seconds = claim_wait_seconds
        self._signer = TokenSigner(Ed25519PrivateKey.generate())
        self._cgroups = cgroups.Cgroups(0, {}, "")
        self._verdict = posture.Verdict(Posture("none", ready=False, detail="the backend has not started"), None)
        self._checked = -RECHECK_SECONDS
        self._checking = asyncio.Lock()
        self._pool: Pool[_Running] | None = None
        self._watches: weakref.WeakSet[_Watch] = weakref.WeakSet()

    async def start(self) -> None:
        """Check the machine and begin to fill the warm pool; it is ready to be used at once."""
        self._runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._runtime_dir.chmod(0o700)
        for leftover in self._runtime_dir.glob("sbx_*.sock"):
            leftover.unlink(missing_ok=True)
        self._cgroups = cgroups.detect()
        if removed := self._cgroups.sweep():
            log.info("removed the control groups of %d sandboxes that a killed server left", removed)
        self._pool = Pool(
            self._classes,
            limit=self._limit,
            start=self._start_sandbox,
            stop=self._stop_sandbox,
            parallel_starts=max(2, os.cpu_count() or 2),
            wait_seconds=self._claim_wait_seconds,
            refill_seconds=REFILL_SECONDS,
        )
        await self._check()

    async def _check(self) -> None:
        """Find out whether code can be isolated here; from the moment it can, the pool is kept filled."""
        self._verdict = await posture.check(
            self._environment, self._bwrap, self._classes["default"], self._cgroups.degraded()
        )
        self._checked = time.monotonic()
        found = self._verdict.posture
        if not found.ready:
            log.error("code is not executed on this machine: %s. To fix it: %s", found.detail, found.remedy)
        elif self._pool is not None:
            log.info("sandboxes: %s", found.detail)
            for layer in found.degraded:
                log.warning("isolation is degraded: %s", layer)
            self._pool.open()

    async def close(self) -> None:
        """End every sandbox; when this returns no process of theirs is left."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
        self._verdict = posture.Verdict(Posture("none", ready=False, detail="the backend is closed"), None)
        self._checked = float("inf")
        self._cgroups.close()
        for watch in list(self._watches):
            watch.end()

    def classes(self) -> dict[str, SandboxClass]:
        """The classes by name."""
        return dict(self._classes)

    def posture(self) -> Posture:
        """How this machine isolates, as found at start or at the last refused claim."""
        return self._verdict.posture

    async def claim(self, class_name: str, session_id: str, owner: str) -> Sandbox:
        """Bind a warm sandbox, or a new one, to the session. ``owner`` means nothing to this backend."""
        if class_name not in self._classes:
            raise InvalidArgumentError(f"there is no class named {class_name!r}", classes=sorted(self._classes))
        pool = await self._ready_pool()
        slot = await pool.claim(class_name, session_id)
        return Sandbox(slot.uid, class_name, session_id, _handle(slot).client)

    async def _ready_pool(self) -> Pool[_Running]:
        """The pool, or the refusal. Looks again now and then: the fix may have been typed meanwhile."""
        async with self._checking:
            if not self._verdict.posture.ready and time.monotonic() - self._checked > RECHECK_SECONDS:
                await self._check()
        found = self._verdict.posture
        if not found.ready or self._pool is None:
            raise SandboxUnavailableError(
                f"This server cannot isolate code, so it runs none: {found.detail}", remedy=found.remedy
            )
        return self._pool

    async def release(self, uid: str) -> None:
        """End the sandbox and everything in it; harmless where it is gone."""
        if self._pool is not None:
            await self._pool.remove(uid)

    async def list(self) -> list[SandboxInfo]:
        """Every sandbox of this server."""
        slots = [] if self._pool is None else self._pool.slots()
        return [SandboxInfo(slot.uid, slot.class_name, slot.session_id, slot.state) for slot in slots]

    def watch(self) -> AsyncIterator[SandboxLost]:
        """The claimed sandboxes that end without being released, from this call on; ends with the backend."""
        watch = _Watch()
        self._watches.add(watch)
        return watch

    async def _start_sandbox(self, uid: str, sandbox_class: SandboxClass) -> _Running:
        machine = self._verdict.machine
        if machine is None:
            raise SandboxUnavailableError(self._verdict.posture.detail, remedy=self._verdict.posture.remedy)
        running = self._spawn(machine, uid, sandbox_class)
        try:
            await self._until_ready(running)
        except BaseException:
            await running.process.kill()
            await self._clean_up(running)
            raise
        running.watcher = asyncio.create_task(self._supervise(running), name=f"watch {uid}")
        return running

    def _spawn(self, machine: Machine, uid: str, sandbox_class: SandboxClass) -> _Running:
        path = self._runtime_dir / f"{uid}.sock"
        group = self._cgroups.create(
            uid, memory_bytes=process.memory_limit(sandbox_class), processes=process.process_limit(sandbox_class)
        )
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(str(path))
                path.chmod(0o600)
                listener.listen(BACKLOG)
                started = process.SandboxProcess.spawn(
                    machine,
                    sandbox_class,
                    profile.agent_command(self._agent_config(uid, sandbox_class, listener.fileno())),
                    owner=machine.spare_owner(),
                    cgroups=[] if group is None else group.join_files(),
                    keep_fds=[listener.fileno()],
                )
        except BaseException:
            path.unlink(missing_ok=True)
            if group is not None:
                self._cgroups.discard(group)
            raise
        client = AgentClient.over_unix(str(path), self._signer.for_sandbox(uid))
        return _Running(uid, started, client, path, group)

    def _agent_config(self, uid: str, sandbox_class: SandboxClass, listen_fd: int) -> str:
        limits = {
            "memory_bytes": sandbox_class.memory_bytes,
            "max_processes": sandbox_class.max_processes,
            "max_open_files": sandbox_class.max_open_files,
            "max_file_bytes": sandbox_class.max_file_bytes,
            "workspace_bytes": sandbox_class.workspace_bytes,
        }
        config = {
            "uid": uid,
            "public_key": self._signer.public_key_base64,
            "listen": {"fd": listen_fd},
            "workspace": WORKSPACE,
            "limits": limits,
        }
        return json.dumps(config)

    async def _until_ready(self, running: _Running) -> None:
        """Wait for the agent's word, or for the end of its process, whichever comes first."""
        ended = asyncio.ensure_future(running.process.ended())
        ready = asyncio.ensure_future(_healthy(running.client))
        try:
            done, _ = await asyncio.wait({ended, ready}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if ready in done and not (trouble := ready.result()):
                return
            if ended in done:
                trouble = f"it ended with {ended.result()}"
            elif ready not in done:
                trouble = f"it was not ready after {START_SECONDS:.0f} s"
        finally:
            ended.cancel()
            ready.cancel()
            await asyncio.wait({ended, ready})
        log.error("sandbox %s did not start: %s; it said: %s", running.uid, trouble, running.process.stderr)
        raise SandboxUnavailableError(
            f"a sandbox did not start: {trouble}", remedy="The server's log has what it said; try again."
        )

    async def _supervise(self, running: _Running) -> None:
        """Wait for the end; tell whoever watches where nobody asked for it."""
        code = await running.process.ended()
        await self._clean_up(running)
        session_id = None if self._pool is None else self._pool.vanished(running.uid)
        if session_id is None:
            return
        reason = "it ran out of memory and was killed" if running.out_of_memory else f"it ended by itself ({code})"
        log.warning("sandbox %s of session %s is lost: %s; %s", running.uid, session_id, reason, running.process.stderr)
        for watch in list(self._watches):
            watch.put(SandboxLost(running.uid, session_id, f"The sandbox is gone: {reason}."))

    async def _stop_sandbox(self, running: _Running) -> None:
        await running.process.kill()
        if running.watcher is not None:
            await running.watcher

    async def _clean_up(self, running: _Running) -> None:
        """What a sandbox leaves on the host once its processes are gone."""
        running.socket_path.unlink(missing_ok=True)
        if running.group is not None:
            running.out_of_memory = running.group.oom_kills() > 0
            self._cgroups.discard(running.group)
        await running.client.aclose()


class _Watch:
    """One watcher's queue: registered when made, forgotten when dropped."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[SandboxLost | None] = asyncio.Queue()

    def put(self, lost: SandboxLost) -> None:
        self._queue.put_nowait(lost)

    def end(self) -> None:
        self._queue.put_nowait(None)

    def __aiter__(self) -> _Watch:
        return self

    async def __anext__(self) -> SandboxLost:
        lost = await self._queue.get()
        if lost is None:
            self._queue.put_nowait(None)  # it stays ended
            raise StopAsyncIteration
        return lost


def _handle(slot: Slot[_Running]) -> _Running:
    if slot.handle is None:  # the pool hands out ready ones only
        raise SandboxUnavailableError("the sandbox ended while it was claimed")
    return slot.handle


async def _healthy(client: AgentClient) -> str:
    """Ask until the agent is ready (empty) or has given up (why). The socket exists before the agent does."""
    while True:
        try:
            health = await client.health()
        except (AgentError, AgentUnavailable) as error:
            trouble = str(error)  # the process's own end, if that is why, says more
            log.debug("an agent does not answer yet: %s", trouble)
        else:
            if health.status == "ready":
                return ""
            if health.status == "failed":
                return health.detail or "the runtime failed"
        await asyncio.sleep(HEALTH_SECONDS)
