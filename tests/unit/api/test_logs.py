"""Log lines: one record is one line, and no credential gets into it."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from interpreter_api.logs import REDACTED, JsonFormatter, PlainFormatter, redact

NASTY = "x\n2026-01-01T00:00:00Z ERROR forged\r\x1b[2J\x1b]0;title\x07\u2028y\x00\x9b31m\u202e\ud800"


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("test", logging.INFO, "file", 1, message, arguments, None)


@pytest.mark.attack("RES23")
def test_a_plain_record_is_one_line_without_control_characters() -> None:
    line = PlainFormatter(()).format(record("path %s", NASTY))
    assert all(character.isprintable() for character in line)
    assert len(line.splitlines()) == 1
    assert "\\n" in line
    assert "forged" in line


@pytest.mark.attack("RES23")
def test_a_json_record_is_one_object_on_one_line() -> None:
    line = JsonFormatter(()).format(record("path %s", NASTY + '", "level": "CRITICAL'))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["level"] == "INFO"
    assert json.loads(line)["message"].startswith("path x\n")


@pytest.mark.attack("RES23")
def test_a_traceback_stays_inside_its_record() -> None:
    try:
        int("first\nsecond")
    except ValueError:
        failed = logging.LogRecord("test", logging.ERROR, "file", 1, "failed", (), sys.exc_info())
    line = PlainFormatter(()).format(failed)
    assert len(line.splitlines()) == 1
    assert "ValueError: invalid literal" in line
    assert "\\nTraceback" in line


@pytest.mark.attack("CR06")
@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer canary-canary",
        "headers {'x-api-key': 'canary-canary'}",
        "X-API-Key: canary-canary",
        "GET /mcp?api_key=canary-canary&x=1",
        "postgresql://user:canary-canary@host/db",
        "/dl/fil_x/a.csv?expires=1&signature=canary-canary",
        "made pi_canarycanarycanarycanary",
        "token eyJhbGciOiJI.canary-canary.canary-canary",
        'password="canary-canary"',
    ],
)
def test_what_looks_like_a_credential_is_blotted_out(text: str) -> None:
    shown = redact(text)
    assert "canary-canary" not in shown
    assert "canarycanary" not in shown
    assert REDACTED in shown


@pytest.mark.attack("CR06")
def test_a_known_secret_is_blotted_out_wherever_it_stands() -> None:
    line = PlainFormatter(("my own key",)).format(record("saw %r here", "my own key"))
    assert "my own key" not in line
    assert REDACTED in line


def test_ordinary_text_is_left_alone() -> None:
    text = "GET /api/sessions/ses_abc 200 1.5ms client=127.0.0.1 principal=prn_x"
    assert redact(text) == text
