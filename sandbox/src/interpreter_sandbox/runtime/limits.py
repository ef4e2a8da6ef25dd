"""The worker's resource limits, set once after the fork and before any user code.

Hard limits equal the soft ones, so user code cannot raise them. ``RLIMIT_DATA`` counts private writable memory:
code gets a ``MemoryError`` and lives. What the runtime itself had mapped before the fork, most of it untouched, is
not charged to user code. Shared mappings pass the limit; the cgroup around the sandbox is the backstop.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STACK_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker may use; sizes in bytes."""

    memory_bytes: int = 4096 << 20
    max_processes: int = 128
    max_open_files: int = 1024
    max_file_bytes: int = 1 << 30
    workspace_bytes: int = 1 << 30

    def apply(self) -> None:
        """Set the limits of the calling process and of all that it starts."""
        for limit, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_DATA, _mapped_already() + self.memory_bytes),
            (resource.RLIMIT_FSIZE, self.max_file_bytes),
            (resource.RLIMIT_NOFILE, self.max_open_files),
            (resource.RLIMIT_NPROC, self.max_processes),
            (resource.RLIMIT_STACK, STACK_BYTES),
        ):
            ceiling = resource.getrlimit(limit)[1]
            allowed = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
            resource.setrlimit(limit, (allowed, allowed))


def _mapped_already() -> int:
    """The bytes that count towards ``RLIMIT_DATA`` in this process now."""
    data_pages = int(Path("/proc/self/statm").read_bytes().split()[5])
    return data_pages * resource.getpagesize()
