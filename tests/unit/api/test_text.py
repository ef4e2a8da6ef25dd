"""The text a model reads: everything that matters, in order, once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from interpreter_api.services.models import ChartLink, ExecutionErrorInfo, ExecutionResult, FileLink, SessionInfo
from interpreter_api.services.text import MAX_CHARS, render

LATER = datetime(2030, 1, 1, tzinfo=UTC)


def result(**values: object) -> ExecutionResult:
    base = {
        "execution_id": "exe_x",
        "success": True,
        "stdout": "",
        "stderr": "",
        "result": None,
        "elapsed_ms": 1.0,
        "session_info": SessionInfo(session_id="ses_x", created=False, restored=False, state="kept", expires_at=LATER),
    }
    return ExecutionResult.model_validate(base | values)


def file(name: str, file_id: str = "fil_1") -> FileLink:
    return FileLink(
        id=file_id,
        name=name,
        path=name,
        uri=f"kernel://ses_x/{name}",
        url=f"http://h/dl/{file_id}/{name}?expires=1&signature=s",
        mime_type="image/png",
        size=2048,
        sha256="0" * 64,
        expires_at=LATER,
    )


@pytest.mark.covers("C01", "C06")
def test_output_then_result_then_links() -> None:
    text = render(result(stdout="hello\n", result="42", files=[file("a.csv")]))
    assert text == "hello\n42\nFile: a.csv (2.0 KiB) http://h/dl/fil_1/a.csv?expires=1&signature=s"


@pytest.mark.covers("C05", "C06")
def test_a_saved_figure_is_linked_once() -> None:
    chart = ChartLink(**file("a.png").model_dump(), origin="savefig")
    text = render(result(charts=[chart], files=[file("a.png"), file("b.png", "fil_2")]))
    assert [line.split(":")[0] for line in text.splitlines()] == ["Chart", "File"]


@pytest.mark.covers("C01")
def test_an_error_shows_the_tracebacks_end_its_message_and_the_remedy() -> None:
    error = ExecutionErrorInfo(
        code="user_error",
        type="ValueError",
        message="no",
        traceback=[f"line {n}" for n in range(100)],
        remedy="Try x.",
    )
    text = render(result(success=False, error=error))
    assert "line 99" in text
    assert "line 0\n" not in text
    assert "70 lines of the traceback left out" in text
    assert text.endswith("[user_error] ValueError: no\nTry x.")


@pytest.mark.covers("C01")
def test_lost_state_and_notes_are_said() -> None:
    info = SessionInfo(
        session_id="ses_x", created=False, restored=False, state="lost", notice="Variables are gone.", expires_at=LATER
    )
    text = render(result(session_info=info, notes=["b.bin was not linked"]))
    assert text == "[session] Variables are gone.\n[note] b.bin was not linked"


def test_nothing_is_said_as_nothing() -> None:
    assert render(result()) == "(no output)"


@pytest.mark.attack("RES12")
def test_a_long_output_loses_its_middle_and_says_how_much() -> None:
    text = render(result(stdout="a" * MAX_CHARS + "b" * MAX_CHARS))
    assert len(text) < MAX_CHARS + 200
    assert f"{MAX_CHARS} characters left out" in text
    assert text.startswith("aaa")
    assert text.endswith("bbb")
