"""The gate before every route and the MCP endpoints: Host, Origin, then who calls. Pure ASGI, so streams stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interpreter_api.auth import credentials
from interpreter_api.errors import ForbiddenError, InterpreterError, RateLimitedError, UnauthorizedError
from interpreter_api.problems import plain_problem, problem

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from interpreter_api.auth.addresses import Addresses
    from interpreter_api.auth.failures import FailureLimiter
    from interpreter_api.auth.keys import ApiKeys
    from interpreter_api.auth.oauth import OAuthTokens
    from interpreter_api.metrics import Metrics
    from interpreter_api.services.ports import Principal

#: Probes and scrapers come by pod address and without a key; what they see names nobody. Links carry signatures.
PROBES = frozenset({"/health", "/ready", "/metrics"})
_PUBLIC = PROBES | {"/docs", "/openapi.json"}
_PUBLIC_PREFIXES = ("/dl/", "/.well-known/oauth-protected-resource")


def is_public(path: str) -> bool:
    """Whether a path is served without a credential."""
    return path in _PUBLIC or path.startswith(_PUBLIC_PREFIXES)


class HostAndOrigin:
    """421 for a Host that is not this server, 403 for a browser page of somebody else."""

    def __init__(self, app: ASGIApp, addresses: Addresses) -> None:
        self._app = app
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # there is none here, and none may slip by
            return
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        if scope["path"] not in PROBES and not self._addresses.host_is_ours(scope):
            return plain_problem(421, "misdirected_request", "this server does not answer to that Host")
        if not self._addresses.origin_is_allowed(scope):
            remedy = "Whoever runs the server can name the origin in ALLOWED_ORIGINS."
            return problem(ForbiddenError("requests from that Origin are refused", remedy=remedy))
        return None


class Authenticate:
    """401 without a valid credential, else the ``Principal`` in ``scope["state"]["principal"]``."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        addresses: Addresses,
        failures: FailureLimiter,
        metrics: Metrics,
        challenge: str,
    ) -> None:
        """``challenge`` is the WWW-Authenticate header; the checkers come with the first request's app state."""
        self._app = app
        self._addresses = addresses
        self._failures = failures
        self._metrics = metrics
        self._challenge = challenge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_public(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            principal = await self._principal(scope)
        except UnauthorizedError as error:
            await problem(error, {"WWW-Authenticate": self._challenge})(scope, receive, send)
            return
        except RateLimitedError as error:
            wait = str(error.details["retry_after_seconds"])
            await problem(error, {"Retry-After": wait})(scope, receive, send)
            return
        except InterpreterError as error:
            await problem(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        await self._app(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal:
        credentials.refuse_key_in_url(scope["query_string"])
        credential = credentials.find(scope["headers"])
        state = scope["app"].state
        keys: ApiKeys = state.api_keys
        oauth: OAuthTokens | None = state.oauth
        client = self._addresses.client(scope)
        wait = self._failures.wait_seconds(client)
        if wait and not (credential and keys.familiar(credential.value)):
            # Whoever shares the address with a guesser may go on with a key that has worked before.
            raise RateLimitedError("too many invalid credentials from this address", retry_after_seconds=wait)
        if credential is not None:
            principal = await keys.principal(credential.value)
            if principal is None and oauth is not None and credential.bearer:
                principal = await oauth.principal(credential.value)
            if principal is not None:
                return principal
            self._failures.failed(client)
        self._metrics.refused_credential()
        raise UnauthorizedError("a valid API key is required")
