"""Errors as RFC 9457 problem details, for routes and for middleware alike."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interpreter_api.errors import InterpreterError

MEDIA_TYPE = "application/problem+json"


def problem(error: InterpreterError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer for an error of the tree: its ``as_dict`` plus the standard members."""
    return _render(error.status, error.as_dict(), headers)


def plain_problem(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer for what the tree does not name: a method that a path has not, a body that stopped coming."""
    retryable = status in {408, 429, 503}
    return _render(status, {"code": code, "message": message, "remedy": "", "retryable": retryable}, headers)


def _render(status: int, body: dict[str, object], headers: Mapping[str, str] | None) -> Response:
    standard = {
        "type": f"urn:power-interpreter:error:{body['code']}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": body["message"],
    }
    # Lone surrogates in a message (from a client's path, say) would be no UTF-8: ASCII escapes carry everything.
    content = json.dumps(standard | body, default=str)
    return Response(content, status, headers={"Cache-Control": "no-store", **(headers or {})}, media_type=MEDIA_TYPE)
