"""The app: middleware, routes and MCP over one platform."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from interpreter_api import __version__
from interpreter_api.access import Access
from interpreter_api.auth.addresses import Addresses
from interpreter_api.auth.failures import FailureLimiter
from interpreter_api.auth.middleware import Authenticate, HostAndOrigin
from interpreter_api.auth.oauth import OAuthTokens
from interpreter_api.errors import InterpreterError, InvalidArgumentError, NotFoundError
from interpreter_api.limits import BodyLimit
from interpreter_api.mcp.server import mount
from interpreter_api.metrics import Metrics
from interpreter_api.platform import open_platform
from interpreter_api.problems import plain_problem, problem
from interpreter_api.routes import docs, health, oauth
from interpreter_api.routes.api import ROUTERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from interpreter_api.settings import Settings

DESCRIPTION = "Runs Python in isolated sandboxes for AI agents and analysts. MCP at /mcp, REST below /api."


def create_app(settings: Settings) -> FastAPI:
    """The whole server as an ASGI app; its lifespan starts and ends everything.

    The caller holds DATA_DIR (:func:`interpreter_api.instance.claim`): ``power-interpreter serve`` does.
    """
    metrics = Metrics()
    addresses = Addresses(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            platform = await stack.enter_async_context(open_platform(settings, metrics))
            app.state.platform = platform
            app.state.services = platform.services
            app.state.api_keys = platform.api_keys
            app.state.oauth = None
            if settings.oauth_issuer:
                app.state.oauth = await stack.enter_async_context(OAuthTokens(settings, platform.principals))
            await stack.enter_async_context(mount(app, platform.services))
            yield

    app = FastAPI(
        title="Power Interpreter",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.metrics = metrics
    for router in (health.router, docs.router, oauth.router, *ROUTERS):
        app.include_router(router)
    _drop_the_default_422(app)

    # The last one added is the outermost.
    app.add_middleware(
        BodyLimit, max_upload_bytes=settings.max_file_size_mb << 20, pause_seconds=float(settings.body_timeout)
    )
    app.add_middleware(
        Authenticate,
        addresses=addresses,
        failures=FailureLimiter(),
        metrics=metrics,
        challenge=_challenge(settings),
    )
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Mcp-Session-Id", "X-Request-Id", "Retry-After", "WWW-Authenticate"],
        )
    app.add_middleware(HostAndOrigin, addresses=addresses)
    app.add_middleware(Access, metrics=metrics, addresses=addresses)

    app.add_exception_handler(InterpreterError, _interpreter_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _drop_the_default_422(app: FastAPI) -> None:
    """FastAPI documents 422 for every route that takes input; ours answer 400 with the same content as any problem."""
    schema = app.openapi()
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _challenge(settings: Settings) -> str:
    challenge = 'Bearer realm="power-interpreter"'
    if settings.oauth_issuer:
        challenge += f', resource_metadata="{settings.base_url}{oauth.METADATA_PATH}"'
    return challenge


async def _interpreter_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, InterpreterError)
    wait = error.details.get("retry_after_seconds")
    return problem(error, {"Retry-After": str(wait)} if wait else None)


async def _validation_error(_: Request, error: Exception) -> Response:
    """Names each field and what is wrong with it; never its value, which may be long or secret."""
    assert isinstance(error, RequestValidationError)
    fields = [
        {"field": ".".join(str(part) for part in found["loc"][1:]) or str(found["loc"][0]), "problem": found["msg"]}
        for found in error.errors()[:20]
    ]
    summary = "; ".join(f"{entry['field']}: {entry['problem']}" for entry in fields)
    return problem(InvalidArgumentError(f"the request is not valid: {summary}", fields=fields))


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem(NotFoundError("there is nothing at this path", remedy="GET /docs lists what there is."))
    codes = {405: "method_not_allowed", 400: "invalid_argument"}
    code = codes.get(error.status_code, f"http_{error.status_code}")
    return plain_problem(error.status_code, code, str(error.detail), error.headers)
