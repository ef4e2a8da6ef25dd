"""tools/bootstrap.py chooses the right interpreter and refuses in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BOOTSTRAP = ROOT / "tools" / "bootstrap.py"
ASK = "import sys; sys.path.insert(0, sys.argv[1]); import bootstrap; print(bootstrap.find_python())"


def fake_python(path: Path, version: str) -> Path:
    """A program that answers as a Python of that version would, for versions that this machine may not have."""
    path.write_text(f"#!/bin/sh\necho 'cpython {version}'\n")
    path.chmod(0o755)
    return path


def choose(**env: str) -> subprocess.CompletedProcess[str]:
    """Let bootstrap choose, with these variables and nothing else."""
    command = [sys.executable, "-B", "-c", ASK, str(BOOTSTRAP.parent)]
    return subprocess.run(command, env={"PATH": "/usr/bin:/bin", **env}, capture_output=True, text=True, check=False)


def test_the_chosen_interpreter_is_one_that_every_user_may_run() -> None:
    chosen = Path(choose().stdout.strip())
    assert chosen.is_absolute()
    assert all(parent.stat().st_mode & 0o001 for parent in chosen.resolve().parents)


def test_python_names_another(tmp_path: Path) -> None:
    wanted = fake_python(tmp_path / "mine", "3 12")
    assert choose(PYTHON=str(wanted)).stdout.strip() == str(wanted)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("3 10", "is Python 3.10; 3.11 to 3.14 work"), ("3 15", "is Python 3.15"), ("nonsense", "is not a Python")],
)
def test_one_that_does_not_fit_is_refused(tmp_path: Path, version: str, sentence: str) -> None:
    done = choose(PYTHON=str(fake_python(tmp_path / "mine", version)))
    assert done.returncode != 0
    assert sentence in done.stderr


def test_a_path_that_is_no_program_is_refused(tmp_path: Path) -> None:
    assert "is not a Python interpreter" in choose(PYTHON=str(tmp_path / "absent")).stderr


def test_a_machine_with_old_ones_only_is_told_what_to_type(tmp_path: Path) -> None:
    # on the real PATH there may be a good one: ask about a machine that has 3.10 only
    only_old = fake_python(tmp_path / "python3", "3 10")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import bootstrap\n"
        "bootstrap.PLACES[:] = []\n"
        "try: bootstrap.find_python()\n"
        "except bootstrap.Refusal as refusal: print(refusal)"
    )
    command = [sys.executable, "-B", "-c", script, str(BOOTSTRAP.parent)]
    env = {"PATH": str(only_old.parent)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "found: 3.10" in done.stdout
    assert "apt-get install python3" in done.stdout


def test_nothing_to_do_is_quiet_and_fast() -> None:
    command = [sys.executable, "-B", str(BOOTSTRAP), "dev"]
    env = {**os.environ, "APT": "no"}
    stamps = [ROOT / name / "stamp" for name in (".venv", ".venv-sandbox")]
    subprocess.run(command, env=env, check=True)  # pytest may have been called without make, after an edit
    before = [stamp.stat().st_mtime_ns for stamp in stamps]
    started = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 1
    assert "installing" not in done.stderr
    assert before == [stamp.stat().st_mtime_ns for stamp in stamps]
