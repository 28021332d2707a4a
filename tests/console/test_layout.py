"""Lines and tables at any width: no word is lost, and facts stay whole where they fit (pure)."""

from __future__ import annotations

import sys

import pytest
from rich.text import Text

from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.table import table_lines, whole_lines
from runfold.console.cli.kit.wrapping import entry, fill

FACTS = "attempt 1  token 2  until 12:00:00.000Z  a remark of many words that goes on and on"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_facts_stay_whole_and_no_word_is_lost(width: int) -> None:
    lines = fill(FACTS, width)

    assert max(map(len, lines)) <= width
    assert " ".join(lines).split() == FACTS.split()
    assert any("until 12:00:00.000Z" in line for line in lines) is (width > 18)


def test_facts_hang_under_their_beginning_or_below_a_head_that_leaves_no_room() -> None:
    beside = [line.plain for line in entry(Text("head  "), FACTS, 50)]
    below = [
        line.plain for line in entry(Text("a head of thirty-nine columns, at least  "), FACTS, 50)
    ]

    assert beside[0].startswith("head  attempt 1")
    assert all(line.startswith(" " * 6) for line in beside[1:])
    assert below[0] == "a head of thirty-nine columns, at least"
    assert below[1].startswith(" " * 6 + "attempt 1")


@pytest.mark.parametrize("before", ["", "1  2026-11-30  "])
def test_a_head_with_a_word_longer_than_a_line_is_broken(before: str) -> None:
    lines = [line.plain for line in entry(Text(f"{before}{'a' * 70} by ann"), "", 40)]

    assert max(map(len, lines)) <= 40
    assert "".join("".join(lines).split()) == f"{before}{'a' * 70}byann".replace(" ", "")


def test_the_narrowest_terminal_is_written_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "1")

    Output(as_json=False).entry(Text("head  "), FACTS)
    Output(as_json=False).table(("A", "B"), [("one", "x" * 50)], [None])

    said = capsys.readouterr().out
    assert "".join(said.split()).startswith("".join(f"head{FACTS}".split()))
    assert said.count("x") == 50


def test_columns_without_room_follow_their_row_by_title() -> None:
    rows = [("one", "x" * 10, "y" * 50), ("two", "-", "z")]

    narrow = [line.plain for line in table_lines(("A", "B", "C"), rows, (None, None), 30)]
    whole = [line.plain for line in whole_lines(("A", "B", "C"), rows)]

    assert narrow == [
        "A    B",
        "one  xxxxxxxxxx",
        f"    c {'y' * 24}",
        f"    {'y' * 26}",
        "two  -",
        "    c z",
    ]
    assert whole[1].split() == list(rows[0])


@pytest.mark.parametrize("rows", [[], [("-", "-")]])
def test_a_terminal_is_shown_the_titles_of_a_table_without_content(
    rows: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)

    Output(as_json=False).table(("A", "B"), rows, [None] * len(rows))

    assert "A  B" in capsys.readouterr().out


def test_wide_characters_are_counted_by_their_columns() -> None:
    lines = [line.plain for line in whole_lines(("A", "B"), [("日本", "x"), ("ab", "y")])]

    assert lines == ["A     B", "日本  x", "ab    y"]
