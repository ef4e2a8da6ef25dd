"""Whether the server lives and works: for probes, for Prometheus, and for the person who runs it. No key needed."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from interpreter_api import __version__

if TYPE_CHECKING:
    from interpreter_api.metrics import Metrics
    from interpreter_api.platform import Platform

router = APIRouter(tags=["health"])


class DatabaseHealth(BaseModel):
    """The database, as the server reaches it."""

    kind: Literal["embedded", "external"]
    ready: bool
    superuser: bool | None = Field(
        description="True is a finding: the server needs no such right. None: not known now."
    )


class SandboxHealth(BaseModel):
    """How code is isolated here; where ``ready`` is false nothing is executed and ``remedy`` is the fix."""

    kind: str
    ready: bool
    detail: str
    remedy: str


class Health(BaseModel):
    """The posture of this server. ``degraded`` names each layer that is missing, with its consequence."""

    status: Literal["ok", "degraded"]
    version: str
    database: DatabaseHealth
    sandbox: SandboxHealth
    degraded: list[str]


class Readiness(BaseModel):
    """``ready``: requests are answered. ``execution``: code is executed; false where it cannot be isolated."""

    ready: bool
    database: bool
    execution: bool


def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


@router.get("/health")
async def health(request: Request) -> Health:
    """Alive, with the posture: always 200 while the process can answer."""
    platform = _platform(request)
    rights = await platform.database.rights()
    posture = platform.backend.posture()
    degraded = list(posture.degraded)
    if not posture.ready:
        degraded.insert(0, f"code is not executed: {posture.detail}")
    if rights is None:
        degraded.insert(0, "the database does not answer: sessions, files and results are out of reach")
    elif rights.superuser:
        degraded.append("the database role is a superuser: give the server a role of its own")
    sandbox = {name: value for name, value in asdict(posture).items() if name != "degraded"}
    return Health(
        status="degraded" if degraded else "ok",
        version=__version__,
        database=DatabaseHealth(
            kind=platform.database_kind, ready=rights is not None, superuser=rights.superuser if rights else None
        ),
        sandbox=SandboxHealth(**sandbox),
        degraded=degraded,
    )


@router.get("/ready", responses={503: {"model": Readiness, "description": "The database does not answer."}})
async def ready(request: Request, response: Response) -> Readiness:
    """200 where requests should be sent here.

    A machine that cannot isolate code is ready with ``execution: false``: every other call works, and executing
    calls are answered with the fix, which a client behind a probe that fails would never see.
    """
    platform = _platform(request)
    database = await platform.database.health()
    if not database:
        response.status_code = 503
    return Readiness(ready=database, database=database, execution=platform.backend.posture().ready)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Prometheus metrics: counts and times by route, status and state; no id, name or path of anybody."""
    platform = _platform(request)
    counters: Metrics = request.app.state.metrics
    database, sandboxes = await asyncio.gather(platform.database.health(), platform.backend.list())
    counters.ready("database", database)
    counters.ready("execution", platform.backend.posture().ready)
    counters.sandboxes(Counter(sandbox.state for sandbox in sandboxes))
    return Response(counters.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
