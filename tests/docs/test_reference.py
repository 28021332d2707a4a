"""The reference pages name every event type, error code and exit code that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from runfold.console.cli.kit import exits
from runfold.ledger import lifecycle, names
from runfold.ledger.events import CATALOGUE, Event
from runfold.ledger.postgres import schema
from tests.support import command_reference, http_reference

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
STATES = REFERENCE.parent / "explanation" / "states.md"


def first_cells(page: Path) -> set[str]:
    """Return the words in code type of the first column of every table of a page."""
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_the_events_page_has_a_section_for_every_type_that_ships() -> None:
    page = (REFERENCE / "events.md").read_text()
    sections = dict(
        re.findall(r"^### `([a-z_.]+)`\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE)
    )
    shipped = {type_ for type_ in CATALOGUE if type_ in {*lifecycle.MOVES, lifecycle.FIRST}}

    assert set(sections) == shipped
    for type_, section in sections.items():
        model = CATALOGUE[type_]
        facts, content = (
            set(re.findall(r"`([^`]+)`", part))
            for part in re.findall(r"- Facts:(.*?)- Content:(.*?)- Written by", section, re.DOTALL)[
                0
            ]
        )
        own = set(model.model_fields) - set(Event.model_fields)
        assert (facts, content) == (own - model.content_fields(), set(model.content_fields()))


def test_every_event_of_the_log_is_explained() -> None:
    declared, _, _ = Path(names.__file__).read_text().partition("# -- metrics")
    events = set(re.findall(r'^[A-Z_]+: Final = "(\w+)"', declared, re.MULTILINE))
    howto = REFERENCE.parent / "howto"
    pages = [REFERENCE / "settings.md", *(howto / name for name in LOG_PAGES)]
    explained = {word for page in pages for word in re.findall(r"`([a-z_]+)`", page.read_text())}

    assert events
    assert events - explained == set()


LOG_PAGES = ("observability.md", "production.md", "troubleshooting.md", "workers.md")


def test_the_codes_page_lists_every_code_of_a_run() -> None:
    codes = {
        value
        for value in vars(lifecycle).values()
        if isinstance(value, str) and re.fullmatch(r"E-RUN-\d+", value)
    }

    assert codes
    assert {cell for cell in first_cells(REFERENCE / "codes.md") if "RUN" in cell} == codes


def test_the_codes_page_lists_every_exit_code() -> None:
    listed = {int(cell) for cell in first_cells(REFERENCE / "codes.md") if cell.isdigit()}

    assert listed == set(exits.MEANINGS)


def test_the_states_page_lists_every_state_and_every_event_that_moves_a_run() -> None:
    known = {*map(str, lifecycle.State), *lifecycle.MOVES, lifecycle.FIRST}

    assert first_cells(STATES) >= known


def test_the_page_of_the_functions_names_every_reason_for_which_a_decision_is_refused() -> None:
    sources = ("decision_problem", "decider_problem", "submitter_problem")
    texts = [schema.sql(f"guards/{name}") for name in sources]
    given = r"(?:THEN|RETURN|ELSE|SELECT)\s+\(?(?:SELECT )?'([a-z]+)'"
    words = {word for text in texts for word in re.findall(given, text)}
    page = (REFERENCE / "sql.md").read_text()
    paragraph = page[page.index("`decide` answers") : page.index("A refusal that is an error")]

    assert {"state", "asker", "unread", "twice"} <= words
    assert words | {"key"} == set(re.findall(r"`([a-z]+)`", paragraph)) - {
        "decide", "refused", "commands", "detail",
    }  # fmt: skip


def test_the_command_line_page_is_what_the_program_declares() -> None:
    written = command_reference.PAGE.read_text()

    assert written == command_reference.page(), "run `make reference`"


def test_the_http_page_is_what_the_application_declares() -> None:
    assert http_reference.PAGE.read_text() == http_reference.page(), "run `make reference`"
