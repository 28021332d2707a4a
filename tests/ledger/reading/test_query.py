"""The query grammar: what it means, what it refuses, and that no text breaks it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runfold.ledger.errors import InvalidQuery
from runfold.ledger.lifecycle import State
from runfold.ledger.reading.query import Bound, Choice, parse
from runfold.ledger.reading.query_words import quoted, words

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_every_word_of_a_query_narrows_it() -> None:
    query = parse(
        "state:timeout,failed kind:review -tag:test worker:w7 age:>2h cost:>0.5 attempts:>=2"
        ' since:24h "A 17"',
        NOW,
    )
    assert query.after == NOW - timedelta(hours=24)
    assert query.until == NOW - timedelta(hours=2)
    assert query.choices == (
        Choice("state", ("failed", "timeout")),
        Choice("kind", ("review",)),
        Choice("tags", ("test",), negated=True),
        Choice("worker_id", ("w7",)),
        Choice("key", ("A 17",)),
    )
    assert query.bounds == (
        Bound("cost_usd", ">", Decimal("0.5")),
        Bound("attempt_count", ">=", 2),
    )


def test_a_negated_state_means_all_the_others() -> None:
    (choice,) = parse("-state:completed,failed").choices
    assert set(choice.values) == {*State} - {"completed", "failed"}
    assert not choice.negated


def test_text_is_the_start_of_a_run_id_where_it_can_be_one() -> None:
    query = parse("0197C2A1-00")
    assert query.first_id == UUID("0197c2a1-0000-0000-0000-000000000000")
    assert query.last_id == UUID("0197c2a1-00ff-ffff-ffff-ffffffffffff")
    assert parse("A-17").choices == (Choice("key", ("A-17",)),)


def test_quotes_hold_blanks_commas_colons_and_quotes() -> None:
    (choice,) = parse(r'tag:"a b","c,d:","e\"f"').choices
    assert choice.values == ("a b", "c,d:", 'e"f')


def test_the_narrowest_of_several_times_holds() -> None:
    query = parse("since:2d since:1h until:2026-01-31T11:30Z age:>10m", NOW)
    assert query.after == NOW - timedelta(hours=1)
    assert query.until == NOW - timedelta(minutes=30)


@pytest.mark.parametrize(
    ("text", "word", "position", "remedy"),
    [
        ("kind:a state:faild", "state:faild", 8, "is not a state; states: pending, running"),
        ("wroker:w7", "wroker:w7", 1, "there is no field 'wroker'; fields: state, kind"),
        ('kind:a "b', '"b', 8, "close the quotation"),
        ("kind:a,,b", "kind:a,,b", 1, "a value is missing"),
        ("kind:", "kind:", 1, "a value is missing"),
        ('tag:""', 'tag:""', 1, "a value is empty"),
        ('tag:"a"b', 'tag:"a"b', 1, "put a blank after the closing quote"),
        ("kind:a kind:b", "kind:b", 8, "named twice"),
        ("-age:>2h", "-age:>2h", 1, "cannot be negated"),
        ("since:1h,2h", "since:1h,2h", 1, "takes one value"),
        ("cost:>", "cost:>", 1, "a value is missing after the sign"),
        ("kind:" + "a" * 201, "kind:" + "a" * 201, 1, "must have 1 to 200 characters"),
        ("-state:" + ",".join(State), "-state:" + ",".join(State), 1, "no state is left"),
        ("age:2h", "age:2h", 1, "older or younger"),
        ("since:yesterday", "since:yesterday", 1, "is neither a time in UTC"),
        ("age:>99999d", "age:>99999d", 1, "is not a duration"),
        ("cost:>much", "cost:>much", 1, "an amount of US dollars"),
        ("attempts:1.5", "attempts:1.5", 1, "a whole number"),
        ("id:xyz", "id:xyz", 1, "first 6 digits"),
        ("failed", "failed", 1, "write state:failed"),
        ("state=failed", "state=failed", 1, "means a key: write state:"),
        ("kind:a -cost>5", "-cost>5", 8, 'means a key: write cost:… for the field, or "cost>5"'),
        ("kind:a\u202eb", "kind:a\u202eb", 1, "control characters"),
        ("b-1 b-2", "b-2", 5, "text is named twice"),
        ("0197c2 id:0197c3", "id:0197c3", 8, "another id is named before"),
        ("tag:" + ",".join("a" * 21), "tag:" + ",".join("a" * 21), 1, "at most 20 values"),
        ("tag:a " * 21, "tag:a", 121, "at most 20 words"),
        ("tag:" + "a" * 1_000, "tag:" + "a" * 16, 1, "at most 1,000 characters"),
    ],
)
def test_a_query_is_refused_with_the_word_its_place_and_a_remedy(
    text: str, word: str, position: int, remedy: str
) -> None:
    with pytest.raises(InvalidQuery) as refused:
        parse(text)
    assert (refused.value.word, refused.value.position) == (word, position)
    assert remedy in str(refused.value)


WORDS = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.from_regex(r"-?[a-z]{1,9}:[<>=]{0,2}[0-9a-z\",.:T+-]{0,20}", fullmatch=True),
        st.from_regex(
            r"-?(state|kind|tag|worker|key|error|id|since|until|age|cost|attempts):"
            r"([<>]=?)?(failed|[0-9]{1,12}[smhdw.:-]?[0-9]{0,9}|\"[^\"]{0,9}\")",
            fullmatch=True,
        ),
    ),
    max_size=6,
).map(" ".join)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text makes Unicode's tables
@given(WORDS)
def test_any_text_is_a_query_or_is_refused_at_a_place_within_it(text: str) -> None:
    refused = None
    try:
        query = parse(text, NOW)
        assert query == parse(query.text, NOW)
    except InvalidQuery as error:
        refused = error
    if refused is not None:
        assert 1 <= refused.position <= len(text) + 1
        assert refused.word in text
        assert refused.remedy


@given(
    st.sampled_from(["kind", "tag", "worker", "key", "error"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=40),
)
def test_a_quoted_value_is_taken_as_it_is(field: str, value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    (choice,) = parse(f'{field}:"{quoted}"').choices
    assert choice.values == (value,)


@pytest.mark.parametrize("value", ["a", 'a"b', "a\\", 'a\\" state:"failed', "a b,c", "-x:y"])
def test_a_value_that_is_quoted_is_read_as_it_is(value: str) -> None:
    [word] = words(f"kind:{quoted(value)}")

    assert (word.field, word.values) == ("kind", (value,))
