"""Who is at the other end: the client's address, and whether the Host and Origin of a request are ours."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import Scope

    from interpreter_api.settings import Settings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ANY_ADDRESS = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - compared, not bound


def header(scope: Scope, name: bytes) -> list[str]:
    """Every value of a header, in order."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


class Addresses:
    """The rules that settings make."""

    def __init__(self, settings: Settings) -> None:
        own = {urlsplit(settings.base_url).hostname or ""}
        if settings.host in _ANY_ADDRESS:
            # The server answers on addresses that it does not know: only PUBLIC_BASE_URL or ALLOWED_HOSTS name them.
            known = settings.public_base_url is not None or bool(settings.allowed_hosts)
        else:
            known = True
            own.add(settings.host.strip("[]").lower())
        self._hosts = frozenset(own | _LOOPBACK | {host.lower() for host in settings.allowed_hosts}) if known else None
        self._origins = frozenset({*settings.allowed_origins, _origin_of(settings.base_url)})
        self._proxies = [ipaddress.ip_network(network) for network in settings.trusted_proxies]

    def client(self, scope: Scope) -> str:
        """The client's address: the peer's, or what trusted proxies say in X-Forwarded-For, read from the right."""
        address = str(scope["client"][0]) if scope.get("client") else "unknown"
        hops = [hop.strip() for value in header(scope, b"x-forwarded-for") for hop in value.split(",")]
        while hops and self._is_proxy(address):
            address = hops.pop()
        return address

    def _is_proxy(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._proxies)

    def host_is_ours(self, scope: Scope) -> bool:
        """False where Host is missing, there twice, or a name that nobody gave this server (DNS rebinding)."""
        if self._hosts is None:
            return True
        values = header(scope, b"host")
        return len(values) == 1 and _hostname(values[0]) in self._hosts

    def origin_is_allowed(self, scope: Scope) -> bool:
        """True without Origin (no browser), for ALLOWED_ORIGINS, and for pages of this server itself."""
        values = header(scope, b"origin")
        if not values:
            return True
        if len(values) > 1:
            return False
        origin = values[0].lower()
        if origin in self._origins:
            return True
        hosts = header(scope, b"host")
        return origin in {f"{scheme}://{host.lower()}" for scheme in ("http", "https") for host in hosts}


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()
