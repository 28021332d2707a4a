"""Agents: the Model Context Protocol over HTTP, with the rights of the bearer token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from runfold.console.web.callers import Callers, caller
from runfold.ledger import Ledger

router = APIRouter()
Agent = Annotated[Ledger, Depends(caller("read", "submit"))]


@router.post("/mcp", include_in_schema=False)
async def mcp(ledger: Agent, request: Request) -> Response:
    """Answer one message of an agent. Needs the right read, or submit to propose alone."""
    callers: Callers = request.app.state.callers
    own = callers.of_server(ledger.project_id)
    has_token = "authorization" in request.headers
    answer: Response = await request.app.state.agents.answer(ledger, own, has_token=has_token)
    return answer
