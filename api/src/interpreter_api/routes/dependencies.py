"""What every route takes: the caller and the services, both put in place before a route runs.

The dependencies are coroutines because FastAPI sends plain functions through a thread, twice a request.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel, Field

from interpreter_api.errors import UnauthorizedError
from interpreter_api.services.container import Services
from interpreter_api.services.ports import Principal


class Problem(BaseModel):
    """An error, as RFC 9457 problem details (``application/problem+json``)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable and meant for programs.")
    remedy: str = Field(description="What the caller can do about it.")
    retryable: bool
    details: dict[str, Any] = Field(default_factory=dict, description="Ids and limits that belong to the error.")


async def services(request: Request) -> Services:
    """The services of this app."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


async def principal(request: Request) -> Principal:
    """Who calls; the authentication in front of every route has put it there."""
    found = request.scope.get("state", {}).get("principal")
    if not isinstance(found, Principal):
        raise UnauthorizedError("No valid API key.")
    return found


Caller = Annotated[Principal, Depends(principal)]
TheServices = Annotated[Services, Depends(services)]

_MEANINGS = {
    400: "A value that must be changed.",
    401: "No valid API key.",
    403: "The link is altered or expired.",
    404: "Unknown, or not the caller's: the same answer.",
    409: "Busy, or an execution_id used for something else.",
    413: "Over a size limit.",
    416: "A byte range beyond the file's end.",
    502: "The sandbox died under the call.",
    503: "No sandbox free, or none possible on this machine.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI descriptions of a route's errors."""
    return {
        status: {
            "description": _MEANINGS[status],
            "model": Problem,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({401, *statuses})
    }
