"""What the tests of workers share: the test kit on the database that the other tests copy."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def runfold_template(template: str) -> str:
    """The migrated database of all tests; the kit would migrate one more in each process."""
    return template
