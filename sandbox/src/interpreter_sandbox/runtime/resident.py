"""Giving back what only the imports needed: pages of libraries that the zygote has mapped and will not touch again.

Importing pandas and its kin reads through some 60 MB of shared libraries. Their unwritten pages are the page cache's,
but they count as this process's for as long as they are mapped, and a fork does not even pass them on: a worker maps
what it uses by itself. So the zygote drops the mappings of such pages; touching one again is a minor fault.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

_MADV_DONTNEED: Final = 4


def drop_clean_file_pages() -> int:
    """Unmap the clean pages of this process's file mappings; returns the bytes that were resident in them.

    Only mappings without a single private (written) page are touched: dropping one of those would lose the write.
    Where ``/proc`` is not readable nothing is dropped.
    """
    try:
        text = Path("/proc/self/smaps").read_text()
    except OSError:
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    dropped = 0
    for start, end, resident in _clean_mappings(text):
        if madvise(start, end - start, _MADV_DONTNEED) == 0:
            dropped += resident
    return dropped


def _clean_mappings(smaps: str) -> list[tuple[int, int, int]]:
    """(start, end, resident bytes) of the private file mappings in ``smaps`` that hold no written page."""
    found: list[tuple[int, int, int]] = []
    span: tuple[int, int] | None = None
    resident = 0
    for line in smaps.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            is_private_file = len(words) > 5 and words[1].endswith("p") and words[5].startswith("/")
            low, _, high = words[0].partition("-")
            span, resident = (int(low, 16), int(high, 16)) if is_private_file else None, 0
        elif words[0] == "Rss:":
            resident = int(words[1]) << 10
        elif words[0] == "Anonymous:" and span is not None and words[1] == "0" and resident:
            found.append((*span, resident))
    return found
