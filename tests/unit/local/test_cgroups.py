"""Which control groups are used, told from the folders' shape. The real kernel has its say in tests/behaviour."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from interpreter_api.backends.local import cgroups

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for controller in ("memory", "pids", "cpu"):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "cgroup.procs").touch()
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    place = tmp_path / cgroups.PARENT
    for folder in (place, place / cgroups.server_name(os.getpid())):
        folder.mkdir()
        (folder / "cgroup.subtree_control").touch()
    (tmp_path / "own").write_text("0::/user.slice/session-1.scope\n")
    (tmp_path / "user.slice" / "session-1.scope").mkdir(parents=True)
    return tmp_path


def test_version_1_has_one_folder_a_controller(v1: Path) -> None:
    found = cgroups.detect(v1)
    assert found.version == 1
    assert found.degraded() == []
    group = found.create("sbx_a", memory_bytes=1 << 30, processes=64)
    assert group is not None
    memory, pids = (v1 / controller / cgroups.PARENT / found.server / "sbx_a" for controller in ("memory", "pids"))
    assert (memory / "memory.limit_in_bytes").read_text() == str(1 << 30)
    assert (pids / "pids.max").read_text() == "64"
    assert group.join_files() == [str(memory / "cgroup.procs"), str(pids / "cgroup.procs")]


def test_version_2_has_one_folder_for_both_and_no_swap(v2: Path) -> None:
    found = cgroups.detect(v2, v2 / "own")
    assert found.version == 2
    assert found.degraded() == []
    folder = v2 / cgroups.PARENT / found.server / "sbx_a"
    folder.mkdir()
    (folder / "memory.swap.max").touch()
    group = found.create("sbx_a", memory_bytes=1 << 30, processes=64)
    assert group is not None
    assert group.folders == (folder,)
    assert (folder / "memory.max").read_text() == str(1 << 30)
    assert (folder / "memory.swap.max").read_text() == "0"
    assert (folder.parent / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_a_machine_without_groups_is_degraded_and_says_how_to_change_it(tmp_path: Path) -> None:
    found = cgroups.detect(tmp_path)
    assert found.version == 0
    assert found.create("sbx_a", memory_bytes=1, processes=1) is None
    text = " ".join(found.degraded())
    assert "memory" in text
    assert "Delegate=yes" in text


def test_only_one_controller_is_said(v1: Path) -> None:
    (v1 / "pids" / "cgroup.procs").unlink()
    found = cgroups.detect(v1)
    assert list(found.places) == ["memory"]
    assert len(found.degraded()) == 1
    assert "pids" in found.degraded()[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n"),
    ],
)
def test_kills_for_memory_are_counted_in_both_versions(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert cgroups.Group((tmp_path,)).oom_kills() == 3


def test_no_counter_is_no_kill(tmp_path: Path) -> None:
    assert cgroups.Group((tmp_path,)).oom_kills() == 0


def test_the_groups_of_a_dead_server_are_swept_and_those_of_a_living_one_stay(v1: Path) -> None:
    found = cgroups.detect(v1)
    place = v1 / "memory" / cgroups.PARENT
    (place / "1-999999999999" / "sbx_dead").mkdir(parents=True)  # process 1 lives, but did not start then
    (place / found.server / "sbx_mine").mkdir()
    (place / "somebody-else").mkdir()
    assert found.sweep() == 1
    assert sorted(folder.name for folder in place.iterdir()) == sorted([found.server, "somebody-else"])
    assert (place / found.server / "sbx_mine").is_dir()


def test_a_group_that_is_still_in_use_is_removed_later(v1: Path) -> None:
    found = cgroups.detect(v1)
    busy = v1 / "memory" / cgroups.PARENT / found.server / "sbx_busy"
    busy.mkdir()
    (busy / "held").touch()
    found.discard(cgroups.Group((busy,)))
    assert busy.is_dir()
    (busy / "held").unlink()
    found.create("sbx_next", memory_bytes=1, processes=1)
    assert not busy.exists()
