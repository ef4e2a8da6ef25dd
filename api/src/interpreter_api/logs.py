"""Logs: one record, one line, plain or JSON; control characters escaped, credentials blotted out."""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from interpreter_api.settings import Settings

#: The request that is being answered, for every record that is made meanwhile.
request_id: ContextVar[str] = ContextVar("request_id", default="")

REDACTED = "[redacted]"

_SECRETS = (
    re.compile(r"(?i)(?P<keep>\bbearer\s+)[\w.~+/=-]+"),
    re.compile(
        r"(?i)(?P<keep>\b(?:x-api-key|api[_-]?key|password|signature|access_token)\b[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;]+"
    ),
    re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)"),
    re.compile(r"(?P<keep>\bpi_)[\w-]{20,}"),
    re.compile(r"(?P<keep>\beyJ)[\w-]+\.[\w-]+\.[\w-]+"),
)
# C0 and C1 controls, DEL, the line and paragraph separators, and what turns the direction of text around.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    """Text that cannot end its line, start a second record or move a terminal's cursor."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text.replace("\\", "\\\\"))


def redact(text: str, known: Iterable[str] = ()) -> str:
    """Text without credentials: those that are known, and whatever looks like one."""
    for secret in known:
        text = text.replace(secret, REDACTED)
    for pattern in _SECRETS:
        text = pattern.sub(lambda match: match["keep"] + REDACTED, text)
    return text


class _OneLine(logging.Formatter):
    def __init__(self, known_secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._known = known_secrets

    def _text(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        return redact(message, self._known)

    def _time(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class PlainFormatter(_OneLine):
    """``time LEVEL logger [request] message``, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        request = f" [{request_id.get()}]" if request_id.get() else ""
        return f"{self._time(record)} {record.levelname:<7} {record.name}{request} {escape(self._text(record))}"


class JsonFormatter(_OneLine):
    """One JSON object, for machines. JSON's own escapes keep it on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "time": self._time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self._text(record),
        }
        if request := request_id.get():
            entry["request_id"] = request
        return json.dumps(entry)


def configure(settings: Settings) -> None:
    """Send every logger of this process to stderr in one format. Stdout stays free: stdio clients speak there."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    secrets = [secret.get_secret_value() for secret in (settings.api_key, settings.azure_client_secret) if secret]
    handler.setFormatter((JsonFormatter if as_json else PlainFormatter)(tuple(secrets)))
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    for noisy in ("asyncio", "httpx2", "httpcore2", "sse_starlette", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    # uvicorn tells of its own starting and stopping; ours says more.
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, logging.getLogger().level))
