"""RFC 9728: where a client that has no key learns which authorization server to ask."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from interpreter_api.auth.oauth import audience
from interpreter_api.errors import NotFoundError

METADATA_PATH = "/.well-known/oauth-protected-resource"

router = APIRouter(include_in_schema=False)


@router.get(METADATA_PATH)
@router.get(METADATA_PATH + "/mcp")
async def protected_resource(request: Request) -> dict[str, Any]:
    """The metadata document; 404 where OAUTH_ISSUER is not set."""
    settings = request.app.state.settings
    if not settings.oauth_issuer:
        raise NotFoundError("this server takes API keys only", remedy="Ask whoever runs it for a key.")
    return {
        "resource": audience(settings),
        "authorization_servers": [settings.oauth_issuer],
        "bearer_methods_supported": ["header"],
        "resource_name": "Power Interpreter",
    }
