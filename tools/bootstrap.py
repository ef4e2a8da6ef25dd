"""Make this checkout runnable: `python3 tools/bootstrap.py server|dev|bench`, called by the Makefile.

Quiet, and done in a tenth of a second, where nothing has changed.

It needs a Python and nothing else: no pip, no venv module, no git. What it brings, in this order:

1. the system packages that isolation needs (bubblewrap, libseccomp), by apt where it may; else it prints the line
   to type and goes on, because the server starts without them and refuses to execute; for ``dev`` also iproute2, with
   which tests make networks of their own;
2. uv, pinned by hash in ``requirements/uv.txt``, in ``.tools/``;
3. ``.venv``: the server (``server``) or the server with the development tools (``dev``);
4. ``.venv-sandbox``: what user code sees, and nothing of the server;
5. for ``bench`` also ``.venv-bench``: a Jupyter kernel to measure against.

Every step is skipped where a stamp (a hash of what went in) says that it was done. `APT=no` forbids system packages,
`PYTHON=/path/to/python3.12` chooses the interpreter. Only the standard library is imported, and the file must parse on
Python 3.8, so that an old interpreter gets a sentence and not a SyntaxError.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
REQUIREMENTS = ROOT / "requirements"
OLDEST, NEWEST = (3, 11), (3, 14)
PLACES = ["/usr/bin", "/usr/local/bin"]  # looked at before PATH
MEMBERS = {"server": ("crds", "sandbox", "api"), "dev": ("crds", "sandbox", "api", "operator")}


class Refusal(Exception):  # noqa: N818 - it is the end of the program, told in one sentence
    """Why this machine cannot run the project, and the line that changes it."""


def say(text: str) -> None:
    """One line for the person who waits."""
    print("power-interpreter: " + text, file=sys.stderr, flush=True)


def main(kind: str) -> None:
    """Bring everything that ``kind`` (``server``, ``dev`` or ``bench``) needs."""
    os.umask(0o022)  # sandboxes run under another user id, which must be able to read what is installed here
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second waits and finds everything done
        system_packages(kind)
        python = find_python()
        server_environment("server" if kind == "server" else "dev", python)
        sandbox_environment(python)
        if kind == "bench":
            bench_environment(python)


# --- the interpreter --------------------------------------------------------------------------------------------------


def find_python() -> str:
    """The interpreter that both environments are built on; ``Refusal`` where there is none.

    The system's own comes first: its files are readable to the sandbox's user id, those below a home folder often are
    not. Of the others the newest wins.
    """
    chosen = os.environ.get("PYTHON")
    if chosen:
        path = shutil.which(chosen)
        version = python_version(path) if path else None
        if path is None or version is None:
            raise Refusal(f"PYTHON={chosen} is not a Python interpreter.")
        if not OLDEST <= version <= NEWEST:
            raise Refusal(f"PYTHON={chosen} is Python {version[0]}.{version[1]}; 3.11 to 3.14 work.")
        return path
    minors = range(NEWEST[1], OLDEST[1] - 1, -1)
    names = ["python3", *(f"python3.{minor}" for minor in minors)]
    places = [*PLACES, *os.environ.get("PATH", "").split(os.pathsep)]
    seen: dict[str, tuple[int, int] | None] = {}
    for place in dict.fromkeys(places):
        for name in names:
            path = str(Path(place) / name)
            if place and os.access(path, os.X_OK) and path not in seen:
                version = python_version(path)
                seen[path] = version
                if version and OLDEST <= version <= NEWEST and readable_to_all(path):
                    return path
    usable = {path: version for path, version in seen.items() if version and OLDEST <= version <= NEWEST}
    if usable:
        return max(usable, key=lambda path: usable[path])
    found = ", ".join(sorted({f"{version[0]}.{version[1]}" for version in seen.values() if version})) or "none"
    raise Refusal(
        f"Python 3.11 to 3.14 is needed; found: {found}. Install one (Debian 12, Ubuntu 24.04 and later: "
        "sudo apt-get install python3) or name one: make PYTHON=/path/to/python3.12 run"
    )


def python_version(path: str) -> tuple[int, int] | None:
    """(major, minor) of a CPython, None for anything else (a pyenv shim without a version, PyPy)."""
    code = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        done = subprocess.run([path, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.fullmatch(r"cpython (\d+) (\d+)\n", done.stdout)
    return (int(match[1]), int(match[2])) if done.returncode == 0 and match else None


def readable_to_all(path: str) -> bool:
    """Whether another user id may reach the file: every folder above it is open to others."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in Path(path).resolve().parents)


# --- what the system must bring ---------------------------------------------------------------------------------------


def system_packages(kind: str) -> None:
    """Bring bubblewrap and libseccomp; without them the server starts and refuses to execute. Tests need more."""
    if kind != "server" and not shutil.which("ip") and not apt_install(["iproute2"]):
        say("the attacks on networks need iproute2 and will fail. Type: " + apt_line(["iproute2"]))
    missing = missing_packages()
    if missing and not apt_install(missing):
        say(f"no sandbox without {' and '.join(missing)}: code will be refused until you type")
        say("    " + apt_line(missing))


def missing_packages() -> list[str]:
    """Debian's names of what isolation needs and this machine lacks."""
    missing = []
    if not (shutil.which("bwrap") or os.environ.get("BWRAP")):
        missing.append("bubblewrap")
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        missing.append("libseccomp2")
    return missing


def apt_line(packages: list[str]) -> str:
    """What a person types where we may not."""
    return "sudo apt-get update && sudo apt-get install -y " + " ".join(packages)


def apt_install(packages: list[str]) -> bool:
    """Install by apt where that needs no question; False where it may not or did not work."""
    apt = shutil.which("apt-get")
    if apt is None or os.environ.get("APT") == "no":
        return False
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if prefix and not (shutil.which("sudo") and succeeds([*prefix, "true"])):
        return False
    say(f"installing {' '.join(packages)} by apt (log: .tools/apt.log)")
    apt_get = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", apt, "-y", "-o", "DPkg::Lock::Timeout=120"]
    install = [*apt_get, "install", "--no-install-recommends", *packages]
    with (TOOLS / "apt.log").open("ab") as log:
        for command in (install, [*apt_get, "update"], install):  # the package lists may be old or absent
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
            if done.returncode == 0 and command is install:
                return True
    say("apt could not install them; .tools/apt.log says why")
    return False


# --- uv ---------------------------------------------------------------------------------------------------------------


def find_uv(python: str) -> str:
    """The pinned uv: one that is there already, or from PyPI by whatever installer this machine has."""
    wanted = re.search(r"^uv==(\d+\.\d+)\.", (REQUIREMENTS / "uv.txt").read_text(), re.MULTILINE)
    assert wanted, "requirements/uv.txt pins uv"
    ours = str(TOOLS / "bin" / "uv")
    for candidate in (ours, shutil.which("uv")):
        if candidate and is_uv(candidate, wanted[1]):
            return candidate
    say("fetching uv into .tools")
    pinned = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        str(REQUIREMENTS / "uv.txt"),
    ]
    name = Path(python).name
    for package in (None, name + "-venv", "python3-pip"):
        if package and not apt_install([package]):
            continue
        if succeeds([python, "-c", "import ensurepip, venv"]):
            shutil.rmtree(TOOLS / "lib", ignore_errors=True)
            run([python, "-m", "venv", str(TOOLS)])
            run([str(TOOLS / "bin" / "python"), "-m", "pip", *pinned])
        elif succeeds([python, "-m", "pip", "--version"]):
            run([python, "-m", "pip", *pinned, "--target", str(TOOLS), "--upgrade"])
        if is_uv(ours, wanted[1]):
            return ours
    raise Refusal(f"{python} has neither venv nor pip. Type: " + apt_line([*missing_packages(), name + "-venv"]))


def is_uv(path: str, wanted: str) -> bool:
    """Whether ``path`` is a uv of that major and minor version."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.startswith(f"uv {wanted}.")


# --- the environments -------------------------------------------------------------------------------------------------


def server_environment(kind: str, python: str) -> None:
    """``.venv``. One that was made for ``dev`` stays one, so that `make run` never undoes `make test`."""
    where = ROOT / ".venv"
    kind = "dev" if read_stamp(where).startswith("dev ") else kind
    stamp = kind + " " + server_stamp(kind, python)
    if read_stamp(where) == stamp:
        return
    uv = make_environment(where, python, REQUIREMENTS / (kind + ".txt"))
    editable = [argument for member in MEMBERS[kind] for argument in ("-e", str(ROOT / member))]
    run([uv, "pip", "install", *quiet(), "-p", str(where), "--no-deps", *editable])
    write_stamp(where, stamp)


def server_stamp(kind: str, python: str) -> str:
    """What ``.venv`` is made of. Sources are not in it: members are installed in place there."""
    return digest(kind, python, [REQUIREMENTS / (kind + ".txt"), *(ROOT / m / "pyproject.toml" for m in MEMBERS[kind])])


def sandbox_environment(python: str) -> None:
    """``.venv-sandbox``: the runtime is copied in, not linked, for a sandbox sees this folder and no checkout."""
    where = ROOT / ".venv-sandbox"
    requirements = REQUIREMENTS / "sandbox.txt"
    libraries = digest("sandbox", python, [requirements])
    sources = sorted((ROOT / "sandbox").glob("src/**/*.py"))
    runtime = digest("runtime", python, [ROOT / "sandbox" / "pyproject.toml", *sources])
    have = read_stamp(where).split()
    if have == [libraries, runtime]:
        return
    uv = find_uv(python) if have[:1] == [libraries] else make_environment(where, python, requirements)
    runtime_only = ["--no-deps", "--compile-bytecode", "--reinstall-package", "interpreter-sandbox"]
    run([uv, "pip", "install", *quiet(), "-p", str(where), *runtime_only, str(ROOT / "sandbox")])
    write_stamp(where, libraries + " " + runtime)


def bench_environment(python: str) -> None:
    """``.venv-bench``: what the benchmarks compare with; nothing of ours is in it."""
    where, requirements = ROOT / ".venv-bench", REQUIREMENTS / "bench.txt"
    stamp = digest("bench", python, [requirements])
    if read_stamp(where) != stamp:
        make_environment(where, python, requirements)
        write_stamp(where, stamp)


def make_environment(where: Path, python: str, requirements: Path) -> str:
    """An environment with exactly the pinned packages, checked by hash; answers the uv that made it."""
    uv = find_uv(python)
    count = len(re.findall(r"^[a-z0-9]\S*==", requirements.read_text(), re.MULTILINE | re.IGNORECASE))
    say(f"installing up to {count} packages into {where.name} (the first time takes a minute or two)")
    (where / "stamp").unlink(missing_ok=True)
    if os.path.realpath(where / "bin" / "python") != os.path.realpath(python):
        run([uv, "venv", "--quiet", "--clear", "--no-project", "-p", python, str(where)])
    sync = ["pip", "sync", *quiet(), "--require-hashes", "--compile-bytecode", "-p", str(where), str(requirements)]
    run([uv, *sync])
    return uv


def quiet() -> list[str]:
    """Show uv's progress to a person, and nothing to a log."""
    return [] if sys.stderr.isatty() else ["--quiet"]


def digest(kind: str, python: str, files: list[Path]) -> str:
    """A hash of names and contents, the interpreter and this checkout's place (scripts hold absolute paths)."""
    total = hashlib.sha256()
    for part in ("1", kind, os.path.realpath(python), str(ROOT)):
        total.update(part.encode() + b"\0")
    for file in files:
        total.update(str(file.relative_to(ROOT)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def read_stamp(where: Path) -> str:
    """The stamp of an environment whose interpreter still runs, else the empty string."""
    stamp = where / "stamp"
    return stamp.read_text() if stamp.is_file() and os.access(where / "bin" / "python", os.X_OK) else ""


def write_stamp(where: Path, value: str) -> None:
    """Written last: an interrupted installation has none and is done again."""
    (where / "stamp").write_text(value)


# --- processes --------------------------------------------------------------------------------------------------------


def succeeds(command: list[str]) -> bool:
    """Whether a command that may well fail did not; its output is nobody's."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return done.returncode == 0


def run(command: list[str]) -> None:
    """A command that must succeed; it prints its own reason where it does not."""
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False)
    if done.returncode != 0:
        raise Refusal(f"this failed ({done.returncode}): {' '.join(command)}")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Refusal as refusal:
        say(str(refusal))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
