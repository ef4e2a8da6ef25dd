"""What is found on a machine: layouts, Python installations, ranges of user ids, and the fix for what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interpreter_api.backends.local import host, posture


def test_a_merged_system_is_told_by_its_links(tmp_path: Path) -> None:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "lib64").mkdir()
    (tmp_path / "etc" / "fonts").mkdir(parents=True)
    (tmp_path / "etc" / "shadow").touch()
    (tmp_path / "proc" / "acpi").mkdir(parents=True)
    (tmp_path / "proc" / "keys").touch()
    found = host.layout(None, tmp_path)
    assert found.links == {"bin": "usr/bin"}
    assert found.folders == ["lib64"]
    assert found.etc == ["fonts"]
    assert found.proc_files == ["keys"]
    assert found.proc_folders == ["acpi"]


@pytest.mark.parametrize(
    ("home", "expected"),
    [
        ("/usr/bin", None),
        ("/usr/local/bin", None),
        ("/home/someone/python-3.12/bin", Path("/home/someone/python-3.12")),
        ("/usrlike/bin", Path("/usrlike")),
    ],
)
def test_a_python_outside_usr_is_found(tmp_path: Path, home: str, expected: Path | None) -> None:
    (tmp_path / "pyvenv.cfg").write_text(f"home = {home}\nversion_info = 3.12.1\n")
    assert host.base_prefix(tmp_path) == expected


@pytest.mark.parametrize(
    ("uid_map", "expected"),
    [
        ("0 0 4294967295\n", (host.OWNER_FIRST, host.OWNER_COUNT)),
        ("0 1000 1\n1 100000 65536\n", (65537 - host.SMALL_RANGE, host.SMALL_RANGE)),
        ("0 1000 1\n", None),
        ("", None),
    ],
)
def test_sandbox_uids_come_from_what_the_user_namespace_maps(uid_map: str, expected: tuple[int, int] | None) -> None:
    assert host.owner_range(uid_map) == expected


def test_the_range_of_sandbox_uids_is_below_what_a_signed_number_holds() -> None:
    assert host.OWNER_FIRST > 1_879_048_191
    assert host.OWNER_FIRST + host.OWNER_COUNT < 2_147_352_576


def test_a_program_that_is_not_bubblewrap_has_no_version() -> None:
    assert host.bwrap_version("/bin/false") == (0, 0)
    assert host.bwrap_version("/nowhere/bwrap") == (0, 0)


@pytest.mark.parametrize(
    ("file", "value", "line"),
    [
        ("kernel/apparmor_restrict_unprivileged_userns", "1\n", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("kernel/unprivileged_userns_clone", "0\n", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0\n", "user.max_user_namespaces="),
    ],
)
def test_the_fix_names_the_switch_that_forbids(tmp_path: Path, file: str, value: str, line: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(value)
    remedy = posture.userns_remedy(tmp_path)
    assert line in remedy
    assert remedy.startswith("sysctl" if os.geteuid() == 0 else "sudo sysctl")


def test_a_switch_that_allows_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "unprivileged_userns_clone").write_text("1\n")
    assert "sysctl" not in posture.userns_remedy(tmp_path)


def test_a_kernel_without_filters_is_noticed(tmp_path: Path) -> None:
    assert not posture.seccomp_filters(tmp_path / "actions_avail")
    (tmp_path / "actions_avail").write_text("kill_process kill_thread trap errno allow\n")
    assert posture.seccomp_filters(tmp_path / "actions_avail")
