"""Runs a feed: waits until something is due, takes it, and hands it in with sequence numbers until it is taken."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pyarrow as pa

from tapehouse.errors import TapehouseError
from tapehouse.ingest.base import Arrival, Ingest
from tapehouse.model import SECOND_NS
from tapehouse.sources.base import Batch, Feed

_PAUSE_S = 0.5
_LONGEST_WAIT_S = 0.5
"""So that a stop is noticed."""

log = logging.getLogger(__name__)


class Feeder:
    """Feeds one feed to the desk. The numbers of each run are a session of their own, called by when it began."""

    def __init__(self, feed: Feed, ingest: Ingest, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._feed, self._ingest, self._clock = feed, ingest, clock
        self._session = str(clock())
        self._sequence = 0

    def run(self, stop: threading.Event) -> None:
        """Feed until the feed is over, or until told to stop."""
        self._ingest.beat(self._feed.name, self._feed.heartbeat_s)
        while not stop.is_set():
            due = self._feed.next_due_ns()
            if due is None:
                return
            now = self._clock()
            if due > now:
                stop.wait(min((due - now) / SECOND_NS, _LONGEST_WAIT_S))
                continue
            for batch in self._feed.next(now):
                self._hand_in(batch, stop)

    def _hand_in(self, batch: Batch, stop: threading.Event) -> None:
        """Until it is taken: what the log has no room for now is not lost."""
        self._sequence += batch.skipped
        arrival = Arrival(
            kind=batch.kind,
            interval=batch.interval,
            table=pa.Table.from_batches([batch.rows]),
            source=self._feed.name,
            sequence=self._sequence,
            session=self._session,
        )
        told = False
        while not stop.is_set():
            try:
                self._ingest.take(arrival)
                self._sequence += batch.rows.num_rows
                return
            except TapehouseError as exc:
                if not told:
                    log.error("cannot hand in what %s sends: %s; trying again", self._feed.name, exc)
                told = True
                stop.wait(_PAUSE_S)
