"""The compactor: moves settled spans from the hot tables into Parquet files.

For one span: read as of commit C, write the files, fsync them and their folders, then register them in one
transaction that also raises the span's floor to C, which hides the hot rows up to C. What was replaced is disposed of
when no reader can ask for it any more. Killed before the transaction, the files are orphans that the next start
sweeps; killed after it, the next start deletes the hidden hot rows and the replaced files.

A span whose hot rows are all new and lie after what each symbol has archived gets one more file beside the others,
until there are `FILES_BESIDE`; any other change rewrites the files of the symbols that it touches. See
docs/design/archive.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pyarrow as pa

from tapehouse.errors import StoreError
from tapehouse.failpoints import failpoint
from tapehouse.store.archive.files import (
    SYMBOLS_PER_FILE,
    ArchiveFile,
    FileWriter,
    value_fields,
)
from tapehouse.store.archive.scales import JointScales, repeating_columns, scales_of
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.base import CompactionReport
from tapehouse.store.duckdb import catalog, hot
from tapehouse.store.duckdb.catalog import Snapshot
from tapehouse.store.duckdb.engine import Engine
from tapehouse.store.duckdb.hot import HotSpan
from tapehouse.store.duckdb.reads import Reads, Scope
from tapehouse.store.duckdb.versions import version_columns, visible
from tapehouse.store.faults import faults

log = logging.getLogger("tapehouse.store")

QUIET_S = 10.0
"""A span that is being written to is left alone, unless it grows large."""
SETTLE_S = 3_600.0
"""A few late rows of a settled span wait this long for company before they cause a rewrite."""
WORTHWHILE_ROWS = 1_000
LARGE_ROWS = 500_000
"""A span with this many hot rows is archived even while it is written to: unsorted hot rows slow every read."""
YIELD_S = 0.002
"""A lock taken again at once would keep a waiting writer out, as Python's locks are not fair."""
SLICES_PER_CHECKPOINT = 20
WAL_BYTES = 16_000_000
"""A write-ahead log of this size is folded into the database."""
FILES_BESIDE = 4
"""Append files of one symbol and span; more would slow down reads more than a rewrite costs."""


@dataclass(frozen=True, slots=True)
class _Swap:
    """What the compaction of one span did; `floor` is the version up to which its hot rows are archived now."""

    dataset: Dataset
    span: int
    floor: int
    written: list[ArchiveFile]
    replaced: list[ArchiveFile]


@dataclass(slots=True)
class _Bin:
    """Symbols of one span that may share a file, until there are enough of them."""

    rows: list[tuple[int, str, pa.Table]] = field(default_factory=list)
    scales: JointScales = field(default_factory=JointScales)


class Compactor:
    """The compacting part of the embedded store; one compaction runs at a time."""

    def __init__(self, engine: Engine, reads: Reads) -> None:
        self._engine = engine
        self._reads = reads
        self._running = threading.Lock()

    def compact(self, *, everything: bool) -> CompactionReport:
        """See `Compacts.compact`."""
        started = time.perf_counter()
        swaps: list[_Swap] = []
        with self._running:
            try:
                for dataset, span in self._due(everything=everything):
                    swaps.append(self._compact_span(dataset, span))
            finally:
                self._clear(swaps)
        written = [file for swap in swaps for file in swap.written]
        return CompactionReport(
            rows=sum(file.row_count for file in written),
            spans=len(swaps),
            files_written=len(written),
            files_replaced=sum(len(swap.replaced) for swap in swaps),
            bytes=sum(file.bytes for file in written),
            seconds=time.perf_counter() - started,
        )

    def _clear(self, swaps: list[_Swap]) -> None:
        """Dispose of what was swapped out, now or when its last reader has gone; give space back."""
        if swaps:
            self._engine.pins.retire(lambda: self._dispose(swaps))
        self._engine.pins.tidy()
        if self._engine.wal_bytes() >= WAL_BYTES:
            self._engine.checkpoint()
        self._engine.shrink()

    def _due(self, *, everything: bool) -> list[tuple[Dataset, int]]:
        now, wall = time.monotonic(), time.time_ns()
        with self._engine.writing:
            spans = [(d, span, s) for d, held in self._engine.hot.spans.items() for span, s in held.items()]
        return sorted(
            (dataset, span)
            for dataset, span, state in spans
            if state.rows + state.hidden
            and (everything or is_due(state, now, settled=dataset.unit is None or dataset.bounds(span)[1] < wall))
        )

    def _compact_span(self, dataset: Dataset, span: int) -> _Swap:
        held = self._engine.hot.spans[dataset].get(span)  # before the snapshot: what is hidden after it stays due
        hidden = 0 if held is None else held.hidden
        snapshot, release = self._engine.pinned()
        first_id = self._engine.next_file_id
        try:
            with faults(f"compact {dataset.folder(span)}"):
                written, replaced, moved = self._write_files(snapshot, dataset, span)
                failpoint("compact.files.synced")
                self._swap(snapshot, dataset, span, written, replaced, moved, hidden)
        except BaseException:
            self._engine.sweep(first_id)  # older ones may have readers yet
            raise
        finally:
            release()
        return _Swap(dataset, span, snapshot.head, written, replaced)

    def _write_files(
        self, snapshot: Snapshot, dataset: Dataset, span: int
    ) -> tuple[list[ArchiveFile], list[ArchiveFile], int]:
        """The new files, durable but not registered, those that they replace, and the number of hot rows in them."""
        files = snapshot.shelf(dataset).files.get(span, ())
        start, end = dataset.bounds(span)
        index = self._engine.hot.symbols.get(dataset, {})
        touched = {s for s, h in list(index.items()) if h.first < end and h.last >= start}
        floor = snapshot.shelf(dataset).floors.get(span, 0)
        deleted = {
            symbol
            for (held, symbol), deletes in snapshot.deletes.items()
            if held == dataset and any(d.version > floor and d.start < end and d.end > start for d in deletes)
        }
        beside = not deleted and self._may_stand_beside(snapshot, dataset, span, touched)
        replaced = [] if beside else _sharing(files, touched | deleted)
        symbols = touched | {symbol for file in replaced for symbol in file.symbols.tolist()}
        writer = _SpanWriter(self._engine, dataset, span)
        moved = self._split(snapshot, dataset, span, symbols, writer, archived=not beside)
        return writer.finish(), replaced, moved

    def _may_stand_beside(self, snapshot: Snapshot, dataset: Dataset, span: int, touched: Iterable[int]) -> bool:
        start, end = dataset.bounds(span)
        shelf = snapshot.shelf(dataset)
        for symbol in touched:
            held = [(f, i) for f, groups in shelf.groups_of(span, symbol, start, end) for i in groups]
            hot_symbol = self._engine.hot.symbols[dataset][symbol]
            if hot_symbol.mixed or len({f.id for f, _ in held}) >= FILES_BESIDE:
                return False
            if held and max(int(f.last[i]) for f, i in held) >= max(hot_symbol.first, start):
                return False
        return True

    def _split(
        self,
        snapshot: Snapshot,
        dataset: Dataset,
        span: int,
        symbols: set[int],
        writer: _SpanWriter,
        *,
        archived: bool,
    ) -> int:
        """Give the writer each symbol's current rows and the other versions; returns how many of them were hot."""
        moved = 0
        names = self._engine.symbols.names
        columns = dict.fromkeys((*version_columns(dataset.kind), *(f.name for f in value_fields(dataset.kind))))
        scope = Scope(snapshot, dataset, *dataset.bounds(span), tuple(columns), snapshot.head)
        ordered = sorted(symbols, key=names.__getitem__)
        for low in range(0, len(ordered), SYMBOLS_PER_FILE):
            chunk = ordered[low : low + SYMBOLS_PER_FILE]
            hot_rows = self._reads.hot_rows(scope, chunk)
            moved += sum(found.rows.num_rows for found in hot_rows.values())
            for symbol in chunk:
                rows = self._reads.versions(scope, symbol, hot_rows.get(symbol), archived=archived)
                if rows.num_rows:
                    deletes = snapshot.deletes_of(dataset, symbol)
                    current = visible(dataset.kind, rows, as_of=snapshot.head, deletes=deletes)
                    writer.add(symbol, names[symbol], rows, current)
        return moved

    def _swap(
        self,
        snapshot: Snapshot,
        dataset: Dataset,
        span: int,
        written: list[ArchiveFile],
        replaced: list[ArchiveFile],
        moved: int,
        hidden: int,
    ) -> None:
        """Register the files and raise the floor, in one transaction and one new snapshot."""
        engine = self._engine
        with engine.writing:
            if lost := [file.path for file in written if not (engine.folder / file.path).exists()]:
                raise StoreError(f"the file {lost[0]} is gone before it was registered; nothing was changed")
            with engine.transaction("register archive files") as connection:
                for file in written:
                    catalog.register_file(connection, file)
                catalog.unregister_files(connection, [file.id for file in replaced])
                where = [dataset.kind, dataset.code, span]
                connection.execute("DELETE FROM floors WHERE kind = ? AND code = ? AND span = ?", where)
                connection.execute("INSERT INTO floors VALUES (?, ?, ?, ?)", [*where, snapshot.head])
                failpoint("compact.registered")
            before = engine.snapshot
            shelf = before.shelf(dataset)
            kept = [file for file in shelf.files.get(span, ()) if file not in replaced]
            hot.forget_rows(engine.hot, dataset, span, moved, hidden)
            shelves = {**before.shelves, dataset: shelf.replaced(span, [*kept, *written], snapshot.head)}
            engine.snapshot = Snapshot(before.head, before.recorded, shelves, before.deletes)

    def _dispose(self, swaps: list[_Swap]) -> None:
        """Delete what swaps hid: nobody reads it any more."""
        engine = self._engine
        for dataset in {swap.dataset for swap in swaps}:
            # Not the floors of now: readers of a later swap's hot rows may still be there.
            self._purge(dataset, {swap.span: swap.floor for swap in swaps if swap.dataset == dataset})
            failpoint("compact.purged")
        for file in (file for swap in swaps for file in swap.replaced):
            engine.reader.forget(file)
            (engine.folder / file.path).unlink(missing_ok=True)
            failpoint("compact.file.unlinked")

    def _purge(self, dataset: Dataset, floors: dict[int, int]) -> None:
        engine, condition = self._engine, hot.hidden(dataset, floors)
        with faults("clear archived rows"):
            while slices := self._slices(dataset, condition):
                for low in slices[:SLICES_PER_CHECKPOINT]:
                    with engine.upkeep("clear archived rows") as connection:
                        hot.delete_slice(connection, dataset, condition, low)
                    failpoint("compact.purge.slice")
                    time.sleep(YIELD_S)
                engine.checkpoint()  # drops row groups, a few at a time; DuckDB's own would come late and take long
        with engine.writing, faults("read the indexes"):
            hot.reload_symbols(engine.connection, dataset, engine.hot)

    def _slices(self, dataset: Dataset, condition: str) -> range:
        with self._engine.query("look for archived rows") as cursor:  # the whole table, so not under the writer's lock
            return hot.row_range(cursor, dataset, condition)


class _SpanWriter:
    """Distributes the symbols of a span over files: those whose prices share a scale go together."""

    def __init__(self, engine: Engine, dataset: Dataset, span: int) -> None:
        self._engine, self._dataset, self._span = engine, dataset, span
        self._bins: dict[tuple[object, ...], list[_Bin]] = {}
        self._history: list[tuple[int, str, pa.Table]] = []
        self._written: list[ArchiveFile] = []

    def add(self, symbol: int, name: str, rows: pa.Table, current: np.ndarray) -> None:
        """Take a symbol's versions; `current` are the positions of its current ones, in time order."""
        if len(current):
            self._add_current(symbol, name, rows if _all(current, rows.num_rows) else rows.take(pa.array(current)))
        if len(current) < rows.num_rows:
            rest = np.ones(rows.num_rows, bool)
            rest[current] = False
            others = rows.filter(pa.array(rest))
            times, commits = others["timestamp"].to_numpy(), others["commit"].to_numpy()
            self._history.append((symbol, name, others.take(pa.array(np.lexsort((commits, times))))))
            if len(self._history) >= SYMBOLS_PER_FILE:
                self._flush_history()

    def _add_current(self, symbol: int, name: str, rows: pa.Table) -> None:
        fields = value_fields(self._dataset.kind)
        scales = scales_of(rows, fields)
        prices = next(scales[f.name].digits for f in fields if f.name in scales)
        key = (prices, *(name for name, scale in scales.items() if scale.digits is None))
        bins = self._bins.setdefault(key, [])
        held = next((held for held in bins if held.scales.take(scales)), None)
        if held is None:
            held = _Bin()
            held.scales.take(scales)
            bins.append(held)
        held.rows.append((symbol, name, rows))
        if len(held.rows) >= SYMBOLS_PER_FILE:
            bins.remove(held)
            self._flush(held)

    def _flush(self, held: _Bin) -> None:
        self._write(held.rows, held.scales.digits, history=False)

    def _flush_history(self) -> None:
        rows, self._history = self._history, []
        self._write(rows, {}, history=True)

    def _write(self, rows: list[tuple[int, str, pa.Table]], scales: dict[str, int | None], *, history: bool) -> None:
        engine = self._engine
        file_id, engine.next_file_id = engine.next_file_id, engine.next_file_id + 1
        columns = {
            f.name
            for f in value_fields(self._dataset.kind)
            if not f.nullable or any(table[f.name].null_count < table.num_rows for _, _, table in rows)
        }
        writer = FileWriter(
            engine.folder,
            file_id,
            self._dataset,
            self._span,
            scales,
            columns,
            history=history,
            repeating=repeating_columns(rows[0][2], scales),
        )
        try:
            for symbol, name, table in rows:
                writer.add(symbol, name, table, engine.sources.names)
            self._written.append(writer.close())
        except BaseException:
            writer.abandon()
            raise

    def finish(self) -> list[ArchiveFile]:
        """Write what is left; returns all files."""
        for held in chain.from_iterable(self._bins.values()):
            self._flush(held)
        if self._history:
            self._flush_history()
        return self._written


def is_due(state: HotSpan, now: float, *, settled: bool) -> bool:
    """Whether a span's hot rows should move now; `now` is monotonic seconds."""
    rows = state.rows + state.hidden
    if rows >= LARGE_ROWS:
        return True
    if not settled or now - state.written < QUIET_S:
        return False
    return rows >= WORTHWHILE_ROWS or now - state.since >= SETTLE_S


def _sharing(files: Sequence[ArchiveFile], symbols: set[int]) -> list[ArchiveFile]:
    """The files with any of those symbols, and then all with any symbol of these: a rewrite must see a symbol whole."""
    chosen: set[ArchiveFile] = set()
    while True:
        more = {file for file in files if not symbols.isdisjoint(file.symbols.tolist())} - chosen
        if not more:
            return sorted(chosen, key=lambda file: file.id)
        chosen |= more
        symbols = symbols | {symbol for file in more for symbol in file.symbols.tolist()}


def _all(positions: np.ndarray, rows: int) -> bool:
    return len(positions) == rows and bool((positions == np.arange(rows)).all())
