"""The MCP server as an HTTP application; `ASKING` holds the agent of each request."""

from __future__ import annotations

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette

from runfold.console.agents.asking import CurrentAsking
from runfold.console.agents.server import server


def served(path: str, has_token: bool) -> Starlette:  # noqa: FBT001  called through its module
    """Return the application, which is stateless and answers in plain JSON.

    The web application around it checks hosts, origins, tokens, rates and the size of a body.
    """
    return server(CurrentAsking(has_token)).streamable_http_app(
        streamable_http_path=path,
        json_response=True,
        stateless_http=True,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
