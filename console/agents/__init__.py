"""The MCP server: agents ask the ledger about runs, and may propose, never decide.

Needs the extra `runfold[mcp]`; see docs/howto/agents.md.
"""
