"""What callers may send: every bound at its edge, every refusal by the argument's name."""

from __future__ import annotations

import math

import pytest

from interpreter_api.errors import InterpreterError, InvalidArgumentError, TooLargeError
from interpreter_api.services import validate


@pytest.mark.covers("C01")
def test_code_of_exactly_ten_mebibytes_is_accepted_and_one_byte_more_is_not() -> None:
    line = "# é\n".encode()
    code = (line * (validate.MAX_CODE_BYTES // len(line))).decode()
    code += "#" * (validate.MAX_CODE_BYTES - len(code.encode()))
    assert len(code.encode()) == validate.MAX_CODE_BYTES
    validate.check_code(code)
    with pytest.raises(TooLargeError) as caught:
        validate.check_code(code + "#")
    assert caught.value.details["limit_bytes"] == validate.MAX_CODE_BYTES


@pytest.mark.covers("C01")
@pytest.mark.parametrize(
    ("code", "says"),
    [("", "empty"), (" \n\t", "empty"), ("x = '\0'", "NUL"), ("x = '\ud800'", "surrogate (U+D800) at character 5")],
)
def test_code_that_is_no_code_is_refused_and_the_reason_is_named(code: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        validate.check_code(code)
    assert says in caught.value.message
    assert caught.value.details["argument"] == "code"
    caught.value.message.encode()  # sayable


@pytest.mark.covers("C10")
@pytest.mark.parametrize("timeout", [0, -1, 300.001, math.nan, math.inf, -math.inf])
def test_a_timeout_out_of_bounds_names_the_maximum(timeout: float) -> None:
    with pytest.raises(InvalidArgumentError, match="at most 300"):
        validate.check_timeout(timeout, 300)


@pytest.mark.covers("C10")
@pytest.mark.parametrize(("timeout", "seconds"), [(None, 300), (300, 300), (0.001, 0.001)])
def test_a_timeout_within_bounds_is_taken(timeout: float | None, seconds: float) -> None:
    assert validate.check_timeout(timeout, 300) == seconds


@pytest.mark.covers("S01")
@pytest.mark.parametrize(
    "name", ["a/b", "..", "a..b", "\\share", "a\nb", "\0", "\x1b[31m", "\u2028", "n" * 201, "\udfff"]
)
def test_session_names_hold_no_path_no_control_characters_and_have_an_end(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        validate.check_session_name(name)


@pytest.mark.covers("S01")
@pytest.mark.parametrize("name", ["", "n" * 200, "Umsätze 2024, Q1", "🙂", "v1.2"])
def test_session_names_that_people_give_are_taken(name: str) -> None:
    validate.check_session_name(name)


@pytest.mark.attack("FS03")
@pytest.mark.covers("F03")
@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "a/..", "..", "/etc/passwd", "/workspace/../etc", "/workspacex", "a\0b", "", ".", "é" * 513],
)
def test_paths_that_leave_the_workspace_are_refused(path: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        validate.workspace_path(path)
    assert caught.value.details["argument"] == "path"


@pytest.mark.covers("F03")
@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("a.csv", "a.csv"),
        ("./a//b.csv", "a/b.csv"),
        ("/workspace/a.csv", "a.csv"),
        ("..a/b..", "..a/b.."),
        ("é" * 512, "é" * 512),
    ],
)
def test_paths_inside_the_workspace_are_put_into_one_form(path: str, plain: str) -> None:
    assert validate.workspace_path(path) == plain


@pytest.mark.covers("C13")
@pytest.mark.parametrize("execution_id", ["", "a b", "a" * 65, "é", "a\n", "../x"])
def test_execution_ids_that_are_none_are_refused(execution_id: str) -> None:
    with pytest.raises(InterpreterError):
        validate.check_execution_id(execution_id)


@pytest.mark.covers("C13")
def test_execution_ids_of_64_characters_are_taken() -> None:
    validate.check_execution_id("aZ0_-" + "x" * 59)
