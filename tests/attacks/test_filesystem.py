"""FS: nothing of the host's files, descriptors and sockets is reached from a session, nor by the server for it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from support.attack import SANDBOX_PYTHON, SYSTEM_PYTHON, Session, Target, assert_contained, canary, control, payload

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def secret_file() -> Iterator[Path]:
    """A file of the host with a canary in it, where a person keeps such things."""
    folder = Path.home() / f".canary-{os.getpid()}"
    folder.mkdir(mode=0o700)
    path = folder / "id_ed25519"
    path.write_text(canary())
    yield path
    shutil.rmtree(folder)


@pytest.mark.attack("FS01")
def test_host_files_cannot_be_read(session: Session, target: Target, secret_file: Path, tmp_path: Path) -> None:
    in_tmp = tmp_path / "secret"
    in_tmp.write_text(secret_file.read_text())
    attack = payload(
        "filesystem.read_files",
        paths=[
            str(secret_file),
            str(in_tmp),
            "/etc/shadow",
            "/etc/machine-id" if Path("/etc/machine-id").exists() else "/etc/fstab",
            str(REPOSITORY / "pyproject.toml"),
            str(REPOSITORY / "api/src/interpreter_api/errors.py"),
            str(next(p for p in target.server.data_dir.iterdir() if p.is_file())),
            str(Path(sys.prefix) / "pyvenv.cfg"),
        ],
    )
    inside = session.attack(attack)
    assert_contained(control(attack), inside)
    assert secret_file.read_text() not in inside.raw
    session.assert_usable()


@pytest.mark.attack("FS02")
def test_the_python_that_runs_cannot_be_changed(session: Session, target: Target) -> None:
    """Control: with the folders covered by overlays, so that what it writes goes nowhere."""
    library = subprocess.run(
        [SANDBOX_PYTHON, "-c", "import json, os; print(os.path.dirname(json.__path__[0]))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    folders = session.run(
        "import json as _j, os, sys, sysconfig\n"
        "[sysconfig.get_path('purelib'), os.path.dirname(os.path.dirname(_j.__file__)), "
        "sys.prefix, '/usr/bin', '/usr/lib', '/etc', '/opt', '/']"
    )["result"]
    inside_folders = [part.strip(" []'\n") for part in folders.split(",")]
    host_folders = [str(SANDBOX_PYTHON.parent.parent), library, "/usr/bin", "/usr/lib", "/etc", "/opt"]
    name = "zz_canary.pth"
    covers = "mount -t tmpfs none /mnt\n" + "".join(
        f"mkdir /mnt/{i} /mnt/{i}w\nmount -t overlay none -o lowerdir={f},upperdir=/mnt/{i},workdir=/mnt/{i}w {f}\n"
        for i, f in enumerate(host_folders)
    )
    unsandboxed = control(
        payload("filesystem.write_files", folders=host_folders, name=name), namespaces=["--mount"], before=covers
    )
    inside = session.attack(payload("filesystem.write_files", folders=inside_folders, name=name))
    assert not unsandboxed.refused, "void"
    assert not inside.succeeded
    for folder in host_folders:
        assert not (Path(folder) / name).exists()
    found = target.session(name="after FS02")
    assert found.run(f"import glob; glob.glob('/**/{name}', recursive=False)")["result"] == "[]"
    found.delete()
    session.assert_usable()


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
        target.request("DELETE", content, params={"path": path}),
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
        answer = target.request("GET", f"{prefix}/{quote(path, safe='')}")
        assert 400 <= answer.status_code < 500, answer.text
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
    deleted = target.request("DELETE", content, params={"path": "inbox/kept.txt"})
    assert 400 <= deleted.status_code < 500, deleted.text
    target.request("DELETE", content, params={"path": "inbox"})
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


@pytest.mark.attack("FS09")
def test_other_processes_do_not_lead_outside(session: Session, secret_file: Path) -> None:
    """Control: in a pid namespace of its own, where the processes to look through are its own."""
    attack = payload("filesystem.through_proc", path=str(secret_file))
    inside = session.attack(attack)
    assert_contained(control(attack, namespaces=["--pid", "--fork", "--mount-proc", "--kill-child"]), inside)
    assert secret_file.read_text() not in inside.raw
    session.assert_usable()


@pytest.mark.attack("FS10")
def test_no_descriptor_is_inherited(session: Session, secret_file: Path) -> None:
    """Control: a process that was handed a file, a folder and a listening socket finds all three."""
    attack = payload("filesystem.descriptors", outside=str(secret_file))
    with ExitStack() as opened:
        file = opened.enter_context(secret_file.open("rb"))
        folder = os.open("/", os.O_RDONLY)
        opened.callback(os.close, folder)
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        unsandboxed = control(attack, pass_fds=[file.fileno(), folder, listener.fileno()])
    assert_contained(unsandboxed, session.attack(attack))
    spawned = session.run("!ls -l /proc/self/fd")
    assert "socket:" not in spawned["stdout"], "a shell command inherits a socket"
    session.assert_usable()


class Greeter:
    """A service of the host on a Unix socket: it greets whoever connects, and counts."""

    def __init__(self, address: str) -> None:
        self.connections = 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(address)
        self.socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client:
                self.connections += 1
                client.sendall(b"greeting")

    def close(self) -> None:
        """Wake the thread and end it."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.mark.attack("FS14")
def test_host_sockets_are_out_of_reach(session: Session, target: Target) -> None:
    name = f"canary-{os.getpid()}"
    folder = Path(f"/tmp/{name}")
    folder.mkdir()
    greeters = [Greeter(str(folder / "docker.sock")), target.call(Greeter, "\0" + name)]
    attack = payload("filesystem.host_sockets", paths=[str(folder / "docker.sock")], abstract=name)
    try:
        assert_contained(target.call(control, attack), session.attack(attack))
        assert [greeter.connections for greeter in greeters] == [1, 1]
    finally:
        for greeter in greeters:
            greeter.close()
        shutil.rmtree(folder)


@pytest.mark.attack("FS14", "NET06")
def test_the_embedded_database_is_out_of_reach(session: Session) -> None:
    attack = payload("filesystem.postgres_sockets", pattern="/run/power-interpreter/**/.s.PGSQL.*")
    assert_contained(control(attack), session.attack(attack))
    session.assert_usable()


@pytest.mark.attack("FS15")
def test_no_setuid_program_makes_root(session: Session, tmp_path: Path) -> None:
    """Control: an ordinary user, whom a setuid program makes root."""
    folder = Path(f"/tmp/canary-suid-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        program = folder / "cat"
        shutil.copy("/usr/bin/cat", program)
        program.chmod(0o4755)
        unsandboxed = control(
            payload("filesystem.become_root", program=str(program)), uid=65534, cwd=folder, python=SYSTEM_PYTHON
        )
    finally:
        shutil.rmtree(folder)
    session.attack(payload("filesystem.make_setuid_copy", path="/workspace/cat"))
    assert_contained(unsandboxed, session.attack(payload("filesystem.become_root", program="/workspace/cat")))
    refused = session.run("import os\nos.setresuid(0, 0, 0)")
    assert refused["error"]["type"] in {"PermissionError", "OSError"}
    session.assert_usable()
