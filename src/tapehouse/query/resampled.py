"""Bars of one symbol made from what is stored: its own bars first, then the best of finer ones and trades.

Read chunk by chunk. A bar comes out the same whatever range, chunk, page or limit it is asked with: all its parts
are read, also those beyond the range, and the source of a bucket is chosen by that bucket alone.
`docs/design/resampling.md` has the rules and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.calendars import Buckets, Timeline, Timetable, timeline
from tapehouse.model import NAME, TIMESTAMP, Interval, Kind, read_schema
from tapehouse.query.plan import Plan, reach_of
from tapehouse.resample import UNKNOWN_TRADES, Rows, choose, resample
from tapehouse.store.base import Reading, Selection, Series

EXTRA_FIELDS = (pa.field("made_from", NAME, nullable=False), pa.field("complete", pa.bool_(), nullable=False))
"""The columns that an answer with resampled bars ends with."""

_CHUNK_BUCKETS = 100_000
# A read costs about as much as reading this many rows more: what lies between two needed spans is read with them
# when it is less.
_READ_COSTS_ROWS = 20_000
_PRICES = ("open", "high", "low", "close", "volume")
_OPTIONAL = ("vwap", "trades", "adj_close")


def with_stored(table: Any) -> Any:
    """The table or batch with the extra columns of bars that are as they were stored."""
    made_from = _repeated("stored", table.num_rows)
    for field, column in zip(EXTRA_FIELDS, (made_from, pa.array(np.ones(table.num_rows, bool))), strict=True):
        table = table.append_column(field, column)
    return table


class Resampling:
    """The bars of one symbol; `selection` has the interval, the columns, the source and the commit to read."""

    def __init__(self, read: Callable[[Selection], Reading], selection: Selection, plan: Plan) -> None:
        assert selection.interval is not None
        self._interval = selection.interval
        self._plan = plan
        self._timeline = timeline(plan.instrument)
        self._schema = read_schema(Kind.BARS, selection.columns)
        self._read = read
        self._selection = msgspec.structs.replace(
            selection, symbols=(plan.symbol,), newest_first=False, limit=None, after=None
        )
        self._parts = Parts(read, self._selection, self._timeline, self._interval, plan.parts)

    def batches(self, *, newest_first: bool, limit: int | None) -> Iterator[pa.RecordBatch]:
        """The bars in order, with the extra columns; `limit` only says how many somebody is likely to take."""
        for start, end in self._chunks(newest_first, limit):
            table = self._chunk(start, end)
            order = np.argsort(table["timestamp"].cast(pa.int64()).to_numpy(), kind="stable")
            table = table.unify_dictionaries().take(order[::-1] if newest_first else order)
            yield from table.combine_chunks().to_batches()

    def _chunks(self, newest_first: bool, limit: int | None) -> Iterator[tuple[int, int]]:
        """Adjacent spans over all that may have rows, in order; small ones first when only some rows are wanted."""
        held = [*self._plan.used, *([self._plan.stored] if self._plan.stored else [])]
        reach = reach_of(self._interval)
        start = max(self._plan.start, min(series.first for series in held) - reach)
        end = min(self._plan.end, max(series.last for series in held) + reach)
        width = widest = _CHUNK_BUCKETS * self._interval.nanos
        if limit is not None:
            width = min(widest, (limit + 1) * self._interval.nanos)
        while start < end:
            middle = max(start, end - width) if newest_first else min(end, start + width)
            yield (middle, end) if newest_first else (start, middle)
            start, end = (start, middle) if newest_first else (middle, end)
            width = min(widest, 2 * width)

    def _chunk(self, start: int, end: int) -> pa.Table:
        buckets = self._timeline.buckets(self._interval, start, end)
        own, taken = self._own(buckets, start, end)
        needed = ~np.isin(buckets.stamps, taken)
        if self._plan.stored is not None:
            # A source that has these bars has its own hours: only what the calendar expects is a hole in it.
            needed &= self._timeline.expected(self._interval, start, end).contains(buckets.stamps)
        made = self._parts.best(buckets, needed) if needed.any() else []
        return pa.concat_tables([own, *(self._table(bars, buckets) for bars in made)])

    def _own(self, buckets: Buckets, start: int, end: int) -> tuple[pa.Table, np.ndarray]:
        """The stored bars stamped in the span, and the stamps of the buckets that stored bars belong to."""
        if self._plan.stored is None:
            return with_stored(self._schema.empty_table()), np.empty(0, np.int64)
        low, high = start, end
        if len(buckets):
            edges = self._timeline.part_edges(self._interval, buckets).edges
            low, high = min(low, int(edges[0])), max(high, int(edges[-1]))
        selection = msgspec.structs.replace(self._selection, start=low, end=high)
        with self._read(selection) as reading:
            table = reading.table()
        stamps = table["timestamp"].cast(pa.int64()).to_numpy()
        first, last = np.searchsorted(stamps, [start, end])
        return with_stored(table.slice(first, last - first)), self._timeline.label(self._interval, stamps)

    def _table(self, made: Made, buckets: Buckets) -> pa.Table:
        rows, n = made.rows, len(made.rows)
        values = {
            "symbol": _repeated(self._plan.symbol, n),
            "timestamp": pa.array(buckets.stamps[made.buckets]).cast(TIMESTAMP),
            **{name: pa.array(getattr(rows, name)) for name in _PRICES},
            "made_from": _repeated(made.name, n),
            "complete": pa.array(made.complete),
        }
        for name in ("vwap", "adj_close"):
            if (column := getattr(rows, name)) is not None:
                values[name] = pa.array(column, from_pandas=True)
        if rows.trades is not None:
            values["trades"] = pa.array(rows.trades, mask=rows.trades == UNKNOWN_TRADES)
        schema = pa.schema([*self._schema, *EXTRA_FIELDS])
        # A made bar has no source and no commit of its own.
        columns = [values[field.name] if field.name in values else pa.nulls(n, field.type) for field in schema]
        return pa.table(columns, schema=schema)


@dataclass(frozen=True, slots=True)
class Made:
    """Bars made from one source: of which buckets, and how well each is covered (1: all expected parts)."""

    name: str
    buckets: np.ndarray
    rows: Rows
    coverage: np.ndarray
    complete: np.ndarray

    def take(self, where: np.ndarray) -> Made:
        """The bars at a mask."""
        return replace(
            self,
            buckets=self.buckets[where],
            rows=self.rows.take(where),
            coverage=self.coverage[where],
            complete=self.complete[where],
        )


class Parts:
    """What bars of one symbol and interval can be made from: series from coarse to fine, trades last."""

    def __init__(
        self,
        read: Callable[[Selection], Reading],
        selection: Selection,
        line: Timeline,
        interval: Interval,
        parts: Iterable[Series],
    ) -> None:
        self._read = read
        self._selection = selection
        self._timeline = line
        self._interval = interval
        self._parts = tuple(parts)
        bars = [part.interval for part in self._parts if part.interval is not None]
        # Trades are counted in slots that have any: those of the finest bars, so that the two can be compared.
        per_minute = Interval.M1 if Interval.M1.divides(interval) else interval
        self._trade_slots = bars[-1] if bars else per_minute

    def best(self, buckets: Buckets, needed: np.ndarray) -> list[Made]:
        """Bars for the buckets that need one and have parts, each from the source that covers it best."""
        made: list[tuple[int, Made]] = []
        coverage = np.zeros((len(self._parts), len(buckets)))
        for row, part in enumerate(self._parts):
            for first, last in self._runs(part, buckets, needed):
                found = self._make(part, buckets, first, last)
                found = found.take(needed[found.buckets])
                coverage[row, found.buckets] = found.coverage
                made.append((row, found))
            # Something finer cannot cover a bucket better than wholly.
            needed = needed & (coverage.max(axis=0) < 1)
        chosen = choose(coverage)
        return [found.take(chosen[found.buckets] == row) for row, found in made]

    def _runs(self, part: Series, buckets: Buckets, needed: np.ndarray) -> Iterator[tuple[int, int]]:
        """Runs `[first, last)` of buckets to read, which hold all that are needed and that the series reaches."""
        edges = self._timeline.part_edges(part.interval, buckets).edges
        wanted = np.flatnonzero(needed & (edges[1:] > part.first) & (edges[:-1] <= part.last))
        if not len(wanted):
            return
        between = edges[wanted[1:]] - edges[wanted[:-1] + 1]
        per_row = max((part.last - part.first) / part.rows, 1.0)
        cuts = np.flatnonzero(between / per_row > _READ_COSTS_ROWS)
        firsts, lasts = wanted[np.append(0, cuts + 1)], wanted[np.append(cuts, len(wanted) - 1)]
        yield from zip(firsts.tolist(), (lasts + 1).tolist(), strict=True)

    def _make(self, part: Series, buckets: Buckets, first: int, last: int) -> Made:
        buckets = buckets.slice(first, last)
        edges = self._timeline.part_edges(part.interval, buckets).edges
        steps = self._steps(part, buckets)
        presence = self._presence(part, buckets)
        made = [_empty()]
        for rows in whole_buckets(self._rows(part, int(edges[0]), int(edges[-1])), steps):
            presence.count(rows.times)
            made.append(resample(rows, steps).rows)
        bars = Rows.concat(made)
        if len(steps) != len(edges):
            bars = resample(bars, edges).rows
        at = np.searchsorted(edges, bars.times, side="right") - 1
        coverage, complete = presence.coverage(at)
        return Made(str(part.interval or part.kind), at + first, bars, coverage, complete)

    def _steps(self, part: Series, buckets: Buckets) -> np.ndarray:
        """Edges to resample by first: weeks and months are made of days, so that a month of trades need not fit."""
        if buckets.days is None or (part.interval is not None and part.interval.by_calendar):
            return self._timeline.part_edges(part.interval, buckets).edges
        return self._timeline.part_edges(part.interval, self._timeline.days_of(buckets)).edges

    def _presence(self, part: Series, buckets: Buckets) -> Presence:
        slots = part.interval or self._trade_slots
        edges = self._timeline.part_edges(slots, buckets)
        table = self._timeline.expected(slots, int(edges.edges[0]), int(edges.edges[-1]))
        # A bar with trading on both sides of an edge is whole in neither bucket; trades can be told apart.
        torn = edges.torn if part.interval is not None else np.zeros(len(edges.torn), bool)
        return Presence(self._timeline, slots, edges.edges, table, torn)

    def _rows(self, part: Series, start: int, end: int) -> Iterator[Rows]:
        optional = tuple(name for name in _OPTIONAL if name in (self._selection.columns or ()))
        trades = part.kind is Kind.TRADES
        selection = msgspec.structs.replace(
            self._selection,
            kind=part.kind,
            interval=part.interval,
            columns=("timestamp", "price", "size") if trades else ("timestamp", *_PRICES, *optional),
            start=start,
            end=end,
        )
        with self._read(selection) as reading:
            for batch in reading:
                if batch.num_rows:
                    yield _of_trades(batch) if trades else _of_bars(batch)


class Presence:
    """Which of the expected slots of each bucket have any rows."""

    def __init__(
        self, line: Timeline, slots: Interval, edges: np.ndarray, expected: Timetable, torn: np.ndarray
    ) -> None:
        self._timeline = line
        self._slots = slots
        self._edges = edges
        self._table = expected
        self._expected = np.diff(expected.count_before(edges)) + torn[:-1] + torn[1:]
        self._present = np.zeros(len(edges) - 1, np.int64)

    def count(self, times: np.ndarray) -> None:
        """Count rows; those of one slot come in one call."""
        slots = self._timeline.label(self._slots, times)
        distinct = slots[np.append(True, slots[1:] != slots[:-1])]
        at = np.searchsorted(self._edges, distinct[self._table.contains(distinct)], side="right") - 1
        inside = at[(at >= 0) & (at < len(self._present))]
        self._present += np.bincount(inside, minlength=len(self._present))

    def coverage(self, buckets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of buckets that have rows, the share of expected slots that are there (1 if none is), and whether all are."""
        present, expected = self._present[buckets], self._expected[buckets]
        # Rows that no calendar expects are still better than none.
        share = np.minimum(np.maximum(present, 0.5) / np.maximum(expected, 1), 1.0)
        return np.where(expected > 0, share, 1.0), present >= expected


def whole_buckets(parts: Iterable[Rows], edges: np.ndarray) -> Iterator[Rows]:
    """The same rows, cut so that no bucket is split: its bar must not depend on how rows arrive."""
    held: list[Rows] = []
    for rows in parts:
        held.append(rows)
        cut = edges[np.searchsorted(edges, rows.times[-1], side="right") - 1]
        if held[0].times[0] < cut:
            every = Rows.concat(held)
            at = int(np.searchsorted(every.times, cut))
            yield every.take(slice(0, at))
            held = [every.take(slice(at, None))]
    if held:
        yield Rows.concat(held)


def _empty() -> Rows:
    none = np.empty(0)
    return Rows(np.empty(0, np.int64), none, none, none, none, none)


def _of_trades(batch: pa.RecordBatch) -> Rows:
    times = batch["timestamp"].cast(pa.int64()).to_numpy()
    return Rows.of_trades(times, batch["price"].to_numpy(), batch["size"].to_numpy())


def _of_bars(batch: pa.RecordBatch) -> Rows:
    columns = {name: batch[name] for name in batch.schema.names}
    times = columns["timestamp"].cast(pa.int64()).to_numpy()
    floats = {
        name: columns[name].to_numpy(zero_copy_only=False)
        for name in (*_PRICES, "vwap", "adj_close")
        if name in columns
    }
    trades = columns["trades"].fill_null(UNKNOWN_TRADES).to_numpy() if "trades" in columns else None
    return Rows(times, **floats, trades=trades)


def _repeated(text: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([text]))
