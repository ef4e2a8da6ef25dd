"""Frames between agent and worker: honest ones in any pieces, hostile ones refused before they cost memory."""

from __future__ import annotations

import struct

import pytest

from interpreter_sandbox.runtime import wire


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_messages_survive_any_cut(size: int) -> None:
    messages: list[wire.Message] = [{"a": 1}, {"text": "ü\ud800\n"}, {}, {"list": [None, True, 1.5]}]
    data = b"".join(wire.encode(message) for message in messages)
    decoder = wire.Decoder()
    received = [message for i in range(0, len(data), size) for message in decoder.feed(data[i : i + size])]
    assert received == messages


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    decoder = wire.Decoder(max_frame_bytes=1000)
    assert decoder.feed(frame(b'{"x":"' + b"y" * 900 + b'"}')) == [{"x": "y" * 900}]
    with pytest.raises(wire.WireError, match="4294967295"):
        decoder.feed(b"\xff\xff\xff\xff")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b"{'a': 1}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 200_000,
        b'{"a":' + b"9" * 100_000 + b"}",
    ],
    ids=["empty", "null", "list", "string", "cut", "not utf-8", "python", "deep", "deep lists", "huge number"],
)
@pytest.mark.attack("RES19")
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.Decoder().feed(frame(body))


def test_numbers_that_json_does_not_have_become_null() -> None:
    assert wire.Decoder().feed(frame(b'{"a":NaN,"b":-Infinity,"c":1e999,"d":1.5}')) == [
        {"a": None, "b": None, "c": None, "d": 1.5}
    ]


def test_what_json_does_not_know_is_sent_as_text() -> None:
    assert wire.Decoder().feed(wire.encode({"a": {1}})) == [{"a": "{1}"}]
