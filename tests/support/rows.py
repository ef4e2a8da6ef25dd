"""A pytest plugin: which rows of the checklist and which attacks the collected tests cite.

``@pytest.mark.covers("C01")`` and ``@pytest.mark.attack("FS01")`` take ids of ``tests/contract/rows.toml`` only: an id
that is not there stops the collection. ``--rows-report=FILE`` writes what was cited, as JSON, for the contract test
that asks whether every promise has its test. Under ``CI=true`` a skipped test is a failed one: a layer that is
missing there is a finding, not a pass.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

ROWS_FILE = Path(__file__).parent.parent / "contract" / "rows.toml"
SECTIONS = {"covers": "rows", "attack": "attacks"}


def promises() -> dict[str, dict[str, dict[str, Any]]]:
    """``{"rows": {id: entry}, "attacks": {id: entry}}`` as rows.toml has them."""
    return tomllib.loads(ROWS_FILE.read_text())


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that asks for the report."""
    parser.addoption("--rows-report", metavar="FILE", help="write the cited rows and attacks as JSON")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gather the citations, before anything is deselected."""
    known = promises()
    cited: dict[str, dict[str, list[str]]] = {"rows": {}, "attacks": {}}
    for item in items:
        if item.get_closest_marker("skip") or item.get_closest_marker("xfail"):
            continue  # such a test proves nothing
        for marker, section in SECTIONS.items():
            for mark in item.iter_markers(marker):
                for cited_id in mark.args:
                    if cited_id not in known[section]:
                        raise pytest.UsageError(
                            f"{item.nodeid} cites {cited_id!r}, which {ROWS_FILE.name} does not have"
                        )
                    cited[section].setdefault(cited_id, []).append(item.nodeid)
    report = config.getoption("--rows-report")
    if report:
        Path(report).write_text(json.dumps(cited, indent=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip in CI is a failure that says why."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"nothing is skipped in CI: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    report = yield
    if report.outcome == "skipped" and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"nothing is skipped in CI: {report.longrepr}"
    return report
