"""A check that is made offline takes for one person whom the database does, and nobody else."""

from __future__ import annotations

import sys
from unicodedata import normalize

import asyncpg

from runfold.ledger.proof.persons import person

_EQUAL = """
SELECT a, b FROM unnest($1::text[], $2::text[]) AS pair (a, b)
WHERE ledger.person(a) IS DISTINCT FROM ledger.person(b)
"""


def look_alikes() -> list[tuple[str, str]]:
    """Return each letter that has a case or another form, within a name, and the name with it."""
    letters = (chr(code) for code in range(0x21, sys.maxunicode) if not 0xD800 <= code < 0xE000)
    return [
        (f"a{letter}n", f"a{form}n")
        for letter in letters
        for form in {letter.lower(), letter.upper(), letter.casefold(), normalize("NFKC", letter)}
        if form != letter
    ]


async def test_names_that_are_one_offline_are_one_in_the_database(
    connection: asyncpg.Connection,
) -> None:
    one = [(a, b) for a, b in look_alikes() if person(a) == person(b)]

    assert len(one) > 1_000
    told_apart = await connection.fetch(_EQUAL, [a for a, _ in one], [b for _, b in one])
    assert [tuple(row) for row in told_apart] == []


async def test_what_an_approver_might_try_is_one_person_in_both(
    connection: asyncpg.Connection,
) -> None:
    for name in (
        "jo strasse",
        "JO STRASSE",
        "Jo  Stra\u00dfe",
        "jo\u00a0stra\u00df\u2060e ",
        "\uff4ao strasse",
    ):
        assert person(name) == "jo strasse"
        assert await connection.fetchval("SELECT ledger.person($1)", name) == "jo strasse"
    assert person("jo strase") != person("jo strasse")
