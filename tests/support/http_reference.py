"""The page of the HTTP API, written from the OpenAPI of the application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runfold.console.web import app
from runfold.console.web.problems import MEANINGS
from tests.support.command_reference import wrapped

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"
METHODS = ("get", "post", "put", "delete")
HEAD = """\
# HTTP API

What [`runfold serve`](command-line.md) answers, from its OpenAPI 3.1 at `/v1/openapi.json`; `make
reference` writes this page. How a worker uses it: [workers in any
language](../howto/workers-in-any-language.md).

- **Tokens.** `Authorization: Bearer SECRET`; the database checks [its
  rights](../howto/access.md#the-grants) in each request. `Runfold-Project` names the project, else
  it is the server's own. A project without a right in it answers as one that does not exist.
- **Bodies** are JSON, uncompressed, of at most `RUNFOLD_PAYLOAD_LIMIT_BYTES` and 64 KiB. Times are
  in ISO 8601 with their zone, durations in seconds, amounts of money text with six places.
- **Names** of parameters and members that this page does not list are refused with 422: a misspelt
  filter would give more than was asked for. So is an `Idempotency-Key`, `If-Match`,
  `If-None-Match` or `If-Unmodified-Since` of a write that does not look at it.
- **Versions.** The ETag of a run is its version. `If-Match` refuses a write with 412 when the run
  has moved on; a decision names with it the request that was read.
- **Writes** are answered with the run as they left it, without its content: who reads that is [on
  record](../howto/access.md#records-of-reads), and reads it by a request of its own.
- **Leases.** What a worker writes has the `token` and the `worker_id` of its lease: 409
  `lease-lost` when it is not the current one.
- **Lists** have at most `limit` entries; the header `Link` leads to the pages beside.
- **Events** come as a stream of server-sent events. The id of each resumes after it. A server sends
  100 streams at a time, those of live pages included, and at most 50 to one caller.
- **Limits.** Each token may send 200 requests a second, 400 at once, and as many heartbeats. Beyond
  that it is answered 429; `Retry-After` says when to come again.
"""
FOOT = """\
## Problems

An error is an `application/problem+json` of RFC 9457. Its `code` is stable; its `type` leads to its
meaning, `/v1/problems/CODE`. The facts of an error, such as `run_id` or `current_token`, are
members of it.

| status | code | meaning |
|---|---|---|
"""


def page() -> str:
    """Return the page."""
    described = app().openapi()
    schemas = described["components"]["schemas"]
    operations = [
        (method, path, whole[method])
        for path, whole in described["paths"].items()
        if path.startswith("/v1/")
        for method in METHODS
        if method in whole
    ]
    parts = [HEAD]
    for tag in dict.fromkeys(operation["tags"][0] for _, _, operation in operations):
        parts.append(f"## {tag.capitalize()}\n")
        parts += [_operation(*each, schemas) for each in operations if each[2]["tags"][0] == tag]
    rows = [
        f"| {status} | `{code}` | {meaning} |"
        for code, (status, meaning) in sorted(MEANINGS.items(), key=lambda each: (each[1], each[0]))
    ]
    return "\n".join([*parts, FOOT + "\n".join(rows) + "\n"])


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    described = operation["description"].replace("\n\n", "\n").replace("\n", " ")
    lines = [f"### `{method.upper()} {path}`\n", wrapped(described), ""]
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "path" and parameter["name"] != "Runfold-Project":
            where = "" if parameter["in"] == "query" else ", a header"
            lines.append(_item(parameter["name"], parameter["schema"], parameter, where))
    body = operation.get("requestBody")
    if body is not None and "application/json" not in body["content"]:
        [(media_type, content)] = body["content"].items()
        facts = content["schema"]
        lines.append(_item(media_type, facts, facts, ", the body"))
    elif body is not None:
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        schema = schemas[name]
        required = set(schema.get("required", ()))
        for member, facts in schema["properties"].items():
            needed = ", required" if member in required else ""
            lines.append(_item(member, facts, facts, f", in the body{needed}", schemas))
    return "\n".join(lines).rstrip() + "\n"


def _item(
    name: str,
    schema: dict[str, Any],
    described: dict[str, Any],
    where: str,
    schemas: dict[str, Any] | None = None,
) -> str:
    text = [described["description"]] if "description" in described else []
    if default := schema.get("default"):  # what is false, zero or empty goes without saying
        where += f", default {'true' if default is True else default}"
    if "$ref" in schema.get("items", {}) and schemas:
        members = schemas[schema["items"]["$ref"].rpartition("/")[2]]["properties"].items()
        named = [f"`{member}`" for member, facts in members if facts.get("type") != "null"]
        text.append(f"Each has {', '.join(named)}.")
    shown = " ".join(text)
    return wrapped(f"- `{name}` ({_type(schema)}{where}){': ' + shown if shown else ''}", "  ")


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("type", "object" if "$ref" in schema else "any JSON"))


if __name__ == "__main__":
    PAGE.write_text(page())
