"""stdout and stderr of one execution: decoded as they come, capped by bytes, in flat memory.

The first half of the limit is passed on at once; of what follows, the last half is kept and passed on at the end,
and the bytes between are counted. Invalid UTF-8 becomes replacement characters.
"""

from __future__ import annotations

import codecs

_Decoder = codecs.getincrementaldecoder("utf-8")


class CappedOutput:
    """One stream. ``feed`` and ``finish`` give the text to pass on; ``dropped_bytes`` is what was cut out."""

    def __init__(self, limit_bytes: int) -> None:
        """``limit_bytes``: head and tail together."""
        self.dropped_bytes = 0
        self._head_left = limit_bytes - limit_bytes // 2
        self._tail_size = limit_bytes // 2
        self._tail = bytearray()
        self._decoder = _Decoder("replace")

    def feed(self, data: bytes) -> str:
        """What of ``data`` belongs to the head, as text; an unfinished character waits for its rest."""
        head = data[: self._head_left]
        self._head_left -= len(head)
        if len(head) < len(data):
            self._keep(memoryview(data)[len(head) :])
        return self._decoder.decode(head)

    def finish(self) -> str:
        """The end of the stream: an unfinished character, the note on what was cut, and the tail."""
        self._trim()
        if not self.dropped_bytes:
            return self._decoder.decode(bytes(self._tail), final=True)
        start = 0
        while start < min(3, len(self._tail)) and self._tail[start] & 0xC0 == 0x80:
            start += 1  # the rest of a character whose beginning was cut
        self.dropped_bytes += start
        text = self._decoder.decode(b"", final=True)
        tail = self._tail[start:].decode("utf-8", "replace")
        return f"{text}\n[... {self.dropped_bytes} bytes dropped: over the output limit ...]\n{tail}"

    def _keep(self, data: memoryview) -> None:
        surplus = len(data) - self._tail_size
        if surplus > 0:
            self.dropped_bytes += len(self._tail) + surplus
            self._tail[:] = data[surplus:]
            return
        self._tail += data
        if len(self._tail) > 2 * self._tail_size:
            self._trim()

    def _trim(self) -> None:
        surplus = len(self._tail) - self._tail_size
        if surplus > 0:
            del self._tail[:surplus]
            self.dropped_bytes += surplus
