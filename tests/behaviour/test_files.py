"""Files in a session's workspace, and what code leaves behind: detected, stored, linked, or said why not."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import rest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2


def put(http: httpx2.Client, session_id: str, path: str, content: Any) -> httpx2.Response:
    return http.put(f"/api/sessions/{session_id}/files/content", params={"path": path}, content=content)


def get(http: httpx2.Client, session_id: str, path: str) -> httpx2.Response:
    return http.get(f"/api/sessions/{session_id}/files/content", params={"path": path})


def listing(http: httpx2.Client, session_id: str, **params: Any) -> dict[str, Any]:
    answer = http.get(f"/api/sessions/{session_id}/files", params=params)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


@pytest.mark.covers("F03", "R02")
def test_files_are_written_listed_read_and_deleted(http: httpx2.Client, session_id: str) -> None:
    data = os.urandom(3 << 20)
    written = put(http, session_id, "deep/er/data.bin", data)
    assert (written.status_code, written.json()["size"]) == (201, len(data))
    assert rest.value(http, "len(open('deep/er/data.bin', 'rb').read())", session_id) == str(len(data))
    read = get(http, session_id, "deep/er/data.bin")
    assert read.content == data
    assert read.headers["content-disposition"].startswith("attachment")
    assert read.headers["x-content-type-options"] == "nosniff"
    assert [f["path"] for f in listing(http, session_id)["files"]] == ["deep"]
    tree = listing(http, session_id, recursive=True)["files"]
    assert {(f["path"], f["is_dir"]) for f in tree} >= {("deep/er/data.bin", False)}
    deleted = http.delete(f"/api/sessions/{session_id}/files", params={"path": "deep"})
    assert deleted.json() == {"deleted": "deep"}
    assert listing(http, session_id)["files"] == []
    rest.problem(get(http, session_id, "deep/er/data.bin"), 404, "not_found")


@pytest.mark.covers("F03")
def test_a_body_without_a_length_is_streamed(http: httpx2.Client, session_id: str) -> None:
    def pieces() -> Iterator[bytes]:
        for n in range(64):
            yield bytes([n]) * 100_000

    assert put(http, session_id, "stream.bin", pieces()).status_code == 201
    digest = hashlib.sha256(b"".join(bytes([n]) * 100_000 for n in range(64))).hexdigest()
    assert hashlib.sha256(get(http, session_id, "stream.bin").content).hexdigest() == digest


@pytest.mark.covers("F03")
def test_pages_of_a_folder_show_each_file_once(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "for n in range(7): open(f'f{n}.dat', 'w').close()", session_id)
    seen, cursor = [], None
    while True:
        page = listing(http, session_id, limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [f["path"] for f in page["files"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == [f"f{n}.dat" for n in range(7)]


@pytest.mark.covers("F03")
@pytest.mark.attack("FS03")
@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../x", "a\x00b", "", "x" * 1025])
def test_a_path_out_of_the_workspace_is_refused_by_every_operation(
    http: httpx2.Client, session_id: str, path: str
) -> None:
    assert put(http, session_id, "honest.txt", b"ok").status_code == 201  # the same calls with an honest path work
    assert get(http, session_id, "honest.txt").content == b"ok"
    answers = [
        get(http, session_id, path),
        put(http, session_id, path, b"evil"),
        http.delete(f"/api/sessions/{session_id}/files", params={"path": path}),
    ]
    if path:
        answers.append(http.get(f"/api/sessions/{session_id}/files", params={"path": path}))
    for answer in answers:
        rest.problem(answer, 400, "invalid_argument")
        assert "root:" not in answer.text


@pytest.mark.covers("F03")
@pytest.mark.attack("FS04")
def test_a_link_out_of_the_workspace_is_not_followed(http: httpx2.Client, session_id: str) -> None:
    rest.run(
        http, "import os; os.symlink('/etc/passwd', 'link.txt'); os.symlink('/', 'root'); open('a', 'w')", session_id
    )
    own = rest.value(http, "open('/etc/passwd').read()", session_id)
    assert rest.value(http, "open('link.txt').read()", session_id) == own  # the code itself may follow it
    for path in ("link.txt", "root/etc/passwd"):
        answer = get(http, session_id, path)
        rest.problem(answer, 400, "invalid_argument")
        assert put(http, session_id, path, b"evil").status_code in {201, 400}  # replaces the link, or is refused
    assert rest.value(http, "open('/etc/passwd').read()", session_id) == own
    assert Path("/etc/passwd").read_text().startswith("root:")  # and the server's own is as it was


@pytest.mark.covers("F03")
@pytest.mark.attack("FS08")
def test_a_fifo_answers_at_once(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "import os; os.mkfifo('pipe.csv')", session_id)
    before = time.monotonic()
    rest.problem(get(http, session_id, "pipe.csv"), 400, "invalid_argument")
    assert time.monotonic() - before < 1


@pytest.mark.covers("F03")
def test_looking_into_a_session_without_a_sandbox_starts_none(http: httpx2.Client, session_id: str) -> None:
    assert listing(http, session_id)["files"] == []
    rest.problem(get(http, session_id, "a.txt"), 404, "not_found")
    assert http.get(f"/api/sessions/{session_id}").json()["sandbox"] == "none"


@pytest.mark.covers("C06", "F05")
def test_every_linked_type_is_stored_with_the_right_bytes(http: httpx2.Client, session_id: str) -> None:
    text = ["csv", "tsv", "json", "svg", "html", "txt", "md"]
    endings = [*text, "xlsx", "xls", "pdf", "png", "jpg", "jpeg", "zip", "parquet"]
    code = f"for e in {endings!r}:\n    open('f.' + e, 'w').write('data of ' + e)"
    files = {f["name"]: f for f in rest.run(http, code, session_id)["files"]}
    assert set(files) == {f"f.{e}" for e in endings}
    for ending in endings:
        file, data = files[f"f.{ending}"], f"data of {ending}".encode()
        assert (file["size"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert file["uri"] == f"kernel://{session_id}/f.{ending}"
        assert http.get(file["url"], headers={"Authorization": ""}).content == data
    listed = http.get("/api/files", params={"session_id": session_id}).json()["files"]
    assert {f["id"] for f in listed} == {f["id"] for f in files.values()}


@pytest.mark.covers("C06")
def test_what_is_not_linked_is_said(http: httpx2.Client, session_id: str) -> None:
    code = (
        "open('model.pkl', 'w').write('x')\n"
        "open('big.csv', 'wb').truncate((50 << 20) + 1)\n"
        "open('ok.csv', 'w').write('1')"
    )
    result = rest.run(http, code, session_id)
    assert [f["name"] for f in result["files"]] == ["ok.csv"]
    notes = " ".join(result["notes"])
    assert "model.pkl" in notes
    assert "big.csv" in notes
    assert "50 MiB" in notes


@pytest.mark.covers("C06")
def test_a_file_is_linked_when_it_changes_and_not_again(http: httpx2.Client, session_id: str) -> None:
    assert len(rest.run(http, "_ = open('a.csv', 'w').write('1')", session_id)["files"]) == 1
    assert rest.run(http, "1 + 1", session_id)["files"] == []
    changed = rest.run(http, "_ = open('a.csv', 'w').write('22')", session_id)["files"]
    assert [f["size"] for f in changed] == [2]


@pytest.mark.covers("C06")
@pytest.mark.attack("FS04")
def test_a_linked_name_that_points_outside_is_never_stored(http: httpx2.Client, session_id: str) -> None:
    result = rest.run(http, "import os; os.symlink('/etc/passwd', 'loot.txt'); os.mkfifo('p.csv')", session_id)
    assert result["success"] is True
    assert result["files"] == []


@pytest.mark.covers("C05")
def test_a_shown_and_a_saved_chart_are_each_stored_once(http: httpx2.Client, session_id: str) -> None:
    code = (
        "plt.plot([1, 2]); plt.show()\n"
        "fig, ax = plt.subplots(); ax.plot([2, 1]); fig.savefig('saved.png'); plt.close(fig)\n"
        "plt.figure(); plt.plot([3, 3])"
    )
    result = rest.run(http, code, session_id)
    assert sorted(c["origin"] for c in result["charts"]) == ["open", "savefig", "show"]
    [saved] = [c for c in result["charts"] if c["origin"] == "savefig"]
    assert [f["id"] for f in result["files"]] == [saved["id"]]
    assert len({c["id"] for c in result["charts"]}) == 3
    for chart in result["charts"]:
        picture = http.get(f"/charts/{session_id}/{chart['name']}")
        assert picture.status_code == 200
        assert picture.content.startswith(b"\x89PNG")
        assert hashlib.sha256(picture.content).hexdigest() == chart["sha256"]
    assert rest.value(http, "open('saved.png', 'rb').read().__len__()", session_id) == str(saved["size"])
    rest.problem(http.get(f"/charts/{session_id}/nothing.png"), 404, "not_found")


@pytest.mark.covers("C06")
def test_a_replayed_answer_has_the_same_links_and_they_work(http: httpx2.Client, session_id: str) -> None:
    key = "replay-" + base64.b32encode(os.urandom(5)).decode()
    code = "_ = open('r.csv', 'w').write('a,b')"
    first = rest.run(http, code, session_id, execution_id=key)
    again = rest.run(http, code, session_id, execution_id=key)
    assert again["files"] == first["files"]
    assert http.get(again["files"][0]["url"]).content == b"a,b"


@pytest.mark.covers("F03")
def test_a_listing_that_does_not_show_all_says_so(http: httpx2.Client, session_id: str) -> None:
    """A folder of more entries than an agent lists: every page says ``truncated``; a smaller one's does not."""
    rest.run(http, "import os\nos.mkdir('few')\nfor n in range(10_050): open(f'f{n:05}', 'w').close()", session_id)
    answer = http.get(f"/api/sessions/{session_id}/files", params={"limit": 1000}).json()
    assert answer["truncated"] is True
    few = http.get(f"/api/sessions/{session_id}/files", params={"path": "few"}).json()
    assert (few["files"], few["truncated"]) == ([], False)
