"""FS: nothing of the host's files, descriptors and sockets is reached from a session, nor by the server for it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

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
            str(target.server.data_dir / "server.json"),
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
