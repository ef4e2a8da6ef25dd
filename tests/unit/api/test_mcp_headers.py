"""The wire names that the stdio bridge uses are the SDK's."""

from __future__ import annotations

import mcp_types
import pytest
from mcp.server import streamable_http
from mcp.shared import inbound

from interpreter_api.mcp import headers


def test_names_are_the_sdks() -> None:
    assert headers.SESSION_HEADER == streamable_http.MCP_SESSION_ID_HEADER
    assert headers.PROTOCOL_VERSION_HEADER == inbound.MCP_PROTOCOL_VERSION_HEADER
    assert headers.METHOD_HEADER == inbound.MCP_METHOD_HEADER
    assert headers.NAME_HEADER == inbound.MCP_NAME_HEADER
    assert headers.PROTOCOL_VERSION_META == mcp_types.PROTOCOL_VERSION_META_KEY
    assert dict(inbound.NAME_BEARING_METHODS) == headers.NAMED_BY


@pytest.mark.parametrize("value", ["plain", "", " edge ", "naïve", "a\nb", "\x7f", "=?base64?eA==?=", "日本"])
def test_a_value_survives_a_header(value: str) -> None:
    assert headers.header_value(value) == inbound.encode_header_value(value)
    assert inbound.decode_header_value(headers.header_value(value)) == value
