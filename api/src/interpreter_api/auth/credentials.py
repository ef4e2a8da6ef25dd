"""Which credential a request carries: exactly one, in a header, or none. Pure functions over ASGI headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from interpreter_api.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Query parameters under which people put keys by mistake. Urls end up in logs, histories and referrers.
KEY_PARAMETERS = frozenset(
    {"api_key", "api-key", "apikey", "x-api-key", "x_api_key", "key", "token", "access_token", "authorization"}
)


@dataclass(frozen=True, slots=True)
class Credential:
    """What was presented. ``bearer`` is True for the Authorization header: it may be an OAuth token."""

    value: str
    bearer: bool

    def __repr__(self) -> str:
        """Never the value."""
        return f"Credential(bearer={self.bearer})"


def find(headers: Iterable[tuple[bytes, bytes]]) -> Credential | None:
    """The request's credential; None where there is none that could be valid.

    Raises ``InvalidArgumentError`` where there are two: proxies and servers that each believe another one are a
    known way around a check.
    """
    found = [(name, value) for name, value in headers if name in {b"authorization", b"x-api-key"}]
    if len(found) > 1:
        raise InvalidArgumentError(
            "more than one credential was sent", remedy="Send one header: 'Authorization: Bearer <key>' or 'X-API-Key'."
        )
    if not found:
        return None
    name, raw = found[0]
    value = raw.decode("latin-1").strip()
    if name == b"x-api-key":
        return Credential(value, bearer=False) if value else None
    scheme, _, token = value.partition(" ")
    token = token.strip()
    return Credential(token, bearer=True) if scheme.lower() == "bearer" and token else None


def refuse_key_in_url(query_string: bytes) -> None:
    """Raise ``InvalidArgumentError`` where the query holds something that looks like a key, valid or not."""
    for name, _ in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name.lower() in KEY_PARAMETERS:
            raise InvalidArgumentError(
                f"credentials in the url are refused (parameter {name.lower()!r})",
                remedy="Send the key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>', and replace a key that "
                "was in a url: urls are kept in logs.",
            )
