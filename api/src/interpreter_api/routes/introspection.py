"""``/api/sessions/{session_id}``: what stands in a session, and how its sandbox is."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from interpreter_api.routes.dependencies import Caller, TheServices, problems
from interpreter_api.services.models import (  # noqa: TC001 - FastAPI reads the annotations
    CodeCompletions,
    KernelHealth,
    ObjectInfo,
    Responsiveness,
    VariableList,
    WorkspaceInfo,
)

router = APIRouter(prefix="/api/sessions/{session_id}", tags=["introspection"])


class CompleteBody(BaseModel):
    """Code and a place in it."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(description="The code as far as it is written; at most 1 MiB.")
    cursor_pos: int = Field(description="Where the cursor is, in characters from the start.")


class InspectBody(CompleteBody):
    """Code, a place in it, and how much to say."""

    detail_level: int = Field(default=0, description="1 adds the source, where there is one.")


@router.get("/variables", responses=problems(404, 409, 502), summary="List a session's variables")
async def list_variables(session_id: str, caller: Caller, services: TheServices) -> VariableList:
    """Runs no code of the objects. A session without a sandbox has none, and gets none by this."""
    return await services.introspection.list_variables(caller, session_id)


@router.post("/complete", responses=problems(400, 404, 409, 413, 502, 503), summary="Complete code")
async def complete(session_id: str, body: CompleteBody, caller: Caller, services: TheServices) -> CodeCompletions:
    """By the living objects of the session."""
    return await services.introspection.complete(caller, session_id, body.code, body.cursor_pos)


@router.post("/inspect", responses=problems(400, 404, 409, 413, 502, 503), summary="Describe an object")
async def inspect(session_id: str, body: InspectBody, caller: Caller, services: TheServices) -> ObjectInfo:
    """The name at the cursor, or the function whose call the cursor is in."""
    return await services.introspection.inspect(
        caller, session_id, body.code, body.cursor_pos, detail_level=body.detail_level
    )


@router.get("/health", responses=problems(404, 502), summary="A session's sandbox by numbers")
async def kernel_health(session_id: str, caller: Caller, services: TheServices) -> KernelHealth:
    """Answers while code runs, too."""
    return await services.introspection.health(caller, session_id)


@router.get("/responsiveness", responses=problems(404, 502), summary="Whether a session's process answers")
async def responsiveness(session_id: str, caller: Caller, services: TheServices) -> Responsiveness:
    """A round trip through the process that runs the code, of at most two seconds."""
    return await services.introspection.responsiveness(caller, session_id)


@router.get("/workspace", responses=problems(404, 502), summary="How full a session's workspace is")
async def workspace_info(session_id: str, caller: Caller, services: TheServices) -> WorkspaceInfo:
    """Files, folders and bytes."""
    return await services.introspection.workspace(caller, session_id)
