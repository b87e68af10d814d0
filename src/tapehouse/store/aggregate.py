"""Measures per symbol or group and time bucket, for stores that have no engine of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.errors import InvalidRequest
from tapehouse.model import NAME, TIMESTAMP, Kind
from tapehouse.resample import (
    GROUP_MEASURES,
    MEASURES,
    UNKNOWN_TRADES,
    Measured,
    Rows,
    check_measures,
    combine,
    measure,
    measure_each,
    member_measures,
)
from tapehouse.store.base import Aggregation, Edges, Reading, Selection
from tapehouse.store.tables import check_interval

_COUNTS = ("count", "trades")
_NEEDED = {
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
    "vwap": ("vwap", "close", "volume"),
    "count": (),
    "trades": ("trades",),
    "return": ("close",),
    "volatility": ("open", "close"),
}
_PRICES = ("open", "high", "low", "close", "volume")


class _Result(NamedTuple):
    """Measures of one symbol or group; `starts` are the times at which its buckets start."""

    name: str
    starts: np.ndarray
    measured: Measured


def aggregate_by_reading(
    read: Callable[[Selection], Reading], selection: Selection, edges: Edges, aggregation: Aggregation
) -> pa.Table:
    """What `Store.aggregate` promises, by reading the rows symbol by symbol; holds one symbol's rows, or one batch.

    The selection's columns, limit, order and `after` do not matter. The schema is `aggregate_schema`.
    """
    check_aggregation(selection, aggregation)
    groups, measures = aggregation.groups, aggregation.measures
    if groups is not None:
        measures = tuple(member_measures(measures))
        selection = msgspec.structs.replace(selection, symbols=_members(groups, selection.symbols))
    columns = _columns(selection.kind, measures)
    every_row = msgspec.structs.replace(selection, columns=columns, limit=None, newest_first=False, after=None)
    results = list(_results(read(every_row), edges, measures))
    if groups is not None:
        results = _combined(results, groups, aggregation.measures)
    return _table(results, aggregate_schema(aggregation))


def check_aggregation(selection: Selection, aggregation: Aggregation) -> None:
    """Raise `InvalidRequest` for a kind without prices, a measure that is not there, or a wrong interval."""
    check_interval(selection.kind, selection.interval)
    if selection.kind is Kind.QUOTES:
        raise InvalidRequest("quotes cannot be aggregated: they have no price and no volume of their own")
    check_measures(aggregation.measures, MEASURES if aggregation.groups is None else GROUP_MEASURES)


def aggregate_schema(aggregation: Aggregation) -> pa.Schema:
    """Columns `symbol` or `group`, `timestamp`, the measures: counts int64, others float64, null where not known."""
    names = [("symbol" if aggregation.groups is None else "group", NAME), ("timestamp", TIMESTAMP)]
    types = [(name, pa.int64() if name in _COUNTS else pa.float64()) for name in aggregation.measures]
    return pa.schema(names + types)


def _members(groups: Mapping[str, Sequence[str]], symbols: Sequence[str] | None) -> tuple[str, ...]:
    members = {symbol for group in groups.values() for symbol in group}
    return tuple(sorted(members if symbols is None else members & set(symbols)))


def _columns(kind: Kind, measures: Sequence[str]) -> tuple[str, ...]:
    if kind is Kind.TRADES:
        return "symbol", "timestamp", "price", "size"
    return tuple(dict.fromkeys(["symbol", "timestamp", *(column for name in measures for column in _NEEDED[name])]))


class _Part(NamedTuple):
    """Rows of one symbol: those of a batch from `start` to `end`."""

    symbol: str
    batch: Rows
    start: int
    end: int

    @property
    def rows(self) -> Rows:
        """The rows themselves."""
        return self.batch.take(slice(self.start, self.end))


def _results(reading: Reading, edges: Edges, measures: Sequence[str]) -> Iterator[_Result]:
    """The measures of each symbol of a reading that is ordered by symbol."""
    parts: list[_Part] = []
    with reading:
        for batch in reading:
            parts += _parts(batch)
            open_from = next((i for i, part in enumerate(parts) if part.symbol == parts[-1].symbol), 0)
            if open_from:
                yield from _measured(parts[:open_from], edges, measures)
                parts = parts[open_from:]
    yield from _measured(parts, edges, measures)


def _measured(parts: Sequence[_Part], edges: Edges, measures: Sequence[str]) -> Iterator[_Result]:
    """The measures of whole symbols; neighbours in one batch with the same edges are measured together."""
    together: list[_Part] = []
    shared = np.empty(0, np.int64)
    for symbol, group in groupby(parts, lambda part: part.symbol):
        own, its_edges = list(group), edges(symbol)
        beside = together and together[-1].batch is own[0].batch and together[-1].end == own[0].start
        if len(own) == 1 and beside and np.array_equal(shared, its_edges):
            together += own
            continue
        yield from _measured_together(together, shared, measures)
        together = []
        if len(own) == 1:
            together, shared = own, its_edges
        else:
            yield _Result(symbol, its_edges, measure(Rows.concat([part.rows for part in own]), its_edges, measures))
    yield from _measured_together(together, shared, measures)


def _measured_together(parts: Sequence[_Part], edges: np.ndarray, measures: Sequence[str]) -> Iterator[_Result]:
    if parts:
        low, high = parts[0].start, parts[-1].end
        bounds = [*(part.start - low for part in parts), high - low]
        measured = measure_each(parts[0].batch.take(slice(low, high)), bounds, edges, measures)
        yield from (_Result(part.symbol, edges, one) for part, one in zip(parts, measured, strict=True))


def _parts(batch: pa.RecordBatch) -> Iterator[_Part]:
    """The rows of each symbol of a batch, in the order they stand."""
    if batch.num_rows == 0:
        return
    symbols = batch.column("symbol")
    indices = symbols.indices.to_numpy()
    starts = np.flatnonzero(np.append(True, indices[1:] != indices[:-1])).tolist()
    rows = _rows(batch)
    for start, end in zip(starts, [*starts[1:], batch.num_rows], strict=True):
        yield _Part(symbols.dictionary[int(indices[start])].as_py(), rows, start, end)


def _rows(batch: pa.RecordBatch) -> Rows:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    times = columns["timestamp"].cast(pa.int64()).to_numpy()
    if "price" in columns:
        return Rows.of_trades(times, columns["price"].to_numpy(), columns["size"].to_numpy())
    # What no measure asked for was not read; a column of one repeated value stands in for it and costs nothing.
    absent = np.broadcast_to(np.nan, len(times))
    prices = {name: columns[name].to_numpy() if name in columns else absent for name in _PRICES}
    vwap = columns["vwap"].to_numpy(zero_copy_only=False) if "vwap" in columns else None
    trades = columns["trades"].fill_null(UNKNOWN_TRADES).to_numpy() if "trades" in columns else None
    return Rows(times, **prices, vwap=vwap, trades=trades)


def _combined(members: list[_Result], groups: Mapping[str, Sequence[str]], measures: Sequence[str]) -> list[_Result]:
    """The groups that have rows, by name. Bucket i of a group starts where its first member's starts."""
    by_symbol = {member.name: member for member in members}
    results = []
    for name in sorted(groups):
        found = [by_symbol[symbol] for symbol in dict.fromkeys(groups[name]) if symbol in by_symbol]
        if len({len(member.starts) for member in found}) > 1:
            raise InvalidRequest(f"the members of group {name!r} have different buckets", group=name)
        if found:
            starts = np.min([member.starts for member in found], axis=0)
            results.append(_Result(name, starts, combine([member.measured for member in found], measures)))
    return results


def _table(results: list[_Result], schema: pa.Schema) -> pa.Table:
    rows = [len(result.measured.buckets) for result in results]
    indices = np.repeat(np.arange(len(results), dtype=np.int32), rows)
    names = pa.array([result.name for result in results], pa.string())
    starts = _concat([result.starts[result.measured.buckets] for result in results], np.int64)
    columns = [pa.DictionaryArray.from_arrays(indices, names), pa.array(starts).cast(TIMESTAMP)]
    for field in list(schema)[2:]:
        values = _concat([result.measured.values[field.name] for result in results], np.float64)
        columns.append(pa.array(values, from_pandas=True).cast(field.type))
    return pa.table(columns, schema=schema)


def _concat(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *parts])
