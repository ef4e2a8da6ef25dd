"""The docs name what exists: make targets, routes, files that they link to."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TARGETS = re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_contributing_names_every_make_target(target: str) -> None:
    assert f"`make {target}`" in (ROOT / "CONTRIBUTING.md").read_text()


def test_no_page_names_a_make_target_that_is_not_there() -> None:
    named = {target for page in PAGES for target in re.findall(r"`make ([a-z][a-z-]*)[^`]*`", page.read_text())}
    assert named >= {"run", "test", "bench"}
    assert named <= set(TARGETS)


def test_every_target_is_phony() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == set(TARGETS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    local = [link.split("#")[0] for link in links if not re.match(r"[a-z]+:", link) and not link.startswith("#")]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_page_can_be_found_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [(ROOT / "README.md").resolve()]
    while todo:
        page = todo.pop()
        seen.add(page)
        for link in re.findall(r"\]\(([^)\s#:]+\.md)[^)]*\)", page.read_text()):
            target = (page.parent / link).resolve()
            if target not in seen:
                todo.append(target)
    lost = {page.relative_to(ROOT).as_posix() for page in PAGES if page.resolve() not in seen}
    assert lost <= {"CHANGELOG.md"}


def test_the_rest_page_is_the_one_that_the_app_describes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.delitem(sys.modules, "rest_reference", raising=False)
    import rest_reference

    assert rest_reference.PAGE.read_text() == rest_reference.page(), "python tools/rest_reference.py"


def test_every_refusal_is_explained() -> None:
    from interpreter_api import errors

    known: set[type[errors.InterpreterError]] = set()
    todo = [errors.InterpreterError]
    while todo:
        found = todo.pop()
        known.add(found)
        todo += found.__subclasses__()
    text = (ROOT / "docs" / "failure-modes.md").read_text()
    assert [error.code for error in known if f"`{error.code}`" not in text] == []
