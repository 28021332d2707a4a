"""What somebody planted beside the ledger never runs with the rights of its owner."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.object_differences import object_differences
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.state import drift
from tests.support.archiving import WHY, ended
from tests.support.databases import PROJECT
from tests.support.past_month import MONTH, in_that_month

# Each fits the types of a statement better than what PostgreSQL has: `varchar = text`, for one.
PLANTED = """
CREATE TABLE public.trodden (who text, what text);
GRANT INSERT ON public.trodden TO PUBLIC;
SET ROLE {attacker};
CREATE FUNCTION public.trap(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  IF pg_catalog.textne(current_user::text, '{attacker}') THEN
    INSERT INTO public.trodden VALUES (current_user, what);
  END IF;
END $$;
{traps}
RESET ROLE;
"""
OPERATOR = """
CREATE FUNCTION public.op_{n}(a {left}, b {right}) RETURNS {result} LANGUAGE plpgsql AS $$ BEGIN
  PERFORM public.trap('{left} {op} {right}');
  RETURN a::text OPERATOR(pg_catalog.{op}) b::text;
END $$;
CREATE OPERATOR public.{op} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.op_{n});
"""
FUNCTION = """
CREATE FUNCTION public.{name}({types}) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
  PERFORM public.trap('{name}({types})');
  RETURN pg_catalog.{name}({arguments});
END $$;
"""
OPERATORS = [
    (left, op, right, "boolean" if op in {"=", "<>", "~", "~~"} else "text")
    for op in ("=", "<>", "||", "~", "~~")
    for left, right in (
        ("varchar", "varchar"), ("varchar", "text"), ("text", "varchar"), ("name", "varchar"),
        ("varchar", "name"), ("char", "varchar"), ("char", "text"),
        *((("name", "text"), ("text", "name")) if op == "||" else ()),
    )
]  # fmt: skip
FUNCTIONS = [
    ("substr", "name, int", "$1::text, $2"),
    ("substr", "varchar, int", "$1::text, $2"),
    ("replace", "varchar, varchar, varchar", "$1::text, $2::text, $3::text"),
    ("split_part", "varchar, varchar, int", "$1::text, $2::text, $3"),
    ("split_part", "varchar, text, int", "$1::text, $2, $3"),
    ("array_to_string", "text[], text", "$1::anyarray, $2"),
    ("array_to_string", "text[], varchar", "$1::anyarray, $2::text"),
    ("regexp_replace", "name, text, text", "$1::text, $2, $3"),
    ("format", "text, name, name", "$1, $2::text, $3::text"),
    ("to_regclass", "varchar", "$1::text"),
]


def traps() -> str:
    """Everything that is planted, as SQL."""
    operators = (
        OPERATOR.format(n=n, left=left, op=op, right=right, result=result)
        for n, (left, op, right, result) in enumerate(OPERATORS)
    )
    functions = (
        FUNCTION.format(name=name, types=types, arguments=arguments.replace("::anyarray", ""))
        for name, types, arguments in FUNCTIONS
    )
    return "\n".join([*operators, *functions])


@pytest.fixture
async def mined(unverified_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to a database whose schema `public` an attacker has mined."""
    connection = await asyncpg.connect(driver_url(unverified_database))
    attacker = f"attacker_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE ROLE {attacker}")
    await connection.execute(f"GRANT CREATE ON SCHEMA public TO {attacker}")
    await connection.execute(PLANTED.format(attacker=attacker, traps=traps()))
    yield connection
    await connection.execute(f"DROP OWNED BY {attacker} CASCADE")
    await connection.execute(f"DROP ROLE {attacker}")
    await connection.close()


async def test_no_operator_or_function_of_another_schema_is_called(
    unverified_database: str, mined: asyncpg.Connection, tmp_path: Path
) -> None:
    await mined.execute("COMMENT ON SCHEMA ledger IS 'old'")
    await schema.upgrade(unverified_database)
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        async with in_that_month(mined):
            run_id = await ended(ledger, key="k")
        await ledger.pause_kind("load", ahead=True)
        await ledger.archive.export(MONTH, tmp_path, **WHY)
        await ledger.archive.detach(MONTH, **WHY)
        assert (await ledger.verify()).ok
        assert [one async for one in drift.check(ledger)] == []
        await ledger.runs(state="completed", kind="parse")
        await ledger.history(run_id)
        assert await object_differences(ledger.pool) == []

    assert await mined.fetch("SELECT DISTINCT who, what FROM public.trodden") == []
