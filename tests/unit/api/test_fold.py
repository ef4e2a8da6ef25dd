"""Folding events: complete for honest ones, bounded and encodable for hostile ones."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from interpreter_api.services import fold
from interpreter_api.services.answers import error_of
from interpreter_api.services.fold import Folded, clean, clean_text
from interpreter_sandbox.protocol import Event

PNG = base64.b64encode(b"\x89PNG picture").decode()


def folded(*events: tuple[str, dict[str, Any]]) -> Folded:
    result = Folded()
    for seq, (name, data) in enumerate(events):
        result.add(Event(seq, name, data))  # type: ignore[arg-type]
    return result


def done(**data: Any) -> tuple[str, dict[str, Any]]:
    return "done", {"status": "ok", "elapsed_ms": 1.5, "execution_count": 1, "state": "kept"} | data


@pytest.mark.covers("C01")
def test_an_honest_run() -> None:
    f = folded(
        ("started", {"execution_count": 1}),
        ("stdout", {"text": "a\n"}),
        ("stderr", {"text": "w"}),
        ("stdout", {"text": "b\n"}),
        ("display", {"data": {"text/html": "<b>"}, "metadata": {}, "chart": None}),
        ("result", {"data": {"text/plain": "2"}, "metadata": {}, "chart": None}),
        done(files=[{"path": "a.csv", "size": 3, "modified": 1.0, "is_dir": False}]),
    )
    assert ("".join(f.stdout), "".join(f.stderr), f.result) == ("a\nb\n", "w", "2")
    assert f.displays == [{"text/html": "<b>"}]
    assert [e.path for e in f.files] == ["a.csv"]
    assert (f.status, f.state_lost, f.elapsed_ms) == ("ok", False, 1.5)
    assert error_of(f) is None


@pytest.mark.covers("C05")
def test_a_chart_is_kept_once_and_the_rest_of_its_bundle_stays() -> None:
    chart = {"name": "chart-1.png", "origin": "show", "mime_type": "image/png", "path": None}
    plotly = {"text/plain": "Figure", "image/png": PNG, "application/vnd.plotly.v1+json": {"data": []}}
    f = folded(
        ("display", {"data": {"image/png": PNG, "text/plain": "<Figure>"}, "metadata": {}, "chart": chart}),
        ("result", {"data": plotly, "metadata": {}, "chart": chart | {"origin": "display"}}),
        done(),
    )
    assert [(c.origin, c.data) for c in f.charts] == [("show", b"\x89PNG picture"), ("display", b"\x89PNG picture")]
    assert f.displays == []
    assert f.result_data == {"text/plain": "Figure", "application/vnd.plotly.v1+json": {"data": []}}


def test_a_stream_taken_up_again_counts_nothing_twice() -> None:
    f = Folded()
    f.add(Event(0, "stdout", {"text": "a"}))
    f.add(Event(0, "stdout", {"text": "a"}))
    f.add(Event(1, *done()))  # type: ignore[arg-type]
    f.add(Event(2, "stdout", {"text": "late"}))
    assert f.stdout == ["a"]


@pytest.mark.attack("RES19")
@pytest.mark.parametrize(
    "events",
    [
        [("stdout", {"text": 5}), ("stdout", {}), done()],
        [("display", {"data": [1], "chart": {"origin": 7, "mime_type": [], "name": None}}), done()],
        [("display", {"data": {"image/png": "%%%"}, "chart": {"origin": "show", "mime_type": "image/png"}}), done()],
        [("error", {"code": {}, "traceback": "no list", "message": ["x"]}), done(status="error")],
        [done(status=["ok"], elapsed_ms=float("nan"), files={"a": 1}, notes="abc", dropped_stdout_bytes="9")],
        [done(files=[{"path": 1}, None, {"path": "d", "is_dir": True}, {"path": "x", "size": float("inf")}])],
    ],
)
def test_forged_events_never_raise_and_never_become_success_by_accident(events: list[Any]) -> None:
    f = folded(*events)
    assert f.status is not None
    error_of(f)
    json.dumps([f.stdout, f.displays, f.notes, f.result_data], allow_nan=False)


@pytest.mark.attack("RES14")
def test_a_status_that_is_not_ok_always_has_an_error() -> None:
    for status in ("error", "timeout", "interrupted", "memory_limit", "crashed", "nonsense"):
        error = error_of(folded(done(status=status, state="lost")))
        assert error is not None
        assert error.message


@pytest.mark.attack("RES12")
def test_a_flood_is_bounded_and_counted() -> None:
    f = Folded()
    for seq in range(10):
        f.add(Event(seq, "stdout", {"text": "x" * (1 << 20)}))
    f.add(Event(10, *done()))  # type: ignore[arg-type]
    assert sum(map(len, f.stdout)) == fold.STREAM_CHARS
    assert any(str((10 << 20) - fold.STREAM_CHARS) in note for note in f.notes)


@pytest.mark.attack("RES12")
def test_displays_and_notes_are_bounded() -> None:
    f = Folded()
    for seq in range(1000):
        f.add(Event(seq, "display", {"data": {"text/html": "x" * 100_000}, "chart": None}))
    assert len(f.displays) <= fold.MAX_DISPLAYS
    assert sum(len(d["text/html"]) for d in f.displays) <= fold.BUNDLE_BYTES
    assert len(f.notes) <= fold.MAX_NOTES


@pytest.mark.attack("RES20")
def test_what_cannot_be_encoded_is_made_encodable() -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    value = clean({"a\ud800": [float("nan"), "\udfff", "ok\U0001f642", deep]})
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert clean_text("é\U0001f642") == "é\U0001f642"
    assert clean_text("\ud83d\ude42") == "\U0001f642"
    assert clean_text("a\ud800") == "a\ufffd"


@pytest.mark.attack("RES12", "RES19")
def test_a_flood_of_displays_does_not_push_out_what_else_must_be_said() -> None:
    """Notes are bounded: what was left out is one of them, however often, and what comes later has its place."""
    folded = Folded()
    for seq in range(1000):
        folded.add(Event(seq, "display", {"data": {"text/plain": f"{seq}"}}))
    folded.add(Event(1000, "done", {"status": "ok", "state": "kept", "dropped_stdout_bytes": 7, "notes": ["last"]}))
    assert len(folded.displays) < 1000
    assert any(str(1000 - len(folded.displays)) in note for note in folded.notes)
    assert any("7 bytes" in note for note in folded.notes)
    assert "last" in folded.notes


@pytest.mark.attack("RES12", "RES19")
def test_values_without_number_are_left_out_and_their_text_kept() -> None:
    """Each value costs the shared api, so there is a limit on their number; a result's text is not lost with them."""
    folded = Folded()
    folded.add(Event(0, "result", {"data": {"text/plain": "[...]", "application/json": [[]] * 200_000}}))
    folded.add(Event(1, "display", {"data": {"application/json": [1, 2]}}))
    folded.add(Event(2, "done", {"status": "ok", "state": "kept"}))
    assert (folded.result, folded.result_data) == ("[...]", {"text/plain": "[...]"})
    assert folded.displays == [{"application/json": [1, 2]}]
    assert any("1 displayed object" in note for note in folded.notes)


def test_a_result_that_is_cut_is_said() -> None:
    """Not silently."""
    folded = Folded()
    folded.add(Event(0, "result", {"data": {"text/plain": "x" * ((1 << 20) + 5)}}))
    assert len(folded.result or "") == 1 << 20
    assert any("5 characters" in note for note in folded.notes)
