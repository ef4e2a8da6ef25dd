"""FS03-FS08: the server, reading and writing for a client, does not leave the workspace, whatever lies in it."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from support.attack import SYSTEM_PYTHON, Session, Target, canary

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE_PATHS = [
    "../secret",
    "../../../../../../../../etc/passwd",
    "/etc/passwd",
    "a/../../etc/passwd",
    "./../etc/passwd",
    "..",
    "/",
    "//etc/passwd",
    "..\\..\\etc\\passwd",
    "a/./../../proc/1/environ",
    "a\x00b",
    "a" * 5000,
    "\u202e../etc/passwd",
]


@pytest.mark.attack("FS03", "UP01")
@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=lambda p: ascii(p)[1:21])
def test_a_path_argument_never_leaves_the_workspace(session: Session, target: Target, path: str) -> None:
    """Control: the same calls with an honest path work, so a refusal below is about the path."""
    url = f"/api/sessions/{session.id}/files"
    content = f"{url}/content"
    assert target.request("PUT", content, params={"path": "honest.txt"}, content=b"honest").status_code < 300
    assert b"honest" in target.request("GET", content, params={"path": "honest.txt"}).content
    before = session.run("import os; sorted(os.listdir('/'))")
    for answer in (
        target.request("GET", content, params={"path": path}),
        target.request("PUT", content, params={"path": path}, content=b"canary"),
        target.request("DELETE", url, params={"path": path}),
        target.request("GET", url, params={"path": path}),
    ):
        if path == "\u202e../etc/passwd" or "\\" in path:
            # Odd, but names that stay inside: what matters is that they do.
            assert answer.status_code < 500, answer.text
        else:
            assert 400 <= answer.status_code < 500, (answer.request.method, answer.text)
        assert "root:" not in answer.text
    # The same as part of the url, encoded so that no client tidies it up.
    for prefix in ("/charts/" + session.id, "/dl/fil_aaaaaaaaaaaaaaaaaaaaaaaaaa", f"/api/sessions/{session.id}"):
        answer = target.request("GET", f"{prefix}/{quote(path, safe='').replace('.', '%2e')}")
        assert 300 <= answer.status_code < 500, answer.text
        assert "root:" not in answer.text
    after = session.run("import os; sorted(os.listdir('/'))")
    assert after["result"] == before["result"]


@pytest.mark.attack("FS04")
def test_a_symlink_is_not_followed_by_the_server(session: Session, target: Target, tmp_path: Path) -> None:
    """Control: a reader that just opens the path gets the canary through the link."""
    outside = tmp_path / "outside"
    outside.write_text(canary())
    (tmp_path / "link.csv").symlink_to(outside)
    assert (tmp_path / "link.csv").read_text().startswith("pi-canary-")

    marker = canary()
    ran = session.run(
        f"import os\nopen('/tmp/outside.txt', 'w').write({marker!r})\n"
        "os.symlink('/tmp/outside.txt', 'link.csv')\n"
        "os.symlink('/etc/passwd', 'passwd.csv')\nos.symlink('/proc/self/environ', 'environ.txt')\n"
        "os.symlink('/proc/1/environ', 'environ1.txt')\nos.symlink('/', 'folder')\nos.symlink('/tmp', 'tmp')\n"
        "open('/tmp/outside.txt').read()"
    )
    assert marker in ran["result"], "void: the code itself must be able to read it"
    assert not ran["files"], "a link must not be stored as a file"
    content = f"/api/sessions/{session.id}/files/content"
    for path in (
        "link.csv",
        "passwd.csv",
        "environ.txt",
        "environ1.txt",
        "folder/etc/passwd",
        "folder/proc/1/environ",
        "tmp/outside.txt",
    ):
        answer = target.request("GET", content, params={"path": path})
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert marker not in answer.text
    for path in ("folder", "tmp"):
        answer = target.request("GET", f"/api/sessions/{session.id}/files", params={"path": path})
        assert 400 <= answer.status_code < 500, (path, answer.text)
    session.run("import os\nfor p in os.listdir('.'):\n    os.path.islink(p) and os.unlink(p)")
    session.assert_usable()


SWAPPER = """
import os, threading
os.makedirs('swap', exist_ok=True)
open('swap/file.txt', 'w').write('honest' * 2000)
os.path.lexists('swap/other') or os.symlink({outside!r}, 'swap/other')
import ctypes
_libc = ctypes.CDLL(None)
_stop = threading.Event()
def _swap():
    while not _stop.is_set():
        _libc.syscall({renameat2}, -100, b'swap/file.txt', -100, b'swap/other', 2)  # RENAME_EXCHANGE
threading.Thread(target=_swap, daemon=True).start()
"""
CARELESS_READER = """
import os, time
end = time.monotonic() + 20
while time.monotonic() < end:
    if not os.path.islink('swap/file.txt'):
        text = open('swap/file.txt').read()
        if 'honest' not in text:
            print(text)
            break
"""


@pytest.mark.attack("FS05")
def test_a_file_swapped_for_a_symlink_during_downloads(session: Session, target: Target, tmp_path: Path) -> None:
    """Control: a reader that checks first and opens then is tricked within seconds."""
    number = 316 if os.uname().machine == "x86_64" else 276
    outside = tmp_path / "outside"
    outside.write_text(canary())
    tricked = subprocess.run(
        [SYSTEM_PYTHON, "-c", SWAPPER.format(outside=str(outside), renameat2=number) + CARELESS_READER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert tricked.stdout.strip() == outside.read_text(), "void: the race was never won"

    marker = canary()
    session.run(f"open('/tmp/swapped.txt', 'w').write({marker!r})")
    session.run(SWAPPER.format(outside="/tmp/swapped.txt", renameat2=number))
    served = refused = 0
    for _ in range(150):
        answer = target.request("GET", f"/api/sessions/{session.id}/files/content", params={"path": "swap/file.txt"})
        assert marker not in answer.text
        served += answer.status_code == 200
        refused += 400 <= answer.status_code < 500
        assert answer.status_code < 500, answer.text
    session.run("_stop.set()")
    assert served
    assert refused, "void: the downloads never met the link"
    session.assert_usable()


@pytest.mark.attack("FS06")
def test_a_folder_replaced_by_a_symlink_does_not_move_uploads(session: Session, target: Target, tmp_path: Path) -> None:
    """Control: a writer that just opens the path writes through the link."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "inbox").symlink_to(tmp_path / "outside")
    (tmp_path / "inbox" / "data.csv").write_text("canary")
    assert (tmp_path / "outside" / "data.csv").exists()

    session.run(
        "import os, shutil\nos.makedirs('/tmp/outside6', exist_ok=True)\nos.symlink('/tmp/outside6', 'inbox')\n"
        "open('/tmp/outside6/kept.txt', 'w').write('kept')\nos.symlink('/tmp/outside6/kept.txt', 'kept.txt')"
    )
    content = f"/api/sessions/{session.id}/files/content"
    through = target.request("PUT", content, params={"path": "inbox/data.csv"}, content=b"canary")
    assert 400 <= through.status_code < 500, through.text
    target.request("PUT", content, params={"path": "kept.txt"}, content=b"replaced")
    url = content.removesuffix("/content")
    deleted = target.request("DELETE", url, params={"path": "inbox/kept.txt"})
    assert 400 <= deleted.status_code < 500, deleted.text
    assert target.request("DELETE", url, params={"path": "inbox"}).status_code < 300  # the link, not what it leads to
    found = session.run("sorted(os.listdir('/tmp/outside6')), open('/tmp/outside6/kept.txt').read()")
    assert found["result"] == "(['kept.txt'], 'kept')"
    session.assert_usable()


@pytest.mark.attack("FS08")
def test_fifos_devices_and_sockets_are_refused_at_once(session: Session, target: Target, tmp_path: Path) -> None:
    """Control: a reader that just opens the FIFO hangs."""
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([SYSTEM_PYTHON, "-c", "open('pipe.csv').read()"], cwd=tmp_path, timeout=1, check=False)

    ran = session.run(
        "import os, socket\nos.mkfifo('pipe.csv')\n_s = socket.socket(socket.AF_UNIX)\n_s.bind('socket.csv')\n"
        "try:\n    os.mknod('device.csv', 0o20666, os.makedev(1, 5))\nexcept OSError as e:\n    print(e)\n"
        "os.symlink('/dev/zero', 'zero.csv')\nos.makedirs('dir.csv', exist_ok=True)"
    )
    assert ran["success"], ran
    assert "pipe.csv" not in {file["name"] for file in ran["files"]}
    for path in ("pipe.csv", "socket.csv", "device.csv", "zero.csv", "dir.csv"):
        started = time.monotonic()
        answer = target.request("GET", f"/api/sessions/{session.id}/files/content", params={"path": path})
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert time.monotonic() - started < 1, path
    session.run("import os\nfor p in ('pipe.csv', 'socket.csv', 'zero.csv'):\n    os.unlink(p)")
    session.assert_usable()
