"""The hot rows: versions that the archive does not hold yet, in DuckDB, only ever inserted.

Beside the tables stands a small index in memory that says which symbols have hot rows at all, so that a read of settled
data never asks DuckDB.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from tapehouse.model import DAY_NS
from tapehouse.store.archive.files import PLACE, value_fields
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.duckdb.catalog import Snapshot
from tapehouse.store.duckdb.versions import Verdict

ROWS_PER_DELETE = 100_000
"""A DELETE of more rows at once would keep a writer waiting."""


@dataclass(slots=True)
class HotSymbol:
    """Hot rows of one symbol: their span, number, and whether some of them correct others or never were current."""

    first: int
    last: int
    rows: int
    mixed: bool


@dataclass(slots=True)
class HotSpan:
    """Hot rows of one span; `since` and `written` are monotonic seconds of the first and the latest write to it.

    `hidden` rows, hot or archived, are not current any more since the span was compacted.
    """

    rows: int
    since: float
    written: float
    hidden: int = 0


class HotRows(NamedTuple):
    """The hot versions of one symbol that a read may need; `mixed`: which of them count is yet to be told."""

    rows: pa.Table
    mixed: bool


class HotIndex:
    """What the hot tables hold, per data set. Only the writer changes it, under its lock."""

    def __init__(self) -> None:
        self.symbols: dict[Dataset, dict[int, HotSymbol]] = {}
        self.spans: dict[Dataset, dict[int, HotSpan]] = {}

    def touches(self, dataset: Dataset, symbol: int, start: int, end: int) -> bool:
        """Whether there may be hot rows of that symbol in `[start, end)`."""
        hot = self.symbols.get(dataset, {}).get(symbol)
        return hot is not None and hot.first < end and hot.last >= start

    def mixed(self, dataset: Dataset, symbol: int) -> bool:
        """Whether versions must be told apart to read that symbol's hot rows."""
        hot = self.symbols.get(dataset, {}).get(symbol)
        return hot is not None and hot.mixed

    def rows(self, dataset: Dataset) -> int:
        """All hot rows of the data set."""
        return sum(span.rows for span in list(self.spans.get(dataset, {}).values()))

    def rows_of(self, dataset: Dataset, symbol: int) -> int:
        """All hot rows of that symbol, those that wait for their purge included."""
        hot = self.symbols.get(dataset, {}).get(symbol)
        return 0 if hot is None else hot.rows

    def add(self, dataset: Dataset, symbol: int, new: HotSymbol) -> None:
        """Take note of new hot rows of a symbol."""
        symbols = self.symbols.setdefault(dataset, {})
        hot = symbols.get(symbol)
        if hot is not None:
            first, last = min(hot.first, new.first), max(hot.last, new.last)
            new = HotSymbol(first, last, hot.rows + new.rows, hot.mixed or new.mixed)
        symbols[symbol] = new

    def add_spans(self, dataset: Dataset, times: np.ndarray) -> None:
        """Take note of the spans of new hot rows."""
        self.count(dataset, _by_span(dataset, times))

    def hide(self, dataset: Dataset, times: np.ndarray) -> None:
        """Take note of the spans of rows that are not current any more."""
        self.count(dataset, _by_span(dataset, times), hidden=True)

    def count(self, dataset: Dataset, counts: Iterable[tuple[int, int]], *, hidden: bool = False) -> None:
        """Add to the rows of spans, or to those that are hidden."""
        held, now = self.spans.setdefault(dataset, {}), time.monotonic()
        for span, rows in counts:
            before = held.get(span, HotSpan(0, now, now))
            new, gone = (0, rows) if hidden else (rows, 0)
            held[span] = HotSpan(before.rows + new, before.since, now, before.hidden + gone)


def _by_span(dataset: Dataset, times: np.ndarray) -> Iterable[tuple[int, int]]:
    """The spans of those times, and how many are in each."""
    lowest, highest = dataset.span_at(int(times.min())), dataset.span_at(int(times.max()))
    if lowest == highest:
        return [(lowest, len(times))]
    # Counted by day first: a day lies in one span, and there are few of them.
    days = times // DAY_NS
    first = int(days.min())
    counts = np.bincount(days - first)
    held = np.flatnonzero(counts)
    rows: Counter[int] = Counter()
    for span, count in zip(dataset.span_of_day(first + held).tolist(), counts[held].tolist(), strict=True):
        rows[span] += count
    return rows.items()


def load_index(connection: duckdb.DuckDBPyConnection, dataset: Dataset, index: HotIndex) -> None:
    """Read a data set's part of the index."""
    index.symbols[dataset] = _hot_symbols(connection, dataset)
    index.spans[dataset] = {}
    for start, end in _slices(connection, dataset):
        times = connection.execute(
            f"SELECT timestamp FROM {dataset.table} WHERE rowid >= ? AND rowid < ?",
            [start, end],
        ).fetchnumpy()["timestamp"]
        if len(times):
            index.add_spans(dataset, np.asarray(times))


def reload_symbols(connection: duckdb.DuckDBPyConnection, dataset: Dataset, index: HotIndex) -> None:
    """Read anew which symbols have hot rows, after some were purged; spans without any are forgotten."""
    index.symbols[dataset] = _hot_symbols(connection, dataset)
    index.spans[dataset] = {span: held for span, held in index.spans[dataset].items() if held.rows or held.hidden}


def forget_rows(index: HotIndex, dataset: Dataset, span: int, rows: int, hidden: int) -> None:
    """Discount what the archive knows now: hot rows, though they are still to be deleted, and rows that are hidden."""
    held = index.spans[dataset].get(span)
    if held is not None:
        left = HotSpan(max(0, held.rows - rows), held.since, held.written, max(0, held.hidden - hidden))
        index.spans[dataset][span] = left


def _hot_symbols(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> dict[int, HotSymbol]:
    rows = connection.execute(
        f"SELECT symbol, min(timestamp), max(timestamp), count(*), bool_or(verdict <> {Verdict.INSERTED:d}) "
        f"FROM {dataset.table} GROUP BY symbol"
    ).fetchall()
    return {symbol: HotSymbol(*hot) for symbol, *hot in rows}


def _slices(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> Iterator[tuple[int, int]]:
    low, high = connection.execute(f"SELECT min(rowid), max(rowid) FROM {dataset.table}").fetchall()[0]
    if low is not None:
        yield from ((start, start + 1_000_000) for start in range(low, high + 1, 1_000_000))


def insert_statement(dataset: Dataset, columns: Sequence[str]) -> str:
    """The INSERT of an Arrow table `incoming` with those columns; parameter: its commit."""
    values = [f'"{f.name}"' if f.name in columns else "NULL" for f in value_fields(dataset.kind)]
    return (
        f"INSERT INTO {dataset.table} SELECT symbol, timestamp, {', '.join(values)}, source, ?::BIGINT, "
        f"{'verdict' if 'verdict' in columns else int(Verdict.INSERTED)} FROM incoming"
    )


def read_hot(
    cursor: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    dataset: Dataset,
    symbols: Sequence[int],
    start: int,
    end: int,
    columns: Sequence[str],
) -> pa.Table:
    """All versions above the archive's floors, up to the snapshot's commit, ordered by symbol, time and version.

    Columns: symbol (id), timestamp (int64), commit, lost, source (id), and those asked for.
    """
    names = [name for name in dict.fromkeys((*_ALWAYS, *columns)) if name not in ("lost", PLACE)]
    selected = ", ".join([f"verdict = {Verdict.REJECTED:d} AS lost", *[f'"{name}"' for name in names]])
    chosen = ", ".join(str(int(symbol)) for symbol in symbols)
    table = cursor.sql(
        f"SELECT {selected} FROM {dataset.table} WHERE symbol IN ({chosen}) AND timestamp >= ? "
        f"AND timestamp < ? AND commit <= ? ORDER BY symbol, timestamp, commit, rowid",
        params=[start, end, snapshot.head],
    ).to_arrow_table()
    if PLACE in columns:
        table = table.append_column(PLACE, pa.array(_places(table)))
    return _above_floors(snapshot, dataset, table)


def read_written(
    cursor: duckdb.DuckDBPyConnection,
    snapshot: Snapshot,
    dataset: Dataset,
    symbols: tuple[int, int],
    times: tuple[int, int],
    commits: tuple[int, int],
    columns: Sequence[str],
) -> pa.Table:
    """All versions above the archive's floors that lie between those symbols, times and commits, the last included
    except of times, with symbol (id), timestamp (int64), commit and those columns, in no order: sorting costs more
    than all the rest."""
    selected = ", ".join(f'"{name}"' for name in dict.fromkeys(("symbol", "timestamp", "commit", *columns)))
    table = cursor.sql(
        f"SELECT {selected} FROM {dataset.table} WHERE symbol >= ? AND symbol <= ? AND timestamp >= ? "
        f"AND timestamp < ? AND commit >= ? AND commit <= ?",
        params=[*symbols, *times, *commits],
    ).to_arrow_table()
    return _above_floors(snapshot, dataset, table)


def _places(rows: pa.Table) -> np.ndarray:
    """Each row's position among those of its symbol, time and commit, which stand together in the order written."""
    first = np.ones(rows.num_rows, bool)
    first[1:] = False
    for name in ("symbol", "timestamp", "commit"):
        column = rows[name].to_numpy()
        first[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(first)
    return (np.arange(rows.num_rows) - np.repeat(starts, np.diff([*starts, rows.num_rows]))).astype("i4")


_ALWAYS = ("symbol", "timestamp", "commit", "source")


def _above_floors(snapshot: Snapshot, dataset: Dataset, table: pa.Table) -> pa.Table:
    floors = snapshot.shelf(dataset).floors
    if not floors or table.num_rows == 0:
        return table
    times, commits = table["timestamp"].to_numpy(), table["commit"].to_numpy()
    above = commits > snapshot.shelf(dataset).floors_of(dataset.span_of(times))
    return table if above.all() else table.filter(pa.array(above))


def hidden(dataset: Dataset, floors: Mapping[int, int]) -> str:
    """The SQL condition for the hot rows of those spans up to their floors: what the archive holds."""
    ranges = _ranges(dataset, floors) or [(0, 0, 0)]
    return " OR ".join(
        f"(timestamp >= {start} AND timestamp < {end} AND commit <= {floor})" for start, end, floor in ranges
    )


def row_range(connection: duckdb.DuckDBPyConnection, dataset: Dataset, condition: str) -> range:
    """Where such rows lie, in steps of `ROWS_PER_DELETE`. A checkpoint may give rows smaller numbers."""
    query = f"SELECT min(rowid), max(rowid) FROM {dataset.table} WHERE {condition}"
    low, high = connection.execute(query).fetchall()[0]
    return range(0) if low is None else range(low, high + 1, ROWS_PER_DELETE)


def delete_slice(connection: duckdb.DuckDBPyConnection, dataset: Dataset, condition: str, low: int) -> None:
    """Delete such rows from that row number on, `ROWS_PER_DELETE` numbers far."""
    statement = f"DELETE FROM {dataset.table} WHERE rowid >= ? AND rowid < ? AND ({condition})"
    connection.execute(statement, [low, low + ROWS_PER_DELETE])


def _ranges(dataset: Dataset, floors: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """`[start, end)` and floor, neighbours with the same floor taken together."""
    ranges: list[tuple[int, int, int]] = []
    for span, floor in sorted(floors.items()):
        start, end = dataset.bounds(span)
        if ranges and ranges[-1][1:] == (start, floor):
            start = ranges.pop()[0]
        ranges.append((start, end, floor))
    return ranges
