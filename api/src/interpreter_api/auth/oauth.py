"""OAuth 2.1 resource server: access tokens (JWT, RFC 9068) of one issuer, meant for this server and no other."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Self

import httpx2
import jwt

from interpreter_api.services.ports import Principal

if TYPE_CHECKING:
    from interpreter_api.data.principals import Principals
    from interpreter_api.settings import Settings

log = logging.getLogger(__name__)

#: Signatures made with a public key only: a shared secret or "none" would let the token's sender choose.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_KEYS_SECONDS = 600.0
_RETRY_SECONDS = 10.0
_LEEWAY_SECONDS = 30
_LONGEST_TOKEN = 16_384
_LONGEST_DOCUMENT = 1 << 20


def audience(settings: Settings) -> str:
    """What a token must be for: this server's MCP endpoint, unless a setting says otherwise."""
    return settings.oauth_audience or f"{settings.base_url}/mcp"


class OAuthTokens:
    """Checks tokens; an async context manager that holds the HTTP client for the issuer's keys."""

    def __init__(self, settings: Settings, principals: Principals) -> None:
        assert settings.oauth_issuer is not None
        self._issuer = settings.oauth_issuer
        self._audience = audience(settings)
        self._principals = principals
        self._http = httpx2.AsyncClient(timeout=5, follow_redirects=False)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._fetching = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Nothing is fetched yet: an issuer that is down must not stop the server."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the client."""
        await self._http.aclose()

    async def principal(self, token: str) -> Principal | None:
        """The token's subject as a principal, else None, whatever is wrong with the token."""
        if len(token) > _LONGEST_TOKEN or token.count(".") != 2:
            return None
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(str(header.get("kid", "")))
            if key is None or header.get("alg") not in _ALGORITHMS:
                return None
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=[self._issuer, self._issuer + "/"],
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            log.info("refused a token: %s", error)
            return None
        name = str(claims.get("email") or claims.get("client_id") or claims["sub"])
        row = await self._principals.by_subject(self._issuer, str(claims["sub"]), name)
        return Principal(row.id, row.tenant_id, row.name, row.is_admin)

    async def _key(self, kid: str) -> jwt.PyJWK | None:
        """The issuer's key; asks again for one that is not known, but not more often than every 10 s."""
        now = time.monotonic()
        stale = now - self._fetched > _KEYS_SECONDS or kid not in self._keys
        if stale and now - self._tried > _RETRY_SECONDS:
            async with self._fetching:
                if now > self._tried:
                    self._tried = time.monotonic()
                    await self._fetch()
        if not kid and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        try:
            keys = await self._get(await self._keys_url())
            found = jwt.PyJWKSet.from_dict(keys)
        except (httpx2.HTTPError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            log.warning("the keys of OAUTH_ISSUER cannot be read: %s: %s", type(error).__name__, error)
            return
        self._keys = {key.key_id or "": key for key in found.keys}
        self._fetched = time.monotonic()

    async def _keys_url(self) -> str:
        for name in ("openid-configuration", "oauth-authorization-server"):
            try:
                document = await self._get(f"{self._issuer}/.well-known/{name}")
            except httpx2.HTTPStatusError:
                continue
            if str(document["issuer"]).rstrip("/") != self._issuer:
                raise ValueError("the metadata names another issuer")
            return str(document["jwks_uri"])
        raise ValueError("the issuer publishes no metadata")

    async def _get(self, url: str) -> dict[str, Any]:
        answer = await self._http.get(url)
        answer.raise_for_status()
        if len(answer.content) > _LONGEST_DOCUMENT:
            raise ValueError("the document is too large")
        document = answer.json()
        if not isinstance(document, dict):
            raise TypeError("the document is not an object")
        return document
