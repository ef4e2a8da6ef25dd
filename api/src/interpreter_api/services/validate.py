"""Checks of what a caller sends, before anything is done with it. All pure; each raises a typed error.

Every message names the argument and what is allowed, so that a model can mend its call without guessing.
"""

from __future__ import annotations

import math
import re
import unicodedata

from interpreter_api.errors import InvalidArgumentError, TooLargeError

MAX_CODE_BYTES = 10 << 20
MAX_NAME_CHARS = 200
MAX_DESCRIPTION_CHARS = 2000
MAX_PATH_BYTES = 1024
MAX_PAGE = 1000
_EXECUTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def encodable(argument: str, value: str) -> bytes:
    """``value`` as UTF-8; refused where it holds half of a surrogate pair, which is no text."""
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{argument} is not valid Unicode: a lone surrogate (U+{ord(value[error.start]):04X}) at character "
            f"{error.start}.",
            argument=argument,
        ) from None


def check_code(code: str, argument: str = "code") -> None:
    """Code to run: some text, valid Unicode, no NUL, at most :data:`MAX_CODE_BYTES` bytes of UTF-8."""
    if not code.strip():
        raise InvalidArgumentError(f"{argument} is empty.", remedy="Send the Python code to run.", argument=argument)
    size = len(encodable(argument, code))
    if size > MAX_CODE_BYTES:
        raise TooLargeError(
            f"{argument} has {size} bytes; the limit is {MAX_CODE_BYTES}.",
            remedy="Put the data into a file of the session and read it from code.",
            argument=argument,
            limit_bytes=MAX_CODE_BYTES,
        )
    if (position := code.find("\0")) >= 0:
        raise InvalidArgumentError(
            f"{argument} holds a NUL character at position {position}; Python source cannot.",
            remedy=r"Write it as the escape '\x00' inside a string literal.",
            argument=argument,
        )


def check_timeout(timeout: float | None, maximum: float) -> float:
    """The seconds an execution may take: ``maximum`` where none is given."""
    if timeout is None:
        return maximum
    if not math.isfinite(timeout) or not 0 < timeout <= maximum:
        raise InvalidArgumentError(
            f"timeout is {timeout:g} seconds; it must be more than 0 and at most {maximum:g}.",
            argument="timeout",
            maximum_seconds=maximum,
        )
    return float(timeout)


def check_execution_id(execution_id: str) -> None:
    """An idempotency key of the caller's: 1 to 64 of ``A-Z a-z 0-9 _ -``."""
    if not _EXECUTION_ID.match(execution_id):
        raise InvalidArgumentError(
            "execution_id must be 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'.", argument="execution_id"
        )


def _check_text(argument: str, value: str, limit: int) -> None:
    encodable(argument, value)
    if len(value) > limit:
        raise InvalidArgumentError(
            f"{argument} has {len(value)} characters; the limit is {limit}.", argument=argument, maximum=limit
        )
    for character in value:
        if unicodedata.category(character) in {"Cc", "Zl", "Zp"} and not (
            argument == "description" and character in "\n\t"
        ):
            raise InvalidArgumentError(f"{argument} holds a control character ({character!r}).", argument=argument)


def check_session_name(name: str) -> None:
    """A session's name is for people: up to 200 characters, nothing that could be read as a path."""
    _check_text("name", name, MAX_NAME_CHARS)
    if "/" in name or "\\" in name or ".." in name:
        raise InvalidArgumentError("name must not hold '/', '\\' or '..': it is a name, not a path.", argument="name")


def check_description(description: str) -> None:
    """Up to 2000 characters; lines are allowed."""
    _check_text("description", description, MAX_DESCRIPTION_CHARS)


def workspace_path(path: str, *, allow_root: bool = False) -> str:
    """A path inside the workspace in its plain form (``a/b.csv``); refused where it could leave it.

    ``/workspace/a.csv`` is what code inside the sandbox calls it, so that prefix is understood and dropped.
    """
    if len(encodable("path", path)) > MAX_PATH_BYTES:
        raise InvalidArgumentError(f"path is longer than {MAX_PATH_BYTES} bytes.", argument="path")
    if "\0" in path:
        raise InvalidArgumentError("path holds a NUL character.", argument="path")
    if path == "/workspace" or path.startswith("/workspace/"):
        path = path.removeprefix("/workspace").lstrip("/")
    if path.startswith("/"):
        raise InvalidArgumentError(
            "path must be relative to the session's workspace, without a leading '/'.", argument="path"
        )
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise InvalidArgumentError("path must not hold '..': it stays inside the session's workspace.", argument="path")
    if not parts and not allow_root:
        raise InvalidArgumentError("path is empty: name a file of the workspace.", argument="path")
    return "/".join(parts)


def check_limit(limit: int, maximum: int = MAX_PAGE) -> int:
    """The size of a page."""
    if not 1 <= limit <= maximum:
        raise InvalidArgumentError(f"limit is {limit}; it must be 1 to {maximum}.", argument="limit", maximum=maximum)
    return limit
