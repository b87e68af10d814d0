"""The contract of the query stage: what may be asked of history, and how it is answered.

The HTTP API and `Client(folder)` ask here; this stage knows calendars, resampling, limits and pages, and asks a
`Store` for rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Protocol

import msgspec
import pyarrow as pa

from tapehouse.model import Commit, Instrument, Interval, Kind

Bound = int | date
"""An instant in UTC nanoseconds, or a calendar date: midnight of that date in the zone of each instrument asked for."""

COMMIT_NUMBERS_END = 10**12
"""An `as_of` below it is a commit number, from it on a time: it is the nanosecond 1970-01-01T00:16:40Z."""

GROUPINGS = ("asset_class", "currency", "calendar")
"""What of an instrument puts it into a group."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one request may ask for."""

    symbols: int = 1_000
    page_rows: int = 1_000_000
    buckets: int = 5_000_000


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A question for rows. `start` is inclusive, `end` exclusive; `as_of` is a commit number or a time.

    `limit` makes a page of at most that many rows; `page` is the token of the page before. Without `limit` the answer
    is everything, streamed. `stored`: only bars that are stored, none that would be made from others.
    """

    kind: Kind = Kind.BARS
    interval: Interval | None = None
    symbols: tuple[str, ...] | None = None
    start: Bound | None = None
    end: Bound | None = None
    columns: tuple[str, ...] | None = None
    limit: int | None = None
    newest_first: bool = False
    as_of: int | None = None
    source: str | None = None
    page: str | None = None
    stored: bool = False


class Answer(Protocol):
    """Rows, as of one commit.

    `made_from` says for each symbol whose interval is not stored (or not stored for the whole span) what its bars
    were resampled from, best first, e.g. `{"AAPL": ("1m", "trades")}`; then the schema ends with the columns
    `made_from` (per row: `stored`, an interval or `trades`) and `complete` (per row: every part the calendar expects
    was there). `next_page` is known once the batches are exhausted.
    """

    schema: pa.Schema
    commit: int
    made_from: Mapping[str, tuple[str, ...]]
    next_page: str | None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The rows, read as they are taken."""

    def table(self) -> pa.Table:
        """All rows at once."""

    def close(self) -> None:
        """Let go of what the answer pins; idempotent."""


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A span `[start, end)` in which the calendar expects `bars` bars (of trades and quotes: sessions), none stored."""

    start: int
    end: int
    bars: int


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """What is held of one series, and what is missing between its first and last row by the instrument's calendar.

    `missing` lists the newest spans first, up to the limit asked for; `missing_spans` and `missing_bars` count all.
    """

    symbol: str
    kind: Kind
    interval: Interval | None
    first: int
    last: int
    rows: int
    calendar: str
    expected: int
    missing_bars: int
    missing_spans: int
    missing: list[Missing]


class History(Protocol):
    """Every read that a person or a program makes goes through here."""

    def read(self, request: Request) -> Answer:
        """The rows asked for; an interval that is not stored is resampled from what covers it best, and says so."""

    def latest(self, kind: Kind, symbols: Sequence[str] | None, interval: Interval | None) -> pa.Table:
        """The newest row of each symbol; bars without an interval: the newest of any, with a column `interval`."""

    def symbols(self, pattern: str | None = None) -> list[str]:
        """All symbols, or those that match a pattern with `*` and `?`, sorted."""

    def coverage(
        self,
        *,
        kind: Kind | None = None,
        symbols: Sequence[str] | None = None,
        interval: Interval | None = None,
        spans: int = 100,
    ) -> list[Coverage]:
        """What is held and what is missing, per symbol, kind and interval."""

    def aggregate(
        self,
        request: Request,
        bucket: Interval,
        measures: Sequence[str] | None,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> pa.Table:
        """Measures per symbol or group and time bucket, from `request.interval` or the finest bars stored.

        None stands for the prices, which a group does not have, the volume and the count.
        The measure `correlation` stands alone: a row for each pair of symbols (see `query.correlation`).
        """

    def groups(self, by: str, symbols: Sequence[str] | None = None) -> dict[str, list[str]]:
        """The symbols (default: all) by what `by`, one of `GROUPINGS`, is of their instruments; `none` if unknown."""

    def instrument(self, symbol: str) -> Instrument:
        """What is known of the symbol; the defaults when nothing is."""

    def commits(self, *, after: int = 0, limit: int = 100) -> list[Commit]:
        """What was written, oldest first."""
