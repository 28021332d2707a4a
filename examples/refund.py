"""A refund that a person approves: `runfold worker examples.refund`.

runfold submit refund order=A-17 amount:=250
"""

from __future__ import annotations

from pydantic import BaseModel

from runfold import Backoff, Context, Fail, handler

FREE_BELOW = 100


class Request(BaseModel):
    """What is asked for."""

    order: str
    amount: int


class Outcome(BaseModel):
    """What came of it."""

    sent: int
    approved_by: str | None = None


@handler("refund", retry=Backoff(first=1, limit=60))
async def refund(ctx: Context, request: Request) -> Outcome | Fail:
    """Check the policy, ask a person where it is much, and pay once."""
    limit = await ctx.step("policy", look_policy_up, request.order)
    if request.amount > limit:
        return Fail("E-POLICY", {"limit": limit})
    approver = None
    if request.amount > FREE_BELOW:
        decision = await ctx.approval(
            f"Refund ${request.amount} on {request.order}?", show=request, other_person=True
        )
        approver = decision.actor
    await ctx.tool("pay", lambda: pay(request, key=ctx.key))
    return Outcome(sent=request.amount, approved_by=approver)


async def look_policy_up(order: str) -> int:
    """Stand in for a look into a database."""
    return 50 if order.startswith("GIFT") else 1_000


async def pay(request: Request, key: str) -> str:
    """Stand in for a payment service, which pays once for a key however often it is asked."""
    return f"{request.amount} paid under {key}"
