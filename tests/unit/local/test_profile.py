"""The bubblewrap profile, line by line: what it must hold on every kind of system, and what it must not."""

from __future__ import annotations

import pytest

from interpreter_api.backends.local import profile
from interpreter_api.backends.local.launcher import STAGE_TOKEN

MERGED = profile.HostLayout(
    links={"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"},
    folders=[],
    etc=["ld.so.cache", "localtime"],
    proc_files=["keys", "kcore"],
    proc_folders=["acpi"],
)
SPLIT = profile.HostLayout(
    links={},
    folders=["bin", "sbin", "lib", "lib64"],
    etc=[],
    proc_files=[],
    proc_folders=[],
    base="/home/someone/python-3.12",
)


def mounts(args: list[str], kind: str) -> dict[str, str]:
    """Destination → source of every mount of one kind."""
    return {args[i + 2]: args[i + 1] for i, arg in enumerate(args[: args.index("--")]) if arg == kind}


@pytest.mark.parametrize(
    "flag",
    [
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--new-session",
        "--die-with-parent",
        "--as-pid-1",
        "--clearenv",
    ],
)
def test_each_layer_is_asked_for(flag: str) -> None:
    assert flag in profile.bubblewrap_arguments(MERGED, ["true"])


def test_nothing_gives_a_layer_back() -> None:
    args = profile.bubblewrap_arguments(MERGED, ["true"])
    assert not {"--share-net", "--cap-add", "--dev-bind", "--unshare-user-try"} & set(args)
    assert args[args.index("--cap-drop") + 1] == "ALL"


def test_only_three_places_are_writable_and_each_is_a_bounded_tmpfs() -> None:
    args = profile.bubblewrap_arguments(SPLIT, ["true"])
    writable = mounts(args, "--bind")
    assert writable == {
        "/dev/shm": f"{STAGE_TOKEN}/shm",
        "/tmp": f"{STAGE_TOKEN}/tmp",
        "/workspace": f"{STAGE_TOKEN}/workspace",
    }
    bounded = profile.workspace_mounts(1 << 20, 100)
    assert bounded["workspace"] == (1 << 20, 100, "0700")
    assert all(size > 0 and inodes > 0 for size, inodes, _ in bounded.values())
    assert {source.removeprefix(f"{STAGE_TOKEN}/") for source in writable.values()} <= set(bounded)


def test_the_root_and_dev_end_read_only_after_the_last_mount_in_them() -> None:
    args = profile.bubblewrap_arguments(MERGED, ["true"])
    remounts = [i for i, arg in enumerate(args) if arg == "--remount-ro"]
    assert [args[i + 1] for i in remounts] == ["/dev", "/"]
    assert args.index("/dev/shm") < remounts[0]
    assert max(i for i, arg in enumerate(args) if arg in ("--bind", "--ro-bind", "--symlink")) < remounts[1]


def test_etc_is_ours_but_for_a_short_list() -> None:
    seen = {
        target for target in mounts(profile.bubblewrap_arguments(MERGED, ["true"]), "--ro-bind") if "/etc" in target
    }
    assert seen == {f"/etc/{name}" for name in profile.ETC_FILES} | {"/etc/ld.so.cache", "/etc/localtime"}
    assert not {"shadow", "hostname", "resolv.conf", "ssh", "ssl"} & set(profile.ETC_FROM_HOST)


def test_a_merged_system_gets_links_and_a_split_one_gets_folders() -> None:
    merged = profile.bubblewrap_arguments(MERGED, ["true"])
    assert mounts(merged, "--symlink")["/lib64"] == "usr/lib64"
    assert "/lib64" not in mounts(merged, "--ro-bind")
    split = profile.bubblewrap_arguments(SPLIT, ["true"])
    assert mounts(split, "--ro-bind")["/lib64"] == "/lib64"
    assert not mounts(split, "--symlink")


def test_a_python_outside_usr_appears_at_its_own_path_read_only() -> None:
    readable = mounts(profile.bubblewrap_arguments(SPLIT, ["true"]), "--ro-bind")
    assert readable["/home/someone/python-3.12"] == f"{STAGE_TOKEN}/base"
    assert readable[profile.ENVIRONMENT] == f"{STAGE_TOKEN}/environment"


def test_what_tells_about_the_kernel_is_hidden() -> None:
    hidden = mounts(profile.bubblewrap_arguments(MERGED, ["true"]), "--ro-bind")
    assert hidden["/proc/keys"] == hidden["/proc/kcore"] == "/dev/null"
    assert hidden["/proc/acpi"] == f"{STAGE_TOKEN}/empty"


def test_the_environment_is_the_documented_one_whatever_the_server_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "canary-in-the-environment")
    args = profile.bubblewrap_arguments(MERGED, ["true"])
    names = [args[i + 1] for i, arg in enumerate(args) if arg == "--setenv"]
    assert set(names) == set(profile.environment_variables())
    assert not any("canary" in arg for arg in args)
    assert not any(word in name for name in names for word in ("KEY", "TOKEN", "SECRET", "DATABASE"))


def test_an_old_bubblewrap_goes_without_what_it_does_not_know() -> None:
    assert "--disable-userns" not in profile.bubblewrap_arguments(MERGED, ["true"], disable_userns=False)


def test_the_agent_does_not_look_for_modules_in_the_workspace() -> None:
    command = profile.agent_command("{}")
    assert command[0] == f"{profile.ENVIRONMENT}/bin/python"
    assert command.index("-I") < command.index("-m")
