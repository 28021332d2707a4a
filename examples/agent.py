"""An agent with tools: `runfold worker examples.agent`, then `runfold submit agent ...`.

    runfold submit agent question='How much SQL?' folder=ledger

Each turn asks a model what to do, does it, and tells the model. A turn that costs more than the run
may spend by itself asks a person. With AGENT_MODEL_URL (and AGENT_MODEL, AGENT_KEY) the model is
any server that speaks the OpenAI chat protocol.
Without it a script stands in for the model, and the answer says so; the tools are real either way.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from runfold import Context, Fail, ToolError, handler

TURNS = 12
FREE_USD = Decimal("0.05")
PROMPT = """Answer the question with the tools. Reply with JSON only:
{"tool": name, "arguments": {...}} or {"answer": text}.
Tools: list_files(folder, suffix), count_lines(paths), read_all(paths), which is expensive."""


class Task(BaseModel):
    """What is asked of the agent, and where it may look."""

    question: str
    folder: str


class Turn(BaseModel):
    """What the model wants next: a tool, or to answer."""

    tool: str | None = None
    arguments: dict[str, Any] = {}
    answer: str | None = None


class Answer(BaseModel):
    """The agent's answer; `model` says who thought."""

    text: str
    model: str
    turns: int


@handler("agent")
async def agent(ctx: Context, task: Task) -> Answer | Fail:
    """Think, act and remember until there is an answer; after a crash it goes on where it was."""
    seen: list[dict[str, Any]] = []
    for number in range(1, TURNS + 1):
        turn = await ctx.step("think", think, ctx, task, seen)
        if turn.answer is not None:
            return Answer(text=turn.answer, model=model_name(), turns=number)
        tool = TOOLS.get(turn.tool or "")
        if tool is None:
            seen.append(
                {"tool": turn.tool, "error": f"there is no such tool; there are {', '.join(TOOLS)}"}
            )
            continue
        price = PRICES.get(tool.__name__, Decimal(0))
        if price > FREE_USD:
            await ctx.approval(
                f"May the agent spend ${price} on {turn.tool}?",
                show=turn,
                other_person=True,
                timeout=86_400,
            )
        try:
            result = await ctx.tool(tool.__name__, paid, ctx, tool, price, turn.arguments)
            seen.append({"tool": turn.tool, "arguments": turn.arguments, "result": result})
        except ToolError as failed:
            seen.append({"tool": turn.tool, "error": failed.message})
    return Fail("E-NO-ANSWER", {"turns": TURNS})


def paid(ctx: Context, tool: Callable[..., Any], price: Decimal, arguments: dict[str, Any]) -> Any:
    """Call a tool and count what it costs."""
    ctx.cost(price)
    return tool(**arguments)


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Name the files under a folder."""
    return sorted(str(path) for path in Path(folder).rglob(f"*{suffix}") if path.is_file())[:500]


def count_lines(paths: list[str]) -> int:
    """Count the lines of files."""
    return sum(len(Path(path).read_text(errors="replace").splitlines()) for path in paths)


def read_all(paths: list[str]) -> str:
    """Return the first words of files, as a model would have to be paid to read them."""
    return " ".join(Path(path).read_text(errors="replace")[:40] for path in paths[:50])


TOOLS: dict[str, Callable[..., Any]] = {
    tool.__name__: tool for tool in (list_files, count_lines, read_all)
}
PRICES = {"read_all": Decimal("0.20")}


def model_name() -> str:
    """Name who thinks: a model, or the script that stands in where none is reachable."""
    return (
        os.environ.get("AGENT_MODEL", "default")
        if "AGENT_MODEL_URL" in os.environ
        else "a script standing in for a model"
    )


def think(ctx: Context, task: Task, seen: list[dict[str, Any]]) -> Turn:
    """Ask the model for the next turn."""
    if "AGENT_MODEL_URL" not in os.environ:
        return scripted(task, seen)
    ask = {
        "role": "user",
        "content": json.dumps({"question": task.question, "folder": task.folder, "done": seen}),
    }
    body = {"model": model_name(), "messages": [{"role": "system", "content": PROMPT}, ask]}
    request = urllib.request.Request(  # noqa: S310  the address is the operator's own setting
        os.environ["AGENT_MODEL_URL"],
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('AGENT_KEY', '')}",
        },
    )
    with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310  as above
        response = json.load(reply)
    ctx.cost(Decimal(response.get("usage", {}).get("total_tokens", 0)) / 1_000_000)
    return Turn.model_validate_json(response["choices"][0]["message"]["content"])


def scripted(task: Task, seen: list[dict[str, Any]]) -> Turn:
    """Stand in for a model: list, read what it cannot be sure of, count, answer."""
    done: dict[str, Any] = {one["tool"]: one.get("result") for one in seen}
    if "list_files" not in done:
        return Turn(tool="list_files", arguments={"folder": task.folder, "suffix": ".sql"})
    if "read_all" not in done:
        return Turn(tool="read_all", arguments={"paths": done["list_files"]})
    if "count_lines" not in done:
        return Turn(tool="count_lines", arguments={"paths": done["list_files"]})
    return Turn(answer=f"{len(done['list_files'])} files with {done['count_lines']} lines")
