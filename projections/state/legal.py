"""Compiles the state machine of `ledger/lifecycle.py` into SQL."""

from __future__ import annotations

from runfold.ledger.lifecycle import FIRST, MOVES, OPEN, RESERVED, State


def legal_sql() -> str:
    """Compile the state machine: may an event of a type take a run from state to state.

    A null is no change of state.

    One membership test, because the expression is set up anew by every statement that contains it.
    """
    moves = sorted(
        f"{type_}:{source}:{target or ''}"
        for type_, pairs in MOVES.items()
        for source, target in pairs
    )
    listed = ",\n".join(f"    {_text(move)}" for move in moves)
    return f"""\
CREATE OR REPLACE FUNCTION ledger.legal(p_type text, p_from text, p_to text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT (p_type || ':' || p_from || ':' || coalesce(p_to, '')) = ANY (ARRAY[
{listed}
  ])
  OR (p_to IS NULL AND split_part(p_type, '.', 1) <> ALL (ARRAY[{_texts(RESERVED)}])
    AND p_from = ANY (ARRAY[{_texts(OPEN)}]))
$$;
"""


def is_type_sql() -> str:
    """Compile whether there are events of a type: the ledger's own, and whatever users name."""
    listed = ",\n".join(f"    {_text(type_)}" for type_ in sorted({*MOVES, FIRST}))
    return f"""\
CREATE OR REPLACE FUNCTION ledger.is_type(p_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT p_type = ANY (ARRAY[
{listed}
  ])
  OR split_part(p_type, '.', 1) <> ALL (ARRAY[{_texts(RESERVED)}])
$$;
"""


def _text(value: str) -> str:
    return f"'{value}'"


def _texts(values: frozenset[State] | set[State] | frozenset[str]) -> str:
    return ", ".join(_text(value) for value in sorted(values))
