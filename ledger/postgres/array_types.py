"""The array types of the ledger's statements, which the driver would ask each server about.

The driver knows built-in types, but no arrays of them. For the first statement with one, it asks
the server in three statements, in each connection anew. The numbers of these types are the same in
every PostgreSQL: see its catalog/pg_type.dat.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg

_ELEMENTS: Final = {
    1000: ("bool", 16),
    1001: ("bytea", 17),
    1007: ("int4", 23),
    1185: ("timestamptz", 1184),
    1187: ("interval", 1186),
    2951: ("uuid", 2950),
}
"""By the number of the array: the name and the number of its element."""
TYPES: Final = [
    {
        "oid": number,
        "ns": "pg_catalog",
        "name": f"_{element}",
        "kind": "b",
        "basetype": None,
        "basetype_name": None,
        "elemtype": of,
        "elemtype_name": element,
        "elemdelim": ",",
        "range_subtype": None,
        "range_subtype_name": None,
        "attrtypoids": None,
        "attrnames": None,
        "depth": 1,
    }
    for number, (element, of) in _ELEMENTS.items()
]
"""Rows as those of the driver's own question, asyncpg.introspection."""


def tell(connection: asyncpg.Connection[Any]) -> None:
    """Tell a new connection of the types; what it is not told, it asks the server about."""
    settings: Any = connection.get_settings()
    settings.register_data_types(TYPES)
