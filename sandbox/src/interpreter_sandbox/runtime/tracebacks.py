"""An exception as bounded plain text: what a client reads in ``ErrorInfo``.

The standard library's formatter, not IPython's: it runs no pygments and no source analysis, so that an error costs
microseconds and its size can be bounded. Frames of the machinery above the user's code are left out; of the library
frames below it the last two stay.
"""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path
from typing import Final

import IPython

CELL_PREFIX: Final = "<cell "
"""Cells compile under ``<cell N>``; no file of a library starts like this."""

MAX_LINES: Final = 200
MAX_BYTES: Final = 64 << 10
MAX_LINE_CHARS: Final = 2_000
MAX_MESSAGE_CHARS: Final = 4_000
KEPT_LIBRARY_FRAMES: Final = 2

_MACHINERY: Final = tuple(str(Path(file).parent) + os.sep for file in (__file__, IPython.__file__))
"""Folders whose frames tell a user nothing."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def strip_ansi(text: str) -> str:
    """``text`` without terminal escapes."""
    return _ANSI.sub("", text) if "\x1b" in text else text


def cut(text: str, limit: int) -> str:
    """``text`` in at most about ``limit`` characters: its head and tail, with the number of those left out between."""
    if len(text) <= limit:
        return text
    head = limit * 3 // 4
    tail = limit - head
    return f"{text[:head]} … [{len(text) - limit:,} characters left out] … {text[-tail:]}"


def message_of(error: BaseException) -> str:
    """``str(error)``, bounded; never raises but for an interrupt, whatever the exception's own ``__str__`` does."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # noqa: BLE001 - user code: it may raise anything, SystemExit included
        return f"<the message could not be made: {type(broken).__name__} in __str__>"
    return cut(strip_ansi(text), MAX_MESSAGE_CHARS)


def lines_of(error: BaseException, workspace: Path) -> list[str]:
    """The traceback's lines, without newlines: at most :data:`MAX_LINES`, :data:`MAX_BYTES` in all."""
    try:
        report = traceback.TracebackException(type(error), error, error.__traceback__, lookup_lines=False, compact=True)
        _trim(report, str(workspace))
        text = "".join(cut(part, MAX_BYTES) for part in report.format())
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # noqa: BLE001 - the formatter calls the user's __str__, __repr__ and __notes__
        return [
            f"{type(error).__name__}: {message_of(error)}",
            f"<no traceback: {type(broken).__name__} while formatting>",
        ]
    return _bound(strip_ansi(text).splitlines())


def _trim(report: traceback.TracebackException, workspace: str) -> None:
    """Leave the user's frames and the last library ones, in the exception and in those it came from."""
    queue: list[traceback.TracebackException | None] = [report]
    seen: set[int] = set()
    while queue:
        one = queue.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        users = [index for index, frame in enumerate(one.stack) if _is_users(frame.filename, workspace)]
        if users:
            below = [frame for frame in one.stack[users[-1] + 1 :] if not frame.filename.startswith(_MACHINERY)]
            one.stack[:] = one.stack[users[0] : users[-1] + 1] + below[-KEPT_LIBRARY_FRAMES:]
        else:
            # a magic or a refused cell, all machinery; or the library's own error that another one came from
            one.stack[:] = [] if one is report else one.stack[-KEPT_LIBRARY_FRAMES:]
        queue += [one.__cause__, one.__context__, *(one.exceptions or ())]


def _is_users(filename: str, workspace: str) -> bool:
    return filename.startswith((CELL_PREFIX, workspace + "/")) or filename in {"<string>", "<timed exec>"}


def _bound(lines: list[str]) -> list[str]:
    lines = [cut(line, MAX_LINE_CHARS) for line in lines]
    if len(lines) > MAX_LINES:
        head, tail = MAX_LINES // 2, MAX_LINES // 2 - 1
        lines = [*lines[:head], f"… [{len(lines) - head - tail:,} lines left out] …", *lines[-tail:]]
    while len(lines) > 8 and sum(map(len, lines)) > MAX_BYTES // 4:  # a character has at most four bytes
        middle = len(lines) // 2
        lines = [*lines[: middle - 4], "… [lines left out] …", *lines[middle + 4 :]]
    return lines
