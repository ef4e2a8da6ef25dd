"""Every promise that is called done has a test that cites it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import rows

ROOT = Path(__file__).parents[2]
PROMISES = rows.promises()
DONE = [
    (section, promise)
    for section, entries in PROMISES.items()
    for promise, entry in entries.items()
    if entry["status"] == "done"
]


def collect(where: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on ``where`` in a process of its own, with the rows plugin."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(where)]
    settings = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), **env}
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def cited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """What the whole test tree cites, whatever part of it is being run."""
    report = tmp_path_factory.mktemp("rows") / "cited.json"
    done = collect(ROOT / "tests", "--collect-only", f"--rows-report={report}")
    assert report.exists(), done.stdout + done.stderr
    return json.loads(report.read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize(("section", "promise"), DONE, ids=[promise for _, promise in DONE])
def test_a_promise_that_is_done_has_a_test(cited: dict[str, dict[str, list[str]]], section: str, promise: str) -> None:
    public = [test for test in cited[section].get(promise, ()) if not test.startswith("tests/unit/")]
    assert public, (
        f"{promise} is called done, and no test that uses the public interfaces cites it: {PROMISES[section][promise]}"
    )


def test_every_entry_says_what_it_is() -> None:
    for section, text in (("rows", "promise"), ("attacks", "attack")):
        for promise, row in PROMISES[section].items():
            assert row["status"] in {"done", "planned"}, promise
            assert row[text].strip(), promise
            assert set(row) <= {"status", text, "missing", "cluster_only"}, promise


def test_an_unknown_id_stops_the_collection(tmp_path: Path) -> None:
    case = tmp_path / "test_case.py"
    case.write_text("import pytest\n\n@pytest.mark.covers('C99')\ndef test_nothing(): pass\n")
    done = collect(case, "-p", "support.rows")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "'C99'" in done.stderr
    case.write_text(case.read_text().replace("C99", "C01"))
    assert collect(case, "-p", "support.rows").returncode == pytest.ExitCode.OK


MARKED = "@pytest.mark.skip('no layer')\ndef test_it(): pass"
WHOLE_MODULE = "pytest.skip('no layer', allow_module_level=True)"


@pytest.mark.parametrize("source", [MARKED, WHOLE_MODULE], ids=["test", "module"])
def test_a_skip_is_a_failure_in_ci_only(tmp_path: Path, source: str) -> None:
    case = tmp_path / "test_case.py"
    case.write_text(f"import pytest\n\n{source}\n\ndef test_other(): pass\n")
    in_ci = collect(case, "-p", "support.rows", CI="true")
    assert in_ci.returncode not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    assert "no layer" in in_ci.stdout
    at_home = collect(case, "-p", "support.rows", CI="false")
    assert at_home.returncode in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
