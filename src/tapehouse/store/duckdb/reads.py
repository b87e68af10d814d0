"""Reads: settled rows straight from row groups, hot rows from DuckDB, put together by symbol and span."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tapehouse.errors import InvalidRequest, NotFound
from tapehouse.model import NAME, TIMESTAMP, Kind, read_schema
from tapehouse.store.archive.columns import one_chunk, rows_within
from tapehouse.store.archive.files import ArchiveFile, internal_schema
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.base import Key, Reading, Selection
from tapehouse.store.duckdb.catalog import Shelf, Snapshot
from tapehouse.store.duckdb.engine import Engine
from tapehouse.store.duckdb.hot import HotRows, read_hot
from tapehouse.store.duckdb.versions import version_columns, visible
from tapehouse.store.hiding import Undo
from tapehouse.store.tables import check_selection

SYMBOLS_PER_HOT_QUERY = 64
ROWS_PER_HOT_QUERY = 1_000_000
"""Hot rows are held in memory while they are handed out; a symbol with more than this is read span by span."""
ROWS_PER_RUN = 300_000
"""Rows of several symbols that are read, and handed out, at once."""
READ_AHEAD = 4
"""Row groups that are decoded ahead of the consumer; more would only take memory."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a read resolved to: numbers instead of names, times cut to what may exist."""

    snapshot: Snapshot
    dataset: Dataset
    start: int
    end: int
    columns: tuple[str, ...]
    as_of: int
    source: int | None = None
    newest_first: bool = False

    def inside(self, span: int) -> Scope:
        """The part of it in that span."""
        start, end = self.dataset.bounds(span)
        return replace(self, start=max(start, self.start), end=min(end, self.end))


class Found(NamedTuple):
    """Internal rows and the place of their symbol among the answer's: one number, or one for each row."""

    place: int | np.ndarray
    rows: pa.Table


@dataclass(slots=True)
class Pages:
    """Cuts a stream of rows to what comes after a key, and to a limit."""

    limit: int | None
    after: Key | None
    newest_first: bool
    taken: int = field(default=0)

    @property
    def done(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.taken >= self.limit

    def cut(self, symbol: str, rows: pa.Table) -> pa.Table:
        """The rows of one symbol, in the order of the answer, that belong to this page."""
        if self.after is not None and self.after.symbol == symbol:
            rows = rows.slice(self._skip(rows["timestamp"].to_numpy(), self.after))
        if self.limit is not None:
            rows = rows.slice(0, self.limit - self.taken)
        self.taken += rows.num_rows
        return rows

    def _skip(self, times: np.ndarray, after: Key) -> int:
        passed = times > after.timestamp if self.newest_first else times < after.timestamp
        before = int(passed.sum())
        same = int((times == after.timestamp).sum())
        return before + min(same, after.nth + 1)


class Reads:
    """The reading half of the embedded store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="tapehouse-read")

    def close(self) -> None:
        """Stop the threads that read ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def read(self, selection: Selection) -> Reading:
        """See `Store.read`."""
        schema = read_schema(selection.kind, selection.columns)
        snapshot, release = self._engine.pinned()
        try:
            as_of = check_selection(selection, snapshot.head)
        except (InvalidRequest, NotFound):
            release()
            raise
        scope, symbols = self._resolve(selection, snapshot, as_of, tuple(schema.names))
        if scope is None:
            release()
            return Reading(schema, as_of, iter(()))
        dictionaries = {
            "symbol": pa.array(symbols, pa.string()),
            "source": pa.array(list(self._engine.sources.names), pa.string()),
        }
        pages = Pages(selection.limit, selection.after, selection.newest_first)

        def batches() -> Iterator[pa.RecordBatch]:
            for found in self._rows(scope, symbols, pages):
                yield encode(schema, found, dictionaries)

        return Reading(schema, as_of, batches(), release)

    def _resolve(
        self, selection: Selection, snapshot: Snapshot, as_of: int, columns: tuple[str, ...]
    ) -> tuple[Scope | None, list[str]]:
        ids = self._engine.symbols.ids
        # A copy: a writer may add symbols meanwhile.
        names = list(ids) if selection.symbols is None else {s for s in selection.symbols if s in ids}
        if (after := selection.after) is not None:
            names = {name for name in names if name >= after.symbol}
        source = None
        if selection.source is not None:
            source = self._engine.sources.ids.get(selection.source, -1)
        scope = Scope(
            snapshot, Dataset(selection.kind, selection.interval), selection.start, selection.end,
            columns, as_of, source, selection.newest_first,
        )  # fmt: skip
        return (None, []) if source == -1 or not names else (scope, sorted(names))

    def _rows(self, scope: Scope, symbols: list[str], pages: Pages) -> Iterator[Found]:
        """The rows in the order of the answer."""
        # A page rarely needs more than its first pieces, so nothing is read ahead for it.
        tasks, ahead = (self._tasks, READ_AHEAD) if pages.limit is None else (self._tasks_one_by_one, 0)
        for found in _ahead(self._pool, tasks(scope, symbols), ahead):
            rows = found.rows
            if scope.newest_first:
                rows = rows.take(pa.array(np.arange(rows.num_rows - 1, -1, -1)))
            if isinstance(found.place, int):
                rows = pages.cut(symbols[found.place], rows)
            if rows.num_rows:
                yield Found(found.place, rows)
            if pages.done:
                return

    def _tasks(self, scope: Scope, symbols: list[str]) -> Iterator[_Run | _Piece]:
        for low, chunk in self._chunks(scope, [self._engine.symbols.ids[name] for name in symbols]):
            if self._busy(scope, chunk[0]):
                yield from self._tasks_one_by_one(scope, symbols[low : low + 1], low)
                continue
            hot = self.hot_rows(scope, chunk)
            run: _Run | None = None
            for place, symbol in enumerate(chunk, low):
                spans = self._spans(scope, symbol, hot.get(symbol))
                sole = self._sole_file(scope, symbol, spans) if symbol not in hot else None
                if run is not None and (sole is None or not run.takes(*sole)):
                    yield run
                    run = None
                if sole is None:
                    for span in spans:
                        yield _Piece(self, scope, symbol, span, hot.get(symbol), place)
                else:
                    run = run or _Run(self, scope, sole[0])
                    run.add(place, sole[1])
            if run is not None:
                yield run

    def _chunks(self, scope: Scope, ids: list[int]) -> Iterator[tuple[int, list[int]]]:
        """The symbols in pieces whose hot rows are read at once, each with the place of its first."""
        low = rows = 0
        for place, symbol in enumerate(ids):
            more = self._hot_rows_of(scope, symbol)
            if place > low and (rows + more > ROWS_PER_HOT_QUERY or place - low == SYMBOLS_PER_HOT_QUERY):
                yield low, ids[low:place]
                low, rows = place, 0
            rows += more
        if ids:
            yield low, ids[low:]

    def _busy(self, scope: Scope, symbol: int) -> bool:
        return self._hot_rows_of(scope, symbol) > ROWS_PER_HOT_QUERY

    def _hot_rows_of(self, scope: Scope, symbol: int) -> int:
        index = self._engine.hot
        held = index.touches(scope.dataset, symbol, scope.start, scope.end)
        return index.rows_of(scope.dataset, symbol) if held else 0

    def _sole_file(self, scope: Scope, symbol: int, spans: list[int]) -> tuple[ArchiveFile, list[int]] | None:
        """The one file, and its groups, that has all there is to read of a symbol; None when it is not that simple.

        Neighbours in a file are then read at once, which is much faster than one by one.
        """
        if len(spans) != 1 or scope.newest_first or scope.source is not None:
            return None
        shelf = scope.snapshot.shelf(scope.dataset)
        floor = shelf.floors[spans[0]]
        deleted = any(d.version > floor for d in scope.snapshot.deletes_of(scope.dataset, symbol))
        if deleted or scope.as_of < floor:
            return None
        held = shelf.groups_of(spans[0], symbol, scope.start, scope.end)
        found = [(file, groups) for file, groups in held if not file.history]
        return found[0] if len(found) == 1 else None

    def _tasks_one_by_one(self, scope: Scope, symbols: list[str], first_place: int = 0) -> Iterator[_Run | _Piece]:
        """The same, asking for the hot rows of one symbol and span at a time."""
        for place, name in enumerate(symbols, first_place):
            symbol = self._engine.symbols.ids[name]
            for span in self._all_spans(scope, symbol):
                within = scope.inside(span)
                yield _Piece(self, scope, symbol, span, self.hot_rows(within, [symbol]).get(symbol), place)

    def _all_spans(self, scope: Scope, symbol: int) -> list[int]:
        """Every span that may have rows of the symbol, without a look at its hot rows."""
        dataset, index = scope.dataset, self._engine.hot
        spans = set(self._spans(scope, symbol, None))
        if index.touches(dataset, symbol, scope.start, scope.end):
            first, last = dataset.span_at(scope.start), dataset.span_at(scope.end - 1)
            spans |= {span for span in list(index.spans[dataset]) if first <= span <= last}
        return sorted(spans, reverse=scope.newest_first)

    def hot_rows(self, scope: Scope, symbols: Sequence[int]) -> dict[int, HotRows]:
        """The hot versions of those symbols, each sorted by time and version.

        Whether they are mixed is asked once: the index goes on with later commits, which the scope does not see.
        """
        index, dataset = self._engine.hot, scope.dataset
        touched = [s for s in symbols if index.touches(dataset, s, scope.start, scope.end)]
        if not touched:
            return {}
        mixed = {s for s in touched if index.mixed(dataset, s) or scope.snapshot.deletes_of(dataset, s)}
        told = bool(mixed) or scope.source is not None or scope.as_of < scope.snapshot.head
        columns = [*scope.columns, *(version_columns(dataset.kind) if told else ())]
        with self._engine.query(f"read {dataset.kind}") as cursor:
            rows = read_hot(cursor, scope.snapshot, dataset, touched, scope.start, scope.end, columns)
        ids = rows["symbol"].to_numpy()
        starts = np.searchsorted(ids, touched := sorted(touched), "left")
        ends = np.searchsorted(ids, touched, "right")
        cut = zip(touched, starts.tolist(), ends.tolist(), strict=True)
        return {s: HotRows(rows.slice(low, high - low), s in mixed) for s, low, high in cut if high > low}

    def stores(self, dataset: Dataset, symbol: int, start: int, end: int) -> bool:
        """Whether there may be versions of that symbol in `[start, end)`, visible or not."""
        if start >= end:
            return False
        shelf = self._engine.snapshot.shelf(dataset)
        archived = next(_archived_spans(dataset, shelf, symbol, start, end), None) is not None
        return archived or self._engine.hot.touches(dataset, symbol, start, end)

    def _spans(self, scope: Scope, symbol: int, hot: HotRows | None) -> list[int]:
        dataset = scope.dataset
        spans = set(_archived_spans(dataset, scope.snapshot.shelf(dataset), symbol, scope.start, scope.end))
        if hot is not None:
            spans |= set(np.unique(dataset.span_of(hot.rows["timestamp"].to_numpy())).tolist())
        return sorted(spans, reverse=scope.newest_first)

    def piece(self, scope: Scope, symbol: int, span: int, found: HotRows | None) -> pa.Table:
        """The visible rows of one symbol in one span, oldest first, as internal rows of the scope's columns."""
        floor = scope.snapshot.shelf(scope.dataset).floors.get(span, 0)
        deletes = [
            d
            for d in scope.snapshot.deletes_of(scope.dataset, symbol)
            if d.version > floor and d.version <= scope.as_of
        ]
        hot = None if found is None else rows_within(found.rows, *scope.dataset.bounds(span))
        mixed = found is not None and found.mixed
        # What an undo brings back may be among the versions that were not current when the span was archived.
        past = scope.source is not None or scope.as_of < floor or any(isinstance(d, Undo) for d in deletes)
        if deletes or mixed or past:
            return self._resolved(scope, symbol, span, hot, history=past)
        columns = scope.columns if hot is None else (*scope.columns, "commit")
        tables = self._archived(scope, symbol, span, columns, history=False)
        if hot is not None and hot.num_rows:
            tables.append(hot.filter(pa.array(hot["commit"].to_numpy() <= scope.as_of)))
        return _in_order(_joined(scope.dataset.kind, tables, columns))

    def pieces(self, scope: Scope, symbol: int) -> Iterator[pa.Table]:
        """The visible rows of one symbol, a span at a time, each oldest first."""
        hot = self.hot_rows(scope, [symbol]).get(symbol)
        for span in self._spans(scope, symbol, hot):
            yield self.piece(scope, symbol, span, hot)

    def versions(self, scope: Scope, symbol: int, hot: HotRows | None, *, archived: bool = True) -> pa.Table:
        """Every version of one symbol, visible or not, with the scope's columns and `lost`, given its hot rows."""
        spans = self._spans(scope, symbol, None) if archived else []
        tables = [table for s in spans for table in self._archived(scope, symbol, s, scope.columns, history=True)]
        return _joined(scope.dataset.kind, [*tables, *([] if hot is None else [hot.rows])], (*scope.columns, "lost"))

    def versions_by_span(
        self, scope: Scope, ranges: Mapping[int, tuple[int, int]]
    ) -> Iterator[tuple[int, int, pa.Table]]:
        """Symbol, span and every version of it, visible or not, in the symbol's own range of times `[start, end)`."""
        for _, chunk in self._chunks(scope, sorted(ranges)):
            busy = self._busy(scope, chunk[0])
            held = {} if busy else self.hot_rows(scope, chunk)
            for symbol in chunk:
                own = replace(scope, start=ranges[symbol][0], end=ranges[symbol][1])
                hot = _part(held.get(symbol), own)
                for span in self._all_spans(own, symbol) if busy else self._spans(own, symbol, hot):
                    within = own.inside(span)
                    read = self.hot_rows(within, chunk).get(symbol) if busy else _part(hot, within)
                    yield symbol, span, self.versions(within, symbol, read)

    def _resolved(self, scope: Scope, symbol: int, span: int, hot: pa.Table | None, *, history: bool) -> pa.Table:
        columns = tuple(dict.fromkeys((*version_columns(scope.dataset.kind), *scope.columns)))
        tables = self._archived(scope, symbol, span, columns, history=history)
        if hot is not None:
            tables.append(hot)
        rows = _joined(scope.dataset.kind, tables, (*columns, "lost"))
        positions = visible(
            scope.dataset.kind,
            rows,
            as_of=scope.as_of,
            source=scope.source,
            deletes=scope.snapshot.deletes_of(scope.dataset, symbol),
        )
        return rows.take(pa.array(positions))

    def row_groups(self, file: ArchiveFile, groups: Sequence[int], scope: Scope) -> pa.Table:
        """Whole row groups of a file, with the scope's columns."""
        names = [name for name in dict.fromkeys(("timestamp", *scope.columns)) if name != "symbol"]
        return self._engine.reader.read(file, groups, names)

    def _archived(
        self, scope: Scope, symbol: int, span: int, columns: Sequence[str], *, history: bool
    ) -> list[pa.Table]:
        """The archived rows of one symbol in one span: the current ones by time, then the others."""
        wanted = [c for c in dict.fromkeys(("timestamp", *columns)) if c not in ("symbol", "lost")]
        found = []
        for file, groups in scope.snapshot.shelf(scope.dataset).groups_of(span, symbol, scope.start, scope.end):
            if file.history and not history:
                continue
            names = [*wanted, "lost"] if file.history else wanted
            for i in groups:
                rows = self._engine.reader.read(file, [i], names, (scope.start, scope.end))
                found.append((file.history, int(file.first[i]), rows))
        return [rows for _, _, rows in sorted(found, key=lambda entry: entry[:2])]


class _Run:
    """Neighbouring symbols of one file, all of whose rows in the scope are there."""

    def __init__(self, reads: Reads, scope: Scope, file: ArchiveFile) -> None:
        self._reads, self._scope, self._file = reads, scope, file
        self._places: list[int] = []
        self._groups: list[int] = []

    def takes(self, file: ArchiveFile, groups: list[int]) -> bool:
        """Whether those groups may come along."""
        rows = self._file.rows[self._groups].sum() + file.rows[groups].sum()
        return file is self._file and bool(rows <= ROWS_PER_RUN)

    def add(self, place: int, groups: list[int]) -> None:
        """Take along the next symbol of the answer."""
        self._places += [place] * len(groups)
        self._groups += groups

    def __call__(self) -> Found:
        scope, file = self._scope, self._file
        if len(set(self._places)) == 1:
            symbol = int(file.symbols[self._groups[0]])
            return Found(self._places[0], self._reads.piece(scope, symbol, file.span, None))
        rows = self._reads.row_groups(file, self._groups, scope)
        places = np.repeat(np.array(self._places, "i4"), file.rows[self._groups])
        times = rows["timestamp"].to_numpy()
        if times.min() < scope.start or times.max() >= scope.end:
            within = (times >= scope.start) & (times < scope.end)
            rows, places = rows.filter(pa.array(within)), places[within]
        return Found(places, rows)


class _Piece:
    """One symbol in one span."""

    __slots__ = ("_arguments", "_place", "_reads")

    def __init__(self, reads: Reads, scope: Scope, symbol: int, span: int, hot: HotRows | None, place: int) -> None:
        self._reads, self._arguments, self._place = reads, (scope, symbol, span, hot), place

    def __call__(self) -> Found:
        return Found(self._place, self._reads.piece(*self._arguments))


def _ahead(pool: ThreadPoolExecutor, tasks: Iterable[_Run | _Piece], depth: int) -> Iterator[Found]:
    """The results in order, with up to `depth` large tasks under way in other threads.

    A single row group, or the only task there is, is decoded sooner than another thread takes it up.
    """
    tasks = iter(tasks)
    if depth and (first := list(islice(tasks, 2))):
        if len(first) == 1:
            yield first[0]()
            return
        tasks = chain(first, tasks)
    running: deque[Future[Found] | _Piece | _Run] = deque()
    try:
        for task in tasks:
            running.append(pool.submit(task) if depth and isinstance(task, _Run) else task)
            while len(running) > depth or isinstance(running[0], _Piece | _Run):
                yield _result(running.popleft())
                if not running:
                    break
        while running:
            yield _result(running.popleft())
    finally:
        for future in running:
            if isinstance(future, Future):
                future.cancel()


def _result(task: Future[Found] | _Piece | _Run) -> Found:
    return task.result() if isinstance(task, Future) else task()


def _archived_spans(dataset: Dataset, shelf: Shelf, symbol: int, start: int, end: int) -> Iterator[int]:
    for span in shelf.between(dataset.span_at(start), dataset.span_at(end - 1)):
        if shelf.groups_of(span, symbol, start, end):
            yield span


def _part(hot: HotRows | None, scope: Scope) -> HotRows | None:
    if hot is None:
        return None
    rows = rows_within(hot.rows, scope.start, scope.end)
    return HotRows(rows, hot.mixed) if rows.num_rows else None


def _joined(kind: Kind, tables: list[pa.Table], columns: Sequence[str]) -> pa.Table:
    """One table of those columns (without `symbol`); archived rows have no `lost` of their own and were not."""
    names = [c for c in dict.fromkeys(("timestamp", *columns)) if c != "symbol"]
    filled = []
    for table in tables:
        if "lost" in names and "lost" not in table.column_names:
            table = table.append_column("lost", pa.array(np.zeros(table.num_rows, bool)))
        filled.append(table.select(names))
    if len(filled) == 1:  # the usual case, and a concatenation would have its columns copied later on
        return filled[0]
    return pa.concat_tables(filled) if filled else internal_schema(kind, names).empty_table()


def _in_order(rows: pa.Table) -> pa.Table:
    times = rows["timestamp"].to_numpy()
    if len(times) < 2 or (times[1:] > times[:-1]).all() or "commit" not in rows.column_names:
        return rows
    return rows.take(pa.array(np.lexsort((rows["commit"].to_numpy(), times))))


def encode(schema: pa.Schema, found: Found, dictionaries: dict[str, pa.Array]) -> pa.RecordBatch:
    """Internal rows as a batch of the answer."""
    rows, columns = found.rows, []
    for wanted in schema:
        if wanted.name == "symbol":
            places = found.place
            indices = pa.array(np.full(rows.num_rows, places, "i4") if isinstance(places, int) else places)
            columns.append(pa.DictionaryArray.from_arrays(indices, dictionaries["symbol"]))
        elif wanted.name == "timestamp":
            columns.append(one_chunk(rows["timestamp"]).view(TIMESTAMP))
        elif wanted.type == NAME:
            columns.append(pa.DictionaryArray.from_arrays(one_chunk(rows[wanted.name]), dictionaries[wanted.name]))
        else:
            columns.append(one_chunk(rows[wanted.name]))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
