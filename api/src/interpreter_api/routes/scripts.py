"""``/api/sessions/{session_id}/scripts``: Python files of a workspace, saved and run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from interpreter_api.routes.dependencies import Caller, TheServices, problems
from interpreter_api.routes.execute import while_connected
from interpreter_api.services.models import ExecutionResult, FileWritten
from interpreter_api.services.ports import RunScriptCommand

router = APIRouter(prefix="/api/sessions/{session_id}/scripts", tags=["code"])


class SaveScriptBody(BaseModel):
    """A script to save."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="A file name without folders; .py is added where it is missing.")
    content: str = Field(description="Python source. At most 10 MiB of UTF-8.")


class RunScriptBody(BaseModel):
    """A script to run."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="Relative to the session's workspace, such as scripts/report.py.")
    args: list[str] = Field(default=[], description="sys.argv[1:].")
    timeout: float | None = Field(default=None, description="Seconds; 120 where absent, or the class's limit if lower.")


@router.post("", status_code=201, responses=problems(400, 404, 413, 502, 503), summary="Save a script")
async def save_script(
    session_id: str, caller: Caller, services: TheServices, body: Annotated[SaveScriptBody, Body()]
) -> FileWritten:
    """Written to `scripts/` in the workspace; one of that name is replaced."""
    return await services.scripts.save(caller, session_id, body.name, body.content)


@router.post(
    "/run",
    response_model=ExecutionResult,
    responses=problems(400, 404, 409, 502, 503),
    summary="Run a script",
)
async def run_script(
    session_id: str,
    request: Request,
    caller: Caller,
    services: TheServices,
    body: Annotated[RunScriptBody, Body()],
) -> Response:
    """As `python path args...` in the workspace, apart from the session's variables.

    Answers like `/api/execute`; an exit code other than 0 is `success: false`. A client that goes away interrupts it.
    """
    command = RunScriptCommand(body.path, body.args, session_id, body.timeout)
    result = await while_connected(request, services.scripts.run(caller, command))
    return Response(result.model_dump_json(), media_type="application/json")
