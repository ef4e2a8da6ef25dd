"""Frames on the socket between the agent and a worker: four bytes of length, then one JSON object.

The agent reads bytes that user code can write, so :class:`Decoder` trusts nothing: a frame's length is checked
before a byte of it is kept, and JSON that is too deep, too long or not an object raises :class:`WireError`. Whoever
sends such a thing is killed; there is no way to resynchronise.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Final

Message = dict[str, object]

MAX_FRAME_BYTES: Final = 64 << 20
_LENGTH: Final = struct.Struct(">I")
HEADER_BYTES: Final = _LENGTH.size


class WireError(ValueError):
    """The other side sent something that is not a frame."""


# Bound once: user code may replace anything in the json module of its own process.
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=str).encode


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


_decode = json.JSONDecoder(parse_float=_finite, parse_constant=lambda _: None).decode


def encode(message: Message) -> bytes:
    """One frame. What JSON does not know is sent as its ``str``."""
    body = _encode(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def decode_body(body: bytes | bytearray) -> Message:
    """The object in a frame's body; NaN and infinities become ``None``, as JSON has no such numbers."""
    try:
        message = _decode(body.decode("utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise WireError(f"not JSON: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise WireError("a frame is a JSON object")
    return message


def frame_length(header: bytes | bytearray | memoryview) -> int:
    """The length that a frame's first four bytes announce."""
    return int(_LENGTH.unpack(header[:HEADER_BYTES])[0])


class Decoder:
    """Bytes in, messages out; holds at most one unfinished frame of ``max_frame_bytes``."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        """``max_frame_bytes`` may be changed between frames."""
        self.max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete with ``data``; :class:`WireError` where one is not a frame."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= HEADER_BYTES:
            length = frame_length(self._buffer)
            if length > self.max_frame_bytes:
                raise WireError(f"a frame of {length} bytes; the limit is {self.max_frame_bytes}")
            end = HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            messages.append(decode_body(self._buffer[HEADER_BYTES:end]))
            del self._buffer[:end]
        return messages
