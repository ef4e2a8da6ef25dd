"""Signed links and the names in them: nothing of a link can be changed, no name can break a header."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from interpreter_api.errors import ForbiddenError
from interpreter_api.services.ids import new_id
from interpreter_api.services.links import LinkSigner, content_disposition, mime_type_of, safe_name

SIGNER = LinkSigner(b"k" * 32, "https://pi.example")
SOON = datetime.now(UTC) + timedelta(hours=1)


def parts(url: str) -> dict[str, str]:
    split = urlsplit(url)
    _, _, file_id, name = split.path.split("/")
    query = parse_qs(split.query)
    return {
        "file_id": file_id,
        "name": unquote(name),
        "expires": query["expires"][0],
        "signature": query["signature"][0],
    }


@pytest.mark.covers("F05")
@pytest.mark.parametrize("name", ["a.csv", "Umsätze & mehr.xlsx", "100%.png", "a?b#c.txt", "日本.md"])
def test_a_link_that_was_not_changed_is_accepted(name: str) -> None:
    url = SIGNER.url("fil_x", name, SOON)
    assert url.startswith("https://pi.example/dl/fil_x/")
    assert parts(url)["name"] == name
    SIGNER.check(**parts(url))


@pytest.mark.attack("UP09")
@pytest.mark.covers("F05")
@pytest.mark.parametrize(
    "change",
    [
        {"file_id": "fil_y"},
        {"name": "b.csv"},
        {"expires": "99999999999"},
        {"signature": "0" * 64},
        {"signature": ""},
        {"signature": "é"},
        {"signature": "\udc80"},
        {"expires": ""},
        {"expires": "x"},
        {"name": "\udc80"},
    ],
)
def test_a_link_with_any_part_changed_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ForbiddenError):
        SIGNER.check(**(parts(SIGNER.url("fil_x", "a.csv", SOON)) | change))


@pytest.mark.attack("UP09")
def test_parts_cannot_be_shifted_into_each_other() -> None:
    link = parts(SIGNER.url("fil_x", "a.csv", SOON))
    with pytest.raises(ForbiddenError):
        SIGNER.check(f"{link['file_id']}\na.csv", link["expires"], "", link["signature"])


@pytest.mark.attack("UP09")
def test_an_expired_link_is_refused_and_says_so() -> None:
    url = SIGNER.url("fil_x", "a.csv", datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(ForbiddenError, match="expired"):
        SIGNER.check(**parts(url))


@pytest.mark.attack("UP09")
def test_another_servers_key_signs_nothing_here() -> None:
    with pytest.raises(ForbiddenError):
        SIGNER.check(**parts(LinkSigner(b"j" * 32, "https://pi.example").url("fil_x", "a.csv", SOON)))


def test_the_key_is_in_no_repr() -> None:
    assert "kkk" not in repr(SIGNER)


@pytest.mark.attack("UP05")
@pytest.mark.parametrize(
    "name",
    [
        "a\r\nSet-Cookie: x=1\r\n\r\n<html>.csv",
        'a".csv; filename="evil.exe',
        "invoice\u202efdp.exe",
        "\x00\x1b[2J.txt",
        "a\\b.csv",
        "../../etc/passwd",
        "x" * 5000 + ".csv",
        "é" * 5000 + ".csv",
        "%0d%0a.csv",
        "..",
        "",
        "\udc80.csv",
    ],
)
def test_no_name_breaks_out_of_content_disposition(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert len(header) < 1200
    plain = header.split('filename="', 1)[1].split('"; filename*=', 1)[0]
    assert '"' not in plain
    assert "\\" not in plain
    assert "%" not in plain
    encoded = header.rsplit("filename*=UTF-8''", 1)[1]
    real = unquote(encoded, errors="strict")
    assert real == safe_name(name)
    assert real not in {"", ".", ".."}
    assert not set(real) & set("/\\\r\n\0\u202e")


def test_ordinary_names_stay_as_they_are() -> None:
    assert safe_name("out/Umsätze 2024.xlsx") == "Umsätze 2024.xlsx"
    assert content_disposition("a.csv") == "attachment; filename=\"a.csv\"; filename*=UTF-8''a.csv"


def test_a_long_name_keeps_its_ending() -> None:
    name = safe_name("é" * 500 + ".xlsx")
    assert name.endswith(".xlsx")
    assert len(name.encode()) <= 200


@pytest.mark.covers("C06")
def test_types_come_from_the_ending_alone() -> None:
    assert mime_type_of("a.PNG") == "image/png"
    assert mime_type_of("a.parquet") == "application/vnd.apache.parquet"
    assert mime_type_of("README") == "application/octet-stream"


@pytest.mark.covers("S02")
def test_ids_have_128_random_bits() -> None:
    ids = {new_id("ses_") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(i) == 30 and i.startswith("ses_") and i.isascii() and i == i.lower() for i in ids)
