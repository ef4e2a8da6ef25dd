"""The workspace by descriptor: what is in it is served, nothing outside of it is."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from interpreter_sandbox.protocol import FileEntry
from interpreter_sandbox.runtime.changes import ChangeTracker
from interpreter_sandbox.runtime.files import Refusal, Workspace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT = 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("canary")
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def workspace(root: Path) -> Workspace:
    return Workspace(root, LIMIT)


async def body(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(workspace: Workspace, path: str) -> bytes:
    file = workspace.open(path)
    try:
        return b"".join([data async for data in file.chunks()])
    finally:
        file.close()


@pytest.mark.anyio
async def test_written_files_read_back_and_are_listed(workspace: Workspace) -> None:
    entry = await workspace.write("a/b/ünïcode name.txt", body(b"one", b"two"))
    assert (entry.path, entry.size, entry.is_dir) == ("a/b/ünïcode name.txt", 6, False)
    assert await read(workspace, "a//b/./ünïcode name.txt") == b"onetwo"
    assert [e.path for e in workspace.list("", recursive=True)[0]] == ["a", "a/b", "a/b/ünïcode name.txt"]
    assert [e.path for e in workspace.list("a", recursive=False)[0]] == ["a/b"]
    workspace.delete("a")
    assert workspace.list("", recursive=True) == ([], False)


BAD_PATHS = ["..", "../secret.txt", "a/../../secret.txt", "/etc/passwd", "a\0b", "x" * 5000, "\ud800", "a/" + "b" * 300]


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.attack("FS03")
@pytest.mark.anyio
async def test_paths_that_leave_are_refused_by_every_call(workspace: Workspace, root: Path, path: str) -> None:
    await workspace.write("a/file", body(b"x"))
    for call in (workspace.open, workspace.delete, lambda p: workspace.list(p, recursive=True)):
        with pytest.raises(Refusal) as refused:
            call(path)
        assert refused.value.code in {"path_refused", "not_found"}
    with pytest.raises(Refusal):
        await workspace.write(path, body(b"y"))
    assert (root.parent / "secret.txt").read_text() == "canary"


@pytest.mark.attack("FS04")
@pytest.mark.anyio
async def test_symlinks_are_followed_inside_only(workspace: Workspace, root: Path) -> None:
    await workspace.write("real/data", body(b"inside"))
    (root / "good").symlink_to("real/data")
    assert await read(workspace, "good") == b"inside"
    links = {
        "up": "../secret.txt",
        "absolute": "/etc/passwd",
        "proc": "/proc/self/environ",
        "folder": "..",
        "loop": "loop",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
        for path in (name, name + "/secret.txt"):
            with pytest.raises(Refusal):
                workspace.open(path)
    with pytest.raises(Refusal):
        await workspace.write("folder/secret.txt", body(b"overwritten"))
    with pytest.raises(Refusal):
        workspace.delete("folder/secret.txt")
    with pytest.raises(Refusal):
        workspace.list("folder", recursive=True)
    assert not [e for e in workspace.list("", recursive=True)[0] if "secret" in e.path]
    await workspace.write("up", body(b"replaces the link, not its target"))
    workspace.delete("absolute")
    assert (root.parent / "secret.txt").read_text() == "canary"


@pytest.mark.attack("FS08")
def test_what_is_no_file_is_refused_at_once(workspace: Workspace, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(root, os.O_PATH)
        listening.bind(f"/proc/self/fd/{here}/socket")
        began = time.monotonic()
        for name in ("fifo", "folder", "socket"):
            with pytest.raises(Refusal) as refused:
                workspace.open(name)
            assert refused.value.code == "not_a_file"
        assert time.monotonic() - began < 1
        os.close(here)


@pytest.mark.anyio
async def test_a_failed_write_leaves_the_old_file_and_no_other(workspace: Workspace, root: Path) -> None:
    await workspace.write("f", body(b"old"))
    with pytest.raises(Refusal) as refused:
        await workspace.write("f", body(b"x" * LIMIT, b"y"))
    assert refused.value.code == "too_large"

    async def breaks_off() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await workspace.write("f", breaks_off())
    (root / "folder").mkdir()
    with pytest.raises(Refusal) as refused:
        await workspace.write("folder", body(b"x"))
    assert refused.value.code == "not_a_file"
    assert sorted(path.name for path in root.iterdir()) == ["f", "folder"]
    assert await read(workspace, "f") == b"old"


@pytest.mark.anyio
async def test_a_file_that_changes_while_it_is_read_ends_at_its_first_size(workspace: Workspace, root: Path) -> None:
    await workspace.write("f", body(b"12345"))
    file = workspace.open("f")
    with (root / "f").open("ab") as growing:
        growing.write(b"678")
    assert b"".join([data async for data in file.chunks()]) == b"12345"
    file.close()


def changed(tracker: ChangeTracker) -> list[str]:
    entries, note = tracker.collect()
    assert note == ""
    assert all(isinstance(entry, FileEntry) for entry in entries)
    return [entry.path for entry in entries]


@pytest.mark.covers("C06")
def test_changes_are_what_the_cell_made(root: Path) -> None:
    (root / "old.txt").write_text("there before")
    tracker = ChangeTracker(os.fsencode(root))
    (root / "upload.txt").write_text("by the api, between cells")
    tracker.begin()
    assert changed(tracker) == []
    (root / "new.csv").write_text("a")
    (root / "deep/er").mkdir(parents=True)
    (root / "deep/er/x.json").write_text("{}")
    (root / "gone.txt").write_text("x")
    (root / "gone.txt").unlink()
    (root / ".hidden").write_text("x")
    (root / "__pycache__").mkdir()
    (root / "__pycache__/m.pyc").write_text("x")
    (root / "link").symlink_to("new.csv")
    assert changed(tracker) == ["deep/er/x.json", "new.csv"]
    tracker.begin()
    (root / "deep/er/y.json").write_text("{}")
    (root / "new.csv").rename(root / "renamed.csv")
    assert changed(tracker) == ["deep/er/y.json", "renamed.csv"]


def test_the_same_size_in_the_same_instant_is_still_a_change(root: Path) -> None:
    tracker = ChangeTracker(os.fsencode(root))
    for text in "abcdefgh":
        tracker.begin()
        (root / "f").write_text(text)
        assert changed(tracker) == ["f"]


def test_a_moved_folder_is_watched_under_its_new_name(root: Path) -> None:
    tracker = ChangeTracker(os.fsencode(root))
    tracker.begin()
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/1").write_text("1")
    (root / "a").rename(root / "z")
    assert changed(tracker) == ["z/b/1"]
    tracker.begin()
    (root / "z/b/2").write_text("2")
    assert changed(tracker) == ["z/b/2"]


@pytest.mark.attack("RES07")
def test_more_changes_than_the_kernel_queues_are_found_by_walking(root: Path) -> None:
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    tracker = ChangeTracker(os.fsencode(root))
    (root / "before").write_text("x")
    deadline = time.time() + 0.05
    while time.time() < deadline:  # the walk compares with a clock that ticks
        pass
    tracker.begin()
    for i in range(queue // 2 + 100):
        os.close(os.open(root / f"{i:06}", os.O_CREAT | os.O_WRONLY))
    (root / "last").write_text("x")
    entries, note = tracker.collect()
    names = {entry.path for entry in entries}
    assert "before" not in names
    assert len(names) == min(10_000, queue // 2 + 101)
    assert bool(note) == (queue // 2 + 101 > 10_000)
