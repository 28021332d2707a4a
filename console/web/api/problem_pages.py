"""The addresses that the `type` of a problem names: its meaning, for people and programs."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from runfold.console.web.problems import MEANINGS

router = APIRouter(prefix="/problems", tags=["problems"])
NOT_FOUND: Final = 404


class Explained(BaseModel):
    """A problem's code, the status that it comes with, and its meaning."""

    code: str
    status: int
    meaning: str


@router.get("", operation_id="problems")
async def list_problems() -> list[Explained]:
    """List every problem that the API answers with. Needs no token."""
    return [
        Explained(code=code, status=status, meaning=meaning)
        for code, (status, meaning) in sorted(MEANINGS.items())
    ]


@router.get("/{code}", operation_id="problem")
async def explain(code: str) -> Explained:
    """Explain a problem. Needs no token."""
    if code not in MEANINGS:
        raise HTTPException(NOT_FOUND, "no problem has this code: /v1/problems lists them")
    status, meaning = MEANINGS[code]
    return Explained(code=code, status=status, meaning=meaning)
