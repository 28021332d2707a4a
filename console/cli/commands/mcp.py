"""`runfold mcp`: let an agent ask the ledger about runs, over standard input and output."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Final

from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.session import Session
from runfold.ledger.errors import ConfigurationError

TOKEN: Final = "RUNFOLD_TOKEN"  # noqa: S105  the name of a setting
app: Final = program()


@command(app, "mcp", rights="")
async def mcp(session: Session) -> None:
    """Serve an agent's questions over standard input and output.

    It speaks the Model Context Protocol, and reads with the rights of this login. With the secret
    of an API token in RUNFOLD_TOKEN it has that token's rights instead, and may propose. It decides
    nothing. Needs the extra `mcp`.
    """
    if find_spec("mcp") is None:
        raise ConfigurationError("agents are answered with the MCP SDK: install runfold[mcp]")
    from runfold.console.agents.asking import Asking  # noqa: PLC0415  it needs the extra
    from runfold.console.agents.server import server  # noqa: PLC0415  as above

    async with session.ledger() as ledger:
        asking = await Asking.begin(ledger, os.environ.get(TOKEN) or None)
        await server(asking).run_stdio_async()
