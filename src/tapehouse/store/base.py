"""The contract of a store: the database of record.

All methods may block and may be called from any thread. Tables are Arrow, times UTC nanoseconds, spans `[start, end)`.
What only some stores can do is a protocol of its own below; `Store.capabilities` declares which of them one has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, Change, Commit, Instrument, Interval, Kind, OnConflict


class Capability(StrEnum):
    """What a store can do beyond the contract; each names one of the protocols below."""

    VERSIONS = "versions"
    COMPACTS = "compacts"
    ANNOUNCES = "announces"
    INSTRUMENTS = "instruments"
    TOGETHER = "together"
    DOCUMENTS = "documents"
    AUDITS = "audits"
    UNDOES = "undoes"
    KEEPS_UP = "keeps_up"


class Key(msgspec.Struct, frozen=True):
    """Where a page ended: the `nth` row (from 0) among those of that symbol and timestamp."""

    symbol: str
    timestamp: int
    nth: int = 0


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows, of which columns, in which order.

    Rows come ordered by symbol, then by time (newest first: reversed within each symbol); `limit` counts over all
    symbols. `symbols=None` means all. `as_of` is a commit number, 0 the time before the first; `NotFound` when there is
    no such commit. `source` asks for that source's newest row of each key, whether or not it is the current one.
    `after` goes on where a page ended, in the order of this selection.
    """

    kind: Kind = Kind.BARS
    interval: Interval | None = None
    symbols: tuple[str, ...] | None = None
    start: int = MIN_TIME_NS
    end: int = MAX_TIME_NS
    columns: tuple[str, ...] | None = None
    limit: int | None = None
    newest_first: bool = False
    as_of: int | None = None
    source: str | None = None
    after: Key | None = None


class Reading:
    """The answer to a read: a schema, the commit it is as of, and batches that are read as they are taken.

    Close it (or exhaust it, or use it in a `with`) so that the store may delete files that it holds on to.
    """

    def __init__(
        self, schema: pa.Schema, commit: int, batches: Iterator[pa.RecordBatch], close: Callable[[], None] | None = None
    ) -> None:
        self.schema = schema
        self.commit = commit
        self._batches = batches
        self._close = close

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        finally:
            self.close()

    def table(self) -> pa.Table:
        """All rows at once."""
        return pa.Table.from_batches(list(self), schema=self.schema)

    def close(self) -> None:
        """Let go of what the reading pins; reading on after it is an error."""
        if self._close is not None:
            close, self._close = self._close, None
            close()

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds of one symbol: current rows, and the times of the first and the last."""

    symbol: str
    kind: Kind
    interval: Interval | None
    first: int
    last: int
    rows: int


Edges = Callable[[str], np.ndarray]
"""Symbol -> ascending int64 nanoseconds: bucket i is [edges[i], edges[i + 1]). It covers the whole selection."""


class Aggregation(msgspec.Struct, frozen=True, kw_only=True):
    """What to compute per symbol (or per group of symbols) and time bucket.

    Measures: open high low close volume vwap count (source rows) trades return volatility. `return` is
    close / previous bucket's close - 1; `volatility` is realised: the square root of the sum of squared log returns
    of the rows in the bucket (Andersen and Bollerslev, 1998).
    """

    measures: tuple[str, ...]
    groups: Mapping[str, Sequence[str]] | None = None


class Store(Protocol):
    """The database of record."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this store can do beyond the contract; the contract suite checks that it is true."""

    def write(
        self,
        kind: Kind,
        table: pa.Table,
        *,
        interval: Interval | None = None,
        on_conflict: OnConflict = OnConflict.REPLACE,
        prefer: Sequence[str] = (),
        source: str | None = None,
        batch: str | None = None,
    ) -> Commit:
        """All rows or none, durable when it returns; the same rows again change nothing.

        `source` fills the rows that name none; `prefer` ranks sources, for `on_conflict="prefer"` alone.
        Raises `InvalidTable`, and `Conflict` under `on_conflict="error"`.
        """

    def read(self, selection: Selection) -> Reading:
        """The stored rows as of one commit, in order; a concurrent write shows as a whole or not at all."""

    def latest(
        self,
        kind: Kind,
        symbols: Sequence[str] | None = None,
        *,
        interval: Interval | None = None,
        columns: tuple[str, ...] | None = None,
    ) -> pa.Table:
        """The newest row of each symbol, ordered by symbol; symbols without rows are absent."""

    def aggregate(self, selection: Selection, edges: Edges, aggregation: Aggregation) -> pa.Table:
        """Columns symbol (or group), timestamp (the bucket's start) and the measures, ordered by the first two."""

    def symbols(self) -> list[str]:
        """All symbols with at least one current row, sorted."""

    def coverage(self, kind: Kind | None = None, symbols: Sequence[str] | None = None) -> list[Series]:
        """First, last and the exact number of current rows per symbol, kind and interval, in that order."""

    def delete(
        self,
        kind: Kind,
        symbols: Sequence[str],
        *,
        interval: Interval | None = None,
        start: int = MIN_TIME_NS,
        end: int = MAX_TIME_NS,
        batch: str | None = None,
    ) -> Commit:
        """Hide all rows of the span, of every source, as one durable commit; reads as of before still see them."""

    def stats(self) -> dict[str, Any]:
        """Sizes and counts for people and metrics; cheap enough to call every second."""


class Closes(Protocol):
    """A store that holds resources."""

    def close(self) -> None:
        """Finish what runs, let go of everything; idempotent."""


class Versions(Protocol):
    """A store that remembers: `Selection.as_of` works, and commits can be listed."""

    def head(self) -> int:
        """The newest commit's number, 0 before the first."""

    def commit_at(self, time: int) -> int:
        """The newest commit recorded at or before that time, 0 if none was."""

    def commits(self, *, after: int = 0, limit: int = 100) -> list[Commit]:
        """Commits with a greater number, oldest first."""


class CompactionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one compaction did; `bytes` is the size of the files it wrote."""

    rows: int = 0
    spans: int = 0
    files_written: int = 0
    files_replaced: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Compacts(Protocol):
    """A store that moves settled rows into an archive."""

    def compact(self, *, everything: bool = False) -> CompactionReport:
        """Move what has settled (or everything) into the archive; killed anywhere, no row is lost or doubled."""


class Announces(Protocol):
    """A store that tells what changed."""

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call the listener after every commit, in commit order, until the returned function is called."""


class KeepsInstruments(Protocol):
    """A store that keeps the instruments beside their data."""

    def instruments(self) -> list[Instrument]:
        """All of them, by pattern."""

    def put_instruments(self, instruments: Sequence[Instrument]) -> None:
        """Add or replace by pattern, durable when it returns."""


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows of a table met others of their key: duplicates with the same values, source aside, and conflicts.

    The others are of the same table, of another one of the same write (`between`), or stored: `own` and `others` have,
    by the commit that stored them, duplicates and conflicts with rows of the same source and of other ones.
    """

    duplicates_in_table: int = 0
    duplicates_between: int = 0
    conflicts_in_table: int = 0
    conflicts_between: int = 0
    own: dict[int, tuple[int, int]] = {}
    others: dict[int, tuple[int, int]] = {}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of some rows of a write (see `model.Commit`), and what they met."""

    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    rejected: int = 0
    met: Met = msgspec.field(default_factory=Met)


class WritesTogether(Protocol):
    """A store that writes many small tables as one commit and still tells them apart."""

    def write_together(
        self,
        kind: Kind,
        tables: Sequence[pa.Table],
        *,
        interval: Interval | None = None,
        on_conflict: OnConflict = OnConflict.REPLACE,
        prefer: Sequence[str] = (),
        source: str | None = None,
        batch: str | None = None,
    ) -> tuple[Commit, list[Outcome]]:
        """As `write` of the tables one after the other in one table, and what became of the rows of each."""


class KeepsDocuments(Protocol):
    """A store that keeps small documents beside the data: the progress of loads, certificates, quality."""

    def put_documents(self, collection: str, documents: Mapping[str, bytes | None]) -> None:
        """Add or replace all of them by key, or none; None removes; durable when it returns."""

    def documents(self, collection: str, keys: Sequence[str] | None = None) -> dict[str, bytes]:
        """Those of the keys that there are, or all of the collection, ordered by key."""


class Audits(Protocol):
    """A store that can show what a batch brought, whatever became of it since."""

    def written(self, batch: str, kind: Kind, interval: Interval | None = None) -> Reading:
        """Every row that commits of the batch stored (also those that lost, were corrected, deleted or undone), with
        every column of the kind and `commit`; rows of one symbol come in a few runs, in no order beyond that."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """All commits of one name. Times are those at which they were recorded, UTC nanoseconds.

    `undone_by` names the undo that hides it now; `undoes`: the batch that it is the undo of.
    """

    name: str
    first_commit: int
    last_commit: int
    started: int
    ended: int
    commits: int
    series: tuple[tuple[Kind, Interval | None], ...]
    inserted: int = 0
    replaced: int = 0
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0
    undone_by: str | None = None
    undoes: str | None = None


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """What an undo did, over all its commits: current rows that went away, and earlier ones that came back.

    `left` rows of the batch had been written or deleted again since, and stay as they are; `examples` are the first
    of them, as (kind, interval, symbol, timestamp, commit that changed it).
    """

    batch: str
    commits: list[Commit]
    removed: int = 0
    restored: int = 0
    left: int = 0
    examples: list[tuple[Kind, Interval | None, str, int, int]] = []


class Undoes(Protocol):
    """A store that can take back what a batch did."""

    def batches(
        self, names: Sequence[str] | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[Batch]:
        """Batches by their last commit, newest first: those of the names, or whose last commit is below `before`."""

    def undo(self, batch: str) -> Undone:
        """As if the batch had never been, from now on; one transaction, durable when it returns, and a batch itself.

        Reads as of before still see it. What was written or deleted by others since stays. `NotFound` when there is
        no such batch, `Conflict` when it is undone already.
        """


class LoggedWrite(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one kind and interval that came from the log."""

    kind: Kind
    table: pa.Table
    interval: Interval | None = None
    on_conflict: OnConflict = OnConflict.REPLACE


class Recorded(msgspec.Struct, frozen=True):
    """A commit, and the positions of the log up to which its rows, and those of all before it, came."""

    commit: int
    positions: dict[str, bytes]


class KeepsUp(Protocol):
    """A store that keeps positions of a log together with the rows that came from there."""

    def write_logged(
        self, writes: Sequence[LoggedWrite], before: Mapping[str, bytes | None], after: Mapping[str, bytes]
    ) -> list[Commit]:
        """All rows of all tables, each of another kind or interval, and the positions `after`, or nothing; durable.

        `Conflict` unless the store has the positions `before`, so that two who record the same cannot both succeed.
        Trades and quotes without an id are each a record of its own: ordinals count on from equal stored ones.
        """

    def recorded(self) -> Recorded:
        """The newest commit and the positions, as of one moment."""
