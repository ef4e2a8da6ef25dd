"""Names on the wire, without the SDK: ``power-interpreter stdio`` must start fast, and ``mcp`` takes a second to load.

``tests/unit/api/test_mcp_headers.py`` holds them against the SDK's own.
"""

from __future__ import annotations

import base64
import re

SESSION_HEADER = "mcp-session-id"
PROTOCOL_VERSION_HEADER = "mcp-protocol-version"
METHOD_HEADER = "mcp-method"
NAME_HEADER = "mcp-name"
PROTOCOL_VERSION_META = "io.modelcontextprotocol/protocolVersion"
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""The parameter that :data:`NAME_HEADER` repeats, by method."""

_PLAIN = re.compile(r"[\x20-\x7E]*")
_ENCODED = re.compile(r"=\?base64\?.*\?=")


def header_value(value: str) -> str:
    """The text as a header can carry it: as it is, or as ``=?base64?...?=``."""
    if _PLAIN.fullmatch(value) and value == value.strip() and not _ENCODED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'replace')).decode()}?="
