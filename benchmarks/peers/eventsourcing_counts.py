"""Catch a counting projection up with the Postgres recorders of the `eventsourcing` library.

Run by `benchmarks.folding`.

As the library has it: notifications are read in pages, and each event's effect is committed
together with its position.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from eventsourcing.persistence import StoredEvent, Tracking  # type: ignore[import-not-found]  # of the peers' own environment
from eventsourcing.postgres import (  # type: ignore[import-not-found]  # as above
    PostgresApplicationRecorder,
    PostgresDatastore,
    PostgresTrackingRecorder,
)

PAGE = 1_000
TOPICS = ("run.submitted", "lease.acquired", "run.completed")


class Counts(PostgresTrackingRecorder):  # type: ignore[misc]  # as above
    """Counts events by type, in the transaction that moves the position."""

    def count(self, topic: str, tracking: Tracking) -> None:
        """Count one event."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(
                "INSERT INTO peer_counts VALUES (%s, 1) ON CONFLICT (topic) DO UPDATE "
                "SET runs = peer_counts.runs + 1",
                (topic,),
            )


def main(host: str, events: int) -> dict[str, Any]:
    """Store the events, then read and count them; give events a second."""
    datastore = PostgresDatastore("postgres", host, 5432, "postgres", "", pool_size=2)
    recorder, counts = PostgresApplicationRecorder(datastore), Counts(datastore)
    recorder.create_table()
    counts.create_table()
    with datastore.transaction(commit=True) as cursor:
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS peer_counts (topic text PRIMARY KEY, runs bigint NOT NULL)"
        )
    for _ in range(events // len(TOPICS) // PAGE + 1):
        ids = [uuid4() for _ in range(PAGE)]
        recorder.insert_events(
            [
                StoredEvent(one, number, topic, b'{"n":1}')
                for one in ids
                for number, topic in enumerate(TOPICS, 1)
            ]
        )
    begun, taken, position = time.perf_counter(), 0, None
    while page := recorder.select_notifications(position, PAGE, inclusive_of_start=False):
        for one in page:
            counts.count(one.topic, Tracking("counts", one.id))
        taken, position = taken + len(page), page[-1].id
    took = time.perf_counter() - begun
    return {
        "version": version("eventsourcing"),
        "events": taken,
        "events_per_second": round(taken / took),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
