"""HTTP byte ranges (RFC 9110, 14): one range is honoured, several are not (no amplification)."""

from __future__ import annotations

import re

from interpreter_api.errors import RangeNotSatisfiableError

_ONE_RANGE = re.compile(r"bytes= *(\d{0,19})-(\d{0,19}) *\Z", re.IGNORECASE | re.ASCII)


def parse_range(header: str | None, size: int) -> tuple[int, int]:
    """``(start, end)``, end exclusive, of what to send of ``size`` bytes.

    The whole file where there is no range, one that is not understood, or several: a server may ignore a range,
    and answering many small ones costs more than it is asked for. ``RangeNotSatisfiableError`` for one beyond
    the end.
    """
    match = _ONE_RANGE.match(header) if header else None
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if first == "":
        start, end = max(size - int(last), 0), size
    else:
        start = int(first)
        end = min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return 0, size  # not a valid range: to be ignored
    if start >= size or start >= end:
        raise RangeNotSatisfiableError(f"The range lies outside the file's {size} bytes.", size=size)
    return start, end


def etag_matches(header: str | None, etag: str) -> bool:
    """If-None-Match: a list of tags, or ``*``; weak and strong tags compare alike there."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
