"""The rules that a reader relies on: folder names that shadow nothing, small modules, no traces of one machine."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
MEMBERS = ("crds", "operator", "api", "sandbox")
MAX_LINES = 500
IGNORED = {"data", "dist", "node_modules", "__pycache__", "uv.lock"}


def project_files() -> list[Path]:
    """What belongs to the project: what git knows and does not ignore; without git, what the tree holds."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        keep = {".ci", ".gitignore", ".pre-commit-config.yaml"}
        tops = [top for top in ROOT.iterdir() if top.name not in IGNORED and (top.name[0] != "." or top.name in keep)]
        found = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*"))]
        found = [
            path for path in found if not IGNORED & set(path.relative_to(ROOT).parts) and ".egg-info" not in str(path)
        ]
    else:
        found = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in found if path.is_file()]


FILES = project_files()


def test_the_operator_folder_shadows_nothing() -> None:
    room = ROOT / "operator"
    assert (room / "src" / "interpreter_operator" / "__init__.py").is_file()
    assert {path.name for path in room.iterdir() if path.suffix == ".py"} == set()
    assert not [p for p in FILES if p.is_relative_to(room) and re.match(r"(conftest|test_.*|.*_test)\.py$", p.name)]
    command = [sys.executable, "-c", "import operator; print(operator.__file__, operator.add(1, 2))"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" 3\n")
    assert not done.stdout.startswith(str(room))


@pytest.mark.parametrize("name", MEMBERS)
def test_tests_live_in_tests(name: str) -> None:
    assert not [
        path for path in FILES if path.is_relative_to(ROOT / name) and path.name.startswith(("test_", "conftest"))
    ]


def test_modules_stay_small() -> None:
    sizes = {path: path.read_text().count("\n") for path in FILES if path.suffix == ".py"}
    assert len(sizes) > 20
    assert {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > MAX_LINES} == {}


# built from parts, so that this file may be searched too
HOSTS = [
    ".".join(parts)
    for parts in [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("pkg", "dev")]
]
PLACES = ["/" + "work/", "/" + "root/.", "/home/" + "runner", "/tmp/" + "brief", "../" + "shared"]


@pytest.mark.parametrize("trace", [*HOSTS, *PLACES])
def test_no_registry_and_no_machine_is_named(trace: str) -> None:
    allowed = {"tests/attacks"} if trace.startswith("/root") else set()  # attacks do try to read there
    named = [
        str(path.relative_to(ROOT))
        for path in FILES
        if trace.encode() in path.read_bytes() and not any(path.is_relative_to(ROOT / place) for place in allowed)
    ]
    assert named == []


# --- requirements/ ----------------------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, Version]:
    """The pinned versions of a requirements file by normalised name."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", package).lower(): Version(version) for package, version in found}


def asked_for(member: str, *extras: str) -> list[Requirement]:
    """What a member's pyproject.toml asks for, its own members left out."""
    project = tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"]
    lines = [*project.get("dependencies", ()), *(line for e in extras for line in project["optional-dependencies"][e])]
    return [r for r in map(Requirement, lines) if not r.name.startswith("interpreter-")]


def development() -> list[Requirement]:
    """The dev group of the root."""
    return [
        Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
    ]


ASKED = {
    "server": [*asked_for("crds"), *asked_for("api", "local"), *asked_for("sandbox", "client")],
    "sandbox": asked_for("sandbox", "runtime"),
    "dev": [*asked_for("operator"), *asked_for("api", "local"), *asked_for("sandbox", "client"), *development()],
}


@pytest.mark.parametrize("name", sorted(ASKED))
def test_the_pins_are_what_the_pyproject_files_ask_for(name: str) -> None:
    pinned = pins(name)
    for requirement in ASKED[name]:
        package = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert package in pinned, f"{requirement} is not in requirements/{name}.txt: make lock"
        assert requirement.specifier.contains(pinned[package]), (
            f"{requirement} is pinned to {pinned[package]}: make lock"
        )


@pytest.mark.parametrize("name", ["server", "dev", "sandbox", "uv"])
def test_every_pin_has_a_hash(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert lines
    assert [line for line in lines if "==" not in line or "--hash=sha256:" not in line] == []


def test_the_server_runs_what_was_tested() -> None:
    tested = pins("dev")
    assert {name: version for name, version in pins("server").items() if tested.get(name) != version} == {}
