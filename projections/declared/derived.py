"""What a derived column may be: an expression over the row, of columns and listed words.

A reader of the view runs the expression with the reader's own rights, so it must not be able to do
anything. The same rule is compiled into `ledger.check_derived`, which the database applies to every
view.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from runfold.ledger.errors import InvalidValue

LIMIT: Final = 1_000
WORDS: Final = (
    "and", "between", "bigint", "case", "date", "else", "end", "false", "float8", "in", "int",
    "interval", "is", "like", "not", "null", "numeric", "or", "text", "then", "timestamptz", "true",
    "when",
)  # fmt: skip
FUNCTIONS: Final = (
    "abs", "ceil", "coalesce", "floor", "greatest", "least", "ledger.now", "length", "lower",
    "nullif", "round", "upper",
)  # fmt: skip
_LITERAL: Final = "'[^']*'"
_EPOCH: Final = r"extract\s*\(\s*epoch\s+from\s"
_DISTINCT: Final = r"distinct\s+from\s"
_FOREIGN: Final = r"[^A-Za-z0-9_.,()+*/<>=|'\s:-]|--|/\*"
_WORD: Final = r"([A-Za-z0-9_.]+)\s*(\(?)"
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"


def check_derived(name: str, expression: str, columns: Iterable[str]) -> None:
    """Raise InvalidValue unless all of it is columns, literals, operators and listed words."""
    if len(expression) > LIMIT:
        raise InvalidValue("derived column", name, f"is longer than {LIMIT} characters")
    rest = re.sub(_LITERAL, "''", expression)
    rest = re.sub(
        _DISTINCT, "= ", re.sub(_EPOCH, "abs(", rest, flags=re.IGNORECASE), flags=re.IGNORECASE
    )
    foreign = re.search(_FOREIGN, rest) or re.search(r"\\", expression)
    if foreign is not None:
        raise InvalidValue("derived column", name, f"{foreign[0]!r} may not be in it")
    known = set(columns)
    for word, called in re.findall(_WORD, rest):
        if re.fullmatch(_NUMBER, word) or word.lower() in {*WORDS, *FUNCTIONS}:
            continue
        if word not in known or called:
            raise InvalidValue(
                "derived column",
                name,
                f"{word!r} is not a column; besides columns it may have {', '.join(FUNCTIONS)}, "
                "extract(epoch from ...) and case",
            )


def check_derived_sql() -> str:
    """Compile the same rule into SQL."""
    words = ", ".join(f"'{word}'" for word in (*WORDS, *FUNCTIONS))

    def text(pattern: str) -> str:
        # Means the same whatever standard_conforming_strings the caller has set.
        escaped = pattern.replace("'", "''").replace("?:", "").replace("\\", r"\\")
        return ("E'" if "\\" in pattern else "'") + escaped + "'"

    return f"""\
-- Refuses a derived column that is more than an expression over the row: readers run it.
CREATE OR REPLACE FUNCTION ledger.check_derived(p_expression text, p_columns text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  words CONSTANT text[] := ARRAY[{words}];
  rest text := regexp_replace(p_expression, {text(_LITERAL)}, '''''', 'g');
  token text[];
BEGIN
  rest := regexp_replace(rest, {text(_EPOCH)}, 'abs(', 'gi');
  rest := regexp_replace(rest, {text(_DISTINCT)}, '= ', 'gi');
  IF p_expression IS NULL OR length(p_expression) > {LIMIT} OR strpos(p_expression, E'\\\\') > 0
    OR rest ~ {text(_FOREIGN)} THEN
    RAISE EXCEPTION 'a derived column must be an expression over the row, not %', p_expression
      USING ERRCODE = '22023';
  END IF;
  FOR token IN SELECT regexp_matches(rest, {text(_WORD)}, 'g') LOOP
    CONTINUE WHEN token[1] ~ {text("^" + _NUMBER + "$")} OR lower(token[1]) = ANY (words);
    IF token[1] <> ALL (p_columns) OR token[2] <> '' OR EXISTS (
      SELECT FROM pg_get_keywords() AS keyword
      WHERE keyword.word = token[1] AND keyword.catcode IN ('R', 'T')) THEN
      RAISE EXCEPTION '% may not be in a derived column: %', token[1], p_expression
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN p_expression;
END $$;
"""
