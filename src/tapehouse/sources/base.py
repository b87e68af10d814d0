"""The contract of a feed: a source of live records inside this process.

A feed has no clock and no task of its own. Who runs it asks when something is due, waits, and takes what is due then;
sequence numbers are the runner's, one after another for all records of a feed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa

from tapehouse.model import Interval, Kind


class Batch(NamedTuple):
    """Records of one kind, in the columns of the model.

    `skipped` records of the feed were lost just before these, so that many sequence numbers are passed over.
    """

    kind: Kind
    interval: Interval | None
    rows: pa.RecordBatch
    skipped: int = 0


class Feed(Protocol):
    """A source that is asked."""

    @property
    def name(self) -> str:
        """The source that its records get, the same after a restart."""

    @property
    def heartbeat_s(self) -> float | None:
        """The longest silence while something is due, in seconds; None: it promises nothing."""

    def next(self, now_ns: int) -> Sequence[Batch]:
        """Those due by then and not given before, in order; when they are many, some, and `next_due_ns` is past."""

    def next_due_ns(self) -> int | None:
        """When to ask again (UTC nanoseconds, perhaps past); None: it is over."""
