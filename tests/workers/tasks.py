"""Handlers that tests start in processes of their own."""

from __future__ import annotations

import asyncio

from workers import Context, handler

PLAIN = 7


@handler("double")
async def double(ctx: Context, number: int) -> int:
    return 2 * number


@handler("hang")
async def hang(ctx: Context) -> None:
    await asyncio.sleep(3600)
