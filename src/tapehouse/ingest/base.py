"""The contract of ingest: what producers hand in, what they are told, and what is known of each source."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from tapehouse.model import Interval, Kind, Position


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one kind that a source sent together, in its order.

    `sequence` is the source's number of the first one, the others count on from there. Numbers of another `session`
    have nothing to do with them: a source that starts to count anew names a new one.
    """

    kind: Kind
    table: pa.Table
    source: str
    interval: Interval | None = None
    sequence: int | None = None
    session: str = ""


class Reason(StrEnum):
    """Why a record is set aside."""

    INVALID = "invalid"
    FUTURE = "future"
    TOO_LATE = "too_late"


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was set aside: its place in what was sent (from 0), and what was wrong with it."""

    row: int
    reason: Reason
    message: str
    record: dict[str, Any]
    source: str = ""
    channel: str = ""
    at: int = 0
    """When it came, UTC nanoseconds."""


class Gap(msgspec.Struct, frozen=True):
    """Sequence numbers that a source left out: from `first` to `last`, both included."""

    first: int
    last: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an arrival. The log has the `accepted` records; `repeated` ones it had before.

    `late` ones are accepted, but older than the grace period: they revise bars. `next` is the sequence number that is
    expected next. `examples` are the first of the `rejected` ones.
    """

    accepted: int = 0
    repeated: int = 0
    rejected: int = 0
    late: int = 0
    gap: Gap | None = None
    next: int | None = None
    examples: list[Rejected] = []
    positions: dict[int, Position] = {}


class SourceState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a source. Times are UTC nanoseconds, counts since this process started.

    `silent` says that it was not heard for longer than its `heartbeat_s`.
    """

    source: str
    session: str = ""
    last: int | None = None
    heard: int | None = None
    heartbeat_s: float | None = None
    silent: bool = False
    accepted: int = 0
    repeated: int = 0
    rejected: int = 0
    late: int = 0
    gaps: int = 0
    missing: int = 0


class Ingest(Protocol):
    """Takes live records."""

    def take(self, arrival: Arrival) -> Receipt:
        """Check the records and append them to the log; when it returns, the log has the accepted ones.

        Raises `InvalidTable` for columns that cannot be records of that kind, `LogFull`, `Unavailable` and `Unsettled`;
        the same again with the same sequence numbers adds nothing.
        """

    def beat(self, source: str, heartbeat_s: float | None = None) -> None:
        """Note that a source is alive, and how often it will be heard from now on, if that is given."""

    def sources(self) -> list[SourceState]:
        """What is known of each source, by name."""

    def rejected(self, limit: int = 100) -> list[Rejected]:
        """The records that were set aside last, newest first."""

    def counts(self) -> Mapping[str, int]:
        """All records that were accepted, repeated, rejected, late or missing since the start."""
