"""A web shop whose orders and runs commit together.

    DATABASE_URL=postgresql+asyncpg://... fastapi run examples/shop.py

The order is the application's own row, in its own SQLAlchemy transaction; the run that fulfils it
is submitted in the same one. Either both exist or neither does, whatever dies in between.
`runfold worker examples.shop` does the runs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field
from sqlalchemy import ForeignKey
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from runfold import Context, Ledger, handler


class Base(DeclarativeBase):
    """The application's own tables."""


class Article(Base):
    """What is sold."""

    __tablename__ = "shop_article"

    name: Mapped[str] = mapped_column(primary_key=True)
    stock: Mapped[int]


class Order(Base):
    """An order, and the run that fulfils it."""

    __tablename__ = "shop_order"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    article: Mapped[str] = mapped_column(ForeignKey("shop_article.name"))
    quantity: Mapped[int]
    run_id: Mapped[UUID]


class Wanted(BaseModel):
    """What a customer asks for."""

    article: str = Field(max_length=100)
    quantity: int = Field(gt=0, le=1_000)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the application's engine and the ledger, for as long as the server runs."""
    url = os.environ["DATABASE_URL"]
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with Ledger.open(url, os.environ.get("RUNFOLD_PROJECT")) as ledger:
        app.state.ledger, app.state.sessions = ledger, async_sessionmaker(engine)
        yield
    await engine.dispose()


app = FastAPI(title="A shop", lifespan=lifespan)


async def transaction(request: Request) -> AsyncIterator[AsyncSession]:
    """Give a request its transaction, which commits when the request has succeeded."""
    async with request.app.state.sessions.begin() as session:
        yield session


def ledger_of(request: Request) -> Ledger:
    """Give a request the ledger."""
    ledger: Ledger = request.app.state.ledger
    return ledger


# `scope="function"`: the transaction commits before the answer is sent.
Session = Annotated[AsyncSession, Depends(transaction, scope="function")]
TheLedger = Annotated[Ledger, Depends(ledger_of)]


@app.post("/orders", status_code=201)
async def order(wanted: Wanted, session: Session, ledger: TheLedger) -> dict[str, Any]:
    """Take an order: its row, the stock, and the run that fulfils it, in one transaction."""
    run = await ledger.submit("fulfil", wanted.model_dump(), connection=session)
    article = await session.get(Article, wanted.article, with_for_update=True)
    if article is None:
        raise HTTPException(404, f"there is no {wanted.article}")
    if article.stock < wanted.quantity:
        # Rolled back, the run that was submitted above never was.
        raise HTTPException(409, f"only {article.stock} left")
    article.stock -= wanted.quantity
    made = Order(article=wanted.article, quantity=wanted.quantity, run_id=run.run_id)
    session.add(made)
    await session.flush()
    return {"number": made.number, "run_id": str(run.run_id)}


@app.get("/orders/{number}")
async def status(number: int, session: Session, ledger: TheLedger) -> dict[str, Any]:
    """Return how far an order is."""
    made = await session.get(Order, number)
    if made is None:
        raise HTTPException(404, f"there is no order {number}")
    run = await ledger.get(made.run_id)
    return {"number": number, "state": run.state, "parcel": run.output}


@handler("fulfil")
async def fulfil(ctx: Context, wanted: Wanted) -> str:
    """Pack and send."""
    weight = await ctx.step("pack", lambda: wanted.quantity * 2)
    return await ctx.step("send", lambda: f"{wanted.quantity} x {wanted.article}, {weight} kg")
