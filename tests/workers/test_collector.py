"""The garbage collector of a worker process."""

from __future__ import annotations

import gc

from runfold.workers.process.collector import THRESHOLD, looking_less


def test_a_worker_looks_less_often_and_never_again_at_what_it_had_loaded() -> None:
    before = gc.get_threshold()

    with looking_less():
        assert gc.get_threshold() == (THRESHOLD, *before[1:])
        spared = gc.get_freeze_count()

    assert gc.get_threshold() == before
    assert gc.get_freeze_count() > spared / 2  # some of it has been freed by its last reference
