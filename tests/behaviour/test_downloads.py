"""Signed links: what they give, to whom, for how long; and headers that no file's content or name can break."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx2
import pytest

from support import rest
from support import server as real_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.server import Server


@pytest.fixture(scope="module")
def anonymous(server: Server) -> Iterator[httpx2.Client]:
    """Nobody: no key at all."""
    with httpx2.Client(base_url=server.url, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def big(http: httpx2.Client) -> Iterator[tuple[dict[str, Any], bytes]]:
    """A stored file of three chunks and a bit, and its bytes."""
    data = os.urandom((3 << 20) + 17)
    session_id = http.post("/api/sessions").json()["session_id"]
    http.put(f"/api/sessions/{session_id}/files/content", params={"path": "in.dat"}, content=data)
    [file] = rest.run(http, "import shutil; _ = shutil.copyfile('in.dat', 'big file.zip')", session_id)["files"]
    yield file, data
    http.delete(f"/api/sessions/{session_id}")


@pytest.mark.covers("F05", "R02")
def test_a_link_needs_no_key_and_gives_the_exact_bytes(
    anonymous: httpx2.Client, big: tuple[dict[str, Any], bytes]
) -> None:
    file, data = big
    answer = anonymous.get(file["url"])
    assert answer.status_code == 200
    assert answer.content == data
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert answer.headers["accept-ranges"] == "bytes"
    head = anonymous.head(file["url"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(data))
    bare = file["url"].replace("/big%20file.zip?", "?")
    assert anonymous.get(bare).content == data


@pytest.mark.covers("F05")
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1048570-1048590", 1048570, 1048591),
        ("bytes=3145728-", 3145728, None),
        ("bytes=-17", -17, None),
        ("bytes=5-999999999", 5, None),
    ],
)
def test_one_range(
    anonymous: httpx2.Client, big: tuple[dict[str, Any], bytes], asked: str, start: int, end: int | None
) -> None:
    file, data = big
    answer = anonymous.get(file["url"], headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == data[start:end]
    first = start if start >= 0 else len(data) + start
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(data)}"


@pytest.mark.covers("F05")
def test_conditions(anonymous: httpx2.Client, big: tuple[dict[str, Any], bytes]) -> None:
    file, data = big
    etag = anonymous.head(file["url"]).headers["etag"]
    unchanged = anonymous.get(file["url"], headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert anonymous.get(file["url"], headers={"If-None-Match": '"other"'}).status_code == 200
    same = anonymous.get(file["url"], headers={"Range": "bytes=0-9", "If-Range": etag})
    assert (same.status_code, same.content) == (206, data[:10])
    other = anonymous.get(file["url"], headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (other.status_code, len(other.content)) == (200, len(data))
    beyond = anonymous.get(file["url"], headers={"Range": f"bytes={len(data)}-"})
    rest.problem(beyond, 416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(data)}"


@pytest.mark.attack("UP06")
@pytest.mark.covers("F05")
def test_many_or_overlapping_ranges_are_not_amplified(
    anonymous: httpx2.Client, big: tuple[dict[str, Any], bytes]
) -> None:
    file, data = big
    for ranges in ("bytes=0-,0-,0-,0-", "bytes=" + ",".join(f"{n}-{n}" for n in range(1500))):
        answer = anonymous.get(file["url"], headers={"Range": ranges})
        assert (answer.status_code, len(answer.content)) == (200, len(data))


@pytest.mark.attack("UP09")
@pytest.mark.covers("F05")
def test_an_altered_link_is_refused(
    anonymous: httpx2.Client, big: tuple[dict[str, Any], bytes], http: httpx2.Client
) -> None:
    url = big[0]["url"]
    file_id = big[0]["id"]
    assert anonymous.head(url).status_code == 200
    last = url[-1]
    altered = [
        url.replace("big%20file.zip", "evil.html"),
        url.replace(file_id, "fil_" + "a" * 26),
        url.replace("expires=", "expires=9"),
        url[:-1] + ("0" if last != "0" else "1"),
        url.split("?")[0],
        url.split("&signature")[0],
        url.replace("signature=", "signature=%00"),
        url.replace("/big%20file.zip?", "?").replace(file_id, "fil_" + "a" * 26),
        url.replace("/big%20file.zip?", "?").replace(file_id, "%00"),
        url.replace("/big%20file.zip?", "?").replace("expires=", "expires=9"),
    ]
    for link in altered:
        for who in (anonymous, http):  # a key does not mend a link
            rest.problem(who.get(link), 403, "forbidden")


@pytest.mark.attack("UP09")
@pytest.mark.covers("F05")
def test_a_link_whose_session_was_deleted_is_gone(anonymous: httpx2.Client, http: httpx2.Client) -> None:
    made = rest.run(http, "_ = open('a.csv', 'w').write('1')", "")
    url = made["files"][0]["url"]
    assert anonymous.get(url).content == b"1"
    http.delete(f"/api/sessions/{made['session_info']['session_id']}")
    rest.problem(anonymous.get(url), 404, "not_found")


@pytest.mark.attack("UP04")
@pytest.mark.covers("F05")
@pytest.mark.parametrize(
    ("name", "content", "mime"),
    [
        ("x.html", "<script>fetch('/api/sessions')</script>", "text/html"),
        ("x.svg", "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "image/svg+xml"),
        ("x.pdf", "%PDF-1.7", "application/pdf"),
    ],
)
def test_what_a_browser_could_run_is_only_ever_downloaded(
    anonymous: httpx2.Client, http: httpx2.Client, session_id: str, name: str, content: str, mime: str
) -> None:
    [file] = rest.run(http, f"_ = open({name!r}, 'w').write({content!r})", session_id)["files"]
    answer = anonymous.get(file["url"])
    assert answer.text == content
    assert answer.headers["content-type"].split(";")[0] == mime
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "private" in answer.headers["cache-control"]


@pytest.mark.attack("UP05", "UP01")
@pytest.mark.covers("C06", "F05")
@pytest.mark.parametrize(
    "name",
    [
        "a\r\nSet-Cookie: evil=1\r\n\r\n.csv",
        'q".csv;filename="evil.exe.csv',
        "gpj.\u202e.csv",
        "%0d%0aX-Evil: 1.csv",
        "back\\slash.csv",
        "Umsätze 日本 🙂.csv",
        "n" * 200 + ".csv",
        "?a=b&c#d.csv",
    ],
)
def test_no_file_name_breaks_a_header_or_a_link(
    anonymous: httpx2.Client, http: httpx2.Client, session_id: str, name: str
) -> None:
    [file] = rest.run(http, f"_ = open({name!r}, 'w').write('honest')", session_id)["files"]
    answer = anonymous.get(file["url"])
    assert (answer.status_code, answer.text) == (200, "honest")
    assert "set-cookie" not in answer.headers
    assert "x-evil" not in answer.headers
    disposition = answer.headers["content-disposition"]
    assert disposition.isascii()
    assert unquote(disposition.rsplit("''", 1)[1]) == file["name"]
    assert not set(file["name"]) & set("\r\n\\/\u202e")


@pytest.mark.covers("F05")
@pytest.mark.attack("UP09")
def test_links_end_with_their_time_and_keep_working_over_a_restart(tmp_path: Path) -> None:
    """A server of its own: links that last three seconds, and the same key after it was started anew."""
    settings = {"SANDBOX_FILE_TTL_HOURS": str(4 / 3600), "WARM_POOL": "0"}
    server = real_server.start(tmp_path / "data", settings)
    try:
        with rest.client(server) as http:
            [file] = rest.run(http, "_ = open('a.csv', 'w').write('short')", "")["files"]
            assert http.get(file["url"]).text == "short"
            url = httpx2.URL(file["url"])
            while (answer := http.get(url)).status_code == 200:
                assert answer.text == "short"
            rest.problem(answer, 403, "forbidden")
            assert "expired" in answer.json()["detail"]
            assert http.get("/api/files").json()["files"] == []
    finally:
        server.stop()
    lasting = real_server.start(tmp_path / "data", {"API_KEY": server.api_key, "WARM_POOL": "0"})
    try:
        with rest.client(lasting) as http:
            [file] = rest.run(http, "_ = open('b.csv', 'w').write('long')", "")["files"]
    finally:
        lasting.stop()
    again = real_server.start(tmp_path / "data", {"API_KEY": server.api_key, "WARM_POOL": "0"})
    try:
        path = httpx2.URL(file["url"]).raw_path.decode()
        assert httpx2.get(again.url + path).text == "long"
    finally:
        again.stop()
