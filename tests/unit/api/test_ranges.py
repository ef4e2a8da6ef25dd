"""Byte ranges: one is honoured, many are not, none can ask for more than the file."""

from __future__ import annotations

import pytest

from interpreter_api.errors import RangeNotSatisfiableError
from interpreter_api.services.ranges import etag_matches, parse_range


@pytest.mark.covers("F05")
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-100000", (90, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("Bytes=1-2", (1, 3)),
    ],
)
def test_one_range(header: str | None, expected: tuple[int, int]) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.attack("UP06")
@pytest.mark.parametrize(
    "header",
    [
        "bytes=0-1,2-3",
        "bytes=" + ",".join(["0-99"] * 10_000),
        "bytes=5-2",
        "bytes=-",
        "bytes=a-b",
        "lines=1-2",
        "bytes=1-2\n",
        "bytes=²-3",
        "bytes=" + "9" * 5000 + "-",
        "",
    ],
)
def test_several_ranges_or_nonsense_are_answered_with_the_whole_file_once(header: str) -> None:
    assert parse_range(header, 100) == (0, 100)


@pytest.mark.covers("F05")
@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0)]
)
def test_a_range_beyond_the_end_is_refused_with_the_size(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiableError) as caught:
        parse_range(header, size)
    assert caught.value.details == {"size": size}


@pytest.mark.covers("F05")
def test_etags() -> None:
    assert etag_matches('"a"', '"a"')
    assert etag_matches('"b", W/"a"', '"a"')
    assert etag_matches("*", '"a"')
    assert not etag_matches(None, '"a"')
    assert not etag_matches('"ab"', '"a"')
