"""``POST /api/execute`` and the stored answers of executions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from interpreter_api.errors import InvalidArgumentError
from interpreter_api.routes.dependencies import Caller, TheServices, problems
from interpreter_api.services.models import ExecutionResult
from interpreter_api.services.ports import ExecuteCommand

if TYPE_CHECKING:
    from collections.abc import Awaitable

router = APIRouter(prefix="/api", tags=["code"])


class ExecuteBody(BaseModel):
    """A cell of code to run."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(description="Python, as in an IPython cell. At most 10 MiB of UTF-8.")
    session_id: str = Field(
        default="default",
        description='Where to run it: an id, "default" for the caller\'s own session, "" or "0" for a new one.',
    )
    timeout: float | None = Field(default=None, description="Seconds; the class's limit where absent.")
    execution_id: str | None = Field(
        default=None,
        description="Idempotency key, 1 to 64 of A-Z a-z 0-9 _ -: the same id never runs twice, a repeat gets the "
        "first answer. The header Idempotency-Key says the same.",
    )


@router.post(
    "/execute",
    response_model=ExecutionResult,
    responses=problems(400, 404, 409, 413, 502, 503),
    summary="Run code in a session",
)
async def execute(
    body: ExecuteBody,
    request: Request,
    caller: Caller,
    services: TheServices,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Response:
    """Run one cell and wait for its end. Code that raises is a successful call whose answer says `success: false`.

    A client that goes away interrupts its code.
    """
    if body.execution_id is not None and idempotency_key is not None and body.execution_id != idempotency_key:
        raise InvalidArgumentError("execution_id and the header Idempotency-Key differ.", argument="execution_id")
    command = ExecuteCommand(
        code=body.code,
        session_id=body.session_id,
        timeout_seconds=body.timeout,
        execution_id=body.execution_id if body.execution_id is not None else idempotency_key,
    )
    result = await while_connected(request, services.executions.execute(caller, command))
    # as JSON in one step: FastAPI's way through Python objects costs more than running small code
    return Response(result.model_dump_json(), media_type="application/json")


@router.get(
    "/executions/{execution_id}",
    response_model=ExecutionResult,
    responses=problems(400, 404, 409, 502),
    summary="The answer of an earlier execution",
)
async def get_execution(execution_id: str, caller: Caller, services: TheServices) -> Response:
    """409 `session_busy` while it runs; 409 `outcome_unknown` where the server stopped under it."""
    result = await services.executions.get(caller, execution_id)
    return Response(result.model_dump_json(), media_type="application/json")


async def while_connected(request: Request, work: Awaitable[ExecutionResult]) -> ExecutionResult:
    """Await the work; cancel it where the client closes the connection first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        return await task
    finally:
        gone.cancel()
        task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
