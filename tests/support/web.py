"""Clients of the web application, with and without an API token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from runfold.ledger import Ledger, api_tokens


@asynccontextmanager
async def calling(app: FastAPI, secret: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application that has started; its requests bear the secret."""
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers
        ) as client,
    ):
        yield client


async def sign_in(client: httpx.AsyncClient, secret: str) -> None:
    """Sign a client in with the secret of an API token."""
    entered = await client.post("/sign-in", data={"token": secret})
    assert entered.status_code == 303, entered.text


def words_of(page: httpx.Response) -> str:
    """Return a page with one blank wherever its source has whitespace, as a browser shows it."""
    return " ".join(page.text.split())


async def token(
    ledger: Ledger, rights: Sequence[str], *, actors: Sequence[str] | None = None
) -> tuple[str, str]:
    """Make an API token with rights in the ledger's project; return its credential and secret."""
    credential, secret = await api_tokens.make_token(ledger.project, "test")
    if rights:
        await ledger.grant_access(credential, rights, actors=actors)
    return credential, secret
