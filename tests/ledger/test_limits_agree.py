"""A limit that both SQL and Python know has one value."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import pytest

from runfold.ledger import commands, months, sessions, snoozes, users, validation, views
from runfold.ledger.operations import columns, decide, signal
from runfold.ledger.postgres import schema
from runfold.ledger.sessions import SESSION_PREFIX
from runfold.workers.duties.webhooks import sender

HOUR: Final = 3_600


class Limit(NamedTuple):
    """The SQL object that has a limit, and its value in Python."""

    place: str
    pattern: str
    """Its group is the limit, wherever it occurs in the object."""
    value: object


LIMITS: Final = {
    "life of a session": Limit(
        "sign_in/begin_session",
        r"moment \+ interval '(\d+) hours'",
        sessions.SESSION_SECONDS // HOUR,
    ),
    "idle time of a session": Limit(
        "sign_in/session_credential", r"interval '(\d+) hours'", sessions.IDLE_SECONDS // HOUR
    ),
    "secret of a session, used": Limit("sign_in/use_token", r"p_secret, '(\w+_)'", SESSION_PREFIX),
    "secret of a session, presented": Limit(
        "sign_in/token_credential", r"p_secret, '(\w+_)'", SESSION_PREFIX
    ),
    "secret of a session, at a sign-in": Limit(
        "sign_in/sign_in_by_token", r"p_secret, '(\w+_)'", SESSION_PREFIX
    ),
    "passes of a key": Limit("sign_in/change_user", r"\|(\d+)\) m=|most (\d+) pass", users.MOST[0]),
    "memory of a key": Limit("sign_in/change_user", r"int > (\d+)|, (\d+) KiB", users.MOST[1]),
    "lanes of a key": Limit("sign_in/change_user", r"p=\[1-(\d)\]|(\d+) lanes", users.MOST[2]),
    "deliveries that a call forgets": Limit(
        "webhooks/forget_deliveries", r"LIMIT (\d+)", sender.FORGOTTEN_AT_ONCE
    ),
    "snoozes": Limit("operations/snooze", r"most CONSTANT int := (\d+)", snoozes.MOST),
    "views": Limit("operations/change_view", r">= (\d+)|has (\d+) views", views.MOST),
    "tags": Limit("guards/check_tags", r"> (\d+) THEN|at most (\d+) tags", commands.MAX_TAGS),
    "first year": Limit("guards/check_times", r"< '(\d+)-|years (\d+)", months.FIRST_YEAR),
    "year after the last": Limit("guards/check_times", r">= '(\d+)-", months.LAST_YEAR + 1),
    "last year": Limit("guards/check_times", r"years \d+ and (\d+)", months.LAST_YEAR),
    "commands of a call": Limit("guards/check_count", r"> (\d+)|(\d+) at most", columns.MAX_BATCH),
    "length of a name": Limit(
        "guards/check_texts", r"p_limit int DEFAULT (\d+)", validation.MAX_TEXT
    ),
    "priority": Limit(
        "operations/submit", r"priority NOT BETWEEN 0 AND (\d+)", commands.MAX_PRIORITY
    ),
    "duration": Limit("operations/submit", r"AND '(\d+) days'", validation.MAX_DURATION.days),
    "name of a signal": Limit("operations/signal", r"p_name\], (\d+)\)", signal.MAX_NAME),
    "meaning of a decision": Limit(
        "operations/decide", r"p_meaning\], (\d+)\)", decide.MAX_MEANING
    ),
    **{
        f"reason in {name}": Limit(name, r"p_reason\], (\d+)\b", validation.MAX_REASON)
        for name in (
            "access/change_access", "access/change_role", "sign_in/change_token",
            "sign_in/change_user", "operations/change_kind", "webhooks/change_webhook",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_the_same_in_sql_and_in_python(name: str) -> None:
    limit = LIMITS[name]
    matches = re.finditer(limit.pattern, schema.sql(limit.place))

    assert {group for match in matches for group in match.groups() if group} == {str(limit.value)}
