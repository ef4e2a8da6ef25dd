"""The narrow seam for *where a sandbox runs*: one interface, one meaning, for every backend.

A backend hands out sandboxes and takes them back; it knows nothing of sessions' rows, users or files. The
behaviour suite (``tests/behaviour``) runs the same cases against every backend.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from interpreter_sandbox.client import AgentClient


@dataclass(frozen=True, slots=True)
class SandboxClass:
    """The limits of one kind of sandbox; on Kubernetes an ``InterpreterClass`` says them.

    Memory, workspace and file sizes in bytes, times in seconds.
    """

    name: str = "default"
    memory_bytes: int = 4096 << 20
    workspace_bytes: int = 1 << 30
    workspace_inodes: int = 100_000
    max_processes: int = 128
    max_open_files: int = 1024
    max_file_bytes: int = 1 << 30
    execution_timeout_seconds: float = 300.0
    idle_timeout_seconds: float = 1800.0
    warm_pool_min: int = 1


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One claimed sandbox. It serves one session and then dies; ``uid`` is never used twice."""

    uid: str
    class_name: str
    session_id: str
    client: AgentClient


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """One sandbox as the backend sees it, claimed or warm (``session_id`` is None)."""

    uid: str
    class_name: str
    session_id: str | None
    state: Literal["starting", "warm", "claimed", "dying"]


@dataclass(frozen=True, slots=True)
class SandboxLost:
    """A claimed sandbox ended without being released. ``reason`` is for the client to read."""

    uid: str
    session_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Posture:
    """How strong the isolation is here, for ``/health``: what a person who runs this must know.

    ``ready`` is False where code cannot be isolated: then nothing is executed and ``remedy`` is the fix.
    ``degraded`` names each layer that this machine lacks (no cgroup, say), with its consequence.
    """

    kind: Literal["bubblewrap", "kubernetes", "none"]
    ready: bool
    detail: str = ""
    remedy: str = ""
    degraded: list[str] = field(default_factory=list)


class SandboxBackend(Protocol):
    """What the services need of a place to run sandboxes.

    ``claim`` raises ``CapacityError`` where the limit is reached and ``SandboxUnavailableError`` where the
    machine cannot isolate; ``InvalidArgumentError`` for a class that does not exist. ``release`` of an unknown
    uid does nothing: releasing twice is harmless.
    """

    async def start(self) -> None:
        """Check the machine, fill the warm pool. Never raises for a machine that cannot isolate: see posture."""

    async def close(self) -> None:
        """End every sandbox; when this returns no process of theirs is left."""

    def classes(self) -> dict[str, SandboxClass]:
        """The classes by name; ``default`` is always there."""
        ...

    async def claim(self, class_name: str, session_id: str, owner: str) -> Sandbox:
        """Bind a warm sandbox, or a new one, to the session."""
        ...

    async def release(self, uid: str) -> None:
        """End the sandbox and everything in it."""

    async def list(self) -> list[SandboxInfo]:
        """Every sandbox of this backend."""
        ...

    def watch(self) -> AsyncIterator[SandboxLost]:
        """The sandboxes that die on their own, from now on."""
        ...

    def posture(self) -> Posture:
        """How this backend isolates, and what is missing."""
        ...
