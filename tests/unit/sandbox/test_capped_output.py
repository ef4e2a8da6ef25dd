"""Output caps: the head at once, the tail at the end, the middle counted, whatever the bytes are."""

from __future__ import annotations

import tracemalloc

import pytest

from interpreter_sandbox.runtime.capped_output import CappedOutput


@pytest.mark.parametrize("size", [1, 3, 5, 64])
def test_text_below_the_limit_is_unchanged(size: int) -> None:
    text = "naïve ☃ 𝄞\n" * 20
    data, output = text.encode(), CappedOutput(1000)
    assert len(data) < 1000
    parts = [output.feed(data[i : i + size]) for i in range(0, len(data), size)]
    assert "".join(parts) + output.finish() == text
    assert output.dropped_bytes == 0


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_head_and_tail_are_kept_and_the_middle_is_counted(size: int) -> None:
    data, output = b"".join(b"%05d\n" % i for i in range(1000)), CappedOutput(100)
    head = "".join(output.feed(data[i : i + size]) for i in range(0, len(data), size))
    rest = output.finish()
    assert head == data[:50].decode()
    assert rest.endswith(data[-50:].decode())
    assert output.dropped_bytes == len(data) - 100
    assert str(output.dropped_bytes) in rest


@pytest.mark.parametrize("limit", range(1, 40))
def test_a_cut_inside_a_character_yields_no_broken_text_and_no_lost_count(limit: int) -> None:
    data, output = "é☃𝄞".encode() * 10, CappedOutput(limit)
    text = output.feed(data) + output.finish()
    kept = text.encode().replace("\ufffd".encode(), b"")
    assert text.isprintable() or "\n" in text
    assert output.dropped_bytes >= len(data) - limit
    assert len(kept) < limit + 80


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    output = CappedOutput(100)
    assert output.feed(b"a\xff\xfeb\xc3") + output.finish() == "a\ufffd\ufffdb\ufffd"


def test_a_limit_of_zero_keeps_nothing_and_counts_everything() -> None:
    output = CappedOutput(0)
    assert output.feed(b"abc") == ""
    assert "3 bytes dropped" in output.finish()


@pytest.mark.attack("RES12")
def test_memory_stays_flat_under_a_flood() -> None:
    output, chunk = CappedOutput(1 << 16), b"x" * (1 << 16)
    tracemalloc.start()
    for _ in range(5000):
        output.feed(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    output.finish()
    assert peak < 1 << 20
    assert output.dropped_bytes == 4999 << 16
