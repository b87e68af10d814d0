"""Rows, cut at the symbols and periods that files are made by. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tapehouse.calendars import midnight
from tapehouse.export.base import Partition
from tapehouse.model import SECOND_NS, Instruments
from tapehouse.times import FIRST_DATE, LAST_DATE


class Piece(NamedTuple):
    """Rows of one file that follow one another: of a symbol (None: of many), of the period that begins at `first`."""

    symbol: str | None
    first: date | None
    rows: pa.RecordBatch


def cut(batches: Iterable[pa.RecordBatch], period: Partition | None, instruments: Instruments) -> Iterator[Piece]:
    """The rows cut by symbol and, if there is one, by period in the zone of each symbol's instrument."""
    for batch in batches:
        for symbol, rows in runs(batch):
            if period is None:
                yield Piece(symbol, None, rows)
            else:
                yield from _by_period(symbol, rows, period, instruments.of(symbol).timezone)


def runs(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of each symbol, which follow one another."""
    symbols = batch.column(batch.schema.get_field_index("symbol"))
    codes = symbols.indices.to_numpy()
    starts = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(codes)]
    for low, high in pairwise(starts):
        if high > low:
            yield symbols.dictionary[int(codes[low])].as_py(), batch.slice(low, high - low)


def times_of(batch: pa.RecordBatch) -> np.ndarray:
    """The timestamps, int64 nanoseconds."""
    column = batch.column(batch.schema.get_field_index("timestamp"))
    values: np.ndarray = column.view(pa.int64()).to_numpy()
    return values


def _by_period(symbol: str, rows: pa.RecordBatch, period: Partition, zone: str) -> Iterator[Piece]:
    times = times_of(rows)
    firsts = list(periods(int(times[0]), int(times[-1]), period))
    edges = np.array([_midnight(first, zone) for first in firsts])
    places = [0, *np.searchsorted(times, edges[1:]).tolist(), len(times)]
    for first, (low, high) in zip(firsts, pairwise(places), strict=True):
        if high > low:
            yield Piece(symbol, first, rows.slice(low, high - low))


def periods(start: int, end: int, period: Partition) -> Iterator[date]:
    """The first dates of the periods that may hold instants of `[start, end]`, whatever the zone."""
    first = _period_start(_day_of(start) - timedelta(1), period)
    last = _day_of(end) + timedelta(1)
    while first <= last:
        yield max(first, FIRST_DATE)
        first = following(first, period)


def following(first: date, period: Partition) -> date:
    """When the period after the one that begins then begins."""
    if period is Partition.DAY:
        return first + timedelta(1)
    if period is Partition.YEAR:
        return date(first.year + 1, 1, 1)
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)


def _period_start(day: date, period: Partition) -> date:
    if period is Partition.DAY:
        return day
    return day.replace(day=1) if period is Partition.MONTH else day.replace(month=1, day=1)


def _day_of(nanos: int) -> date:
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=nanos // SECOND_NS)).date()
    return min(max(day, FIRST_DATE + timedelta(1)), LAST_DATE - timedelta(1))


@lru_cache(maxsize=65_536)
def _midnight(first: date, zone: str) -> int:
    return midnight(first, zone)
