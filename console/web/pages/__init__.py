"""The pages: server-rendered, mounted beside the API; each is whole without its script."""

from __future__ import annotations

from fastapi import APIRouter

from runfold.console.web.pages import (
    approvals,
    archive,
    audit,
    bulk,
    chain,
    cost,
    integrity,
    kinds,
    live,
    overview,
    projections,
    provider,
    run,
    runs,
    sign_in,
    webhooks,
    whatif,
    workers,
)


def routers() -> tuple[APIRouter, ...]:
    """Return the routers of all pages."""
    modules = (
        sign_in, provider, live, overview, runs, run, chain, bulk, approvals, workers, kinds,
        projections, integrity, audit, cost, whatif, archive, webhooks,
    )  # fmt: skip
    return tuple(module.pages for module in modules)
