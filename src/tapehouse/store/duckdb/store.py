"""`duckdb://`: the embedded store. DuckDB holds what changes, Parquet files hold what has settled."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import structs

from tapehouse.model import (
    MAX_TIME_NS,
    MIN_TIME_NS,
    MINUTE_NS,
    Change,
    Commit,
    Instrument,
    Interval,
    Kind,
    OnConflict,
    check_order,
    read_schema,
)
from tapehouse.store.aggregate import aggregate_by_reading
from tapehouse.store.archive.columns import one_chunk
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.base import (
    Aggregation,
    Batch,
    Capability,
    CompactionReport,
    Edges,
    LoggedWrite,
    Outcome,
    Reading,
    Recorded,
    Selection,
    Series,
    Undone,
)
from tapehouse.store.duckdb import catalog
from tapehouse.store.duckdb.batches import Batches
from tapehouse.store.duckdb.catalog import DATASETS
from tapehouse.store.duckdb.compactor import Compactor
from tapehouse.store.duckdb.engine import Engine
from tapehouse.store.duckdb.reads import Reads
from tapehouse.store.duckdb.versions import Judged
from tapehouse.store.duckdb.writes import Writes, outcomes
from tapehouse.store.faults import faults
from tapehouse.store.owner import Owner
from tapehouse.store.tables import (
    POSITIONS,
    check_interval,
    check_opening,
    check_positions,
    check_zones,
    conform,
    conform_together,
)

log = logging.getLogger("tapehouse.store")


class DuckDBStore:
    """A folder that this process owns until `close`.

    Raises `StoreLocked` (naming the owner), `StoreReadOnly`, `StoreFull`, `StoreTooNew` or `StoreDamaged` when the
    folder cannot be opened.
    """

    def __init__(
        self, folder: Path | str, *, memory_limit_mb: int = 1_024, threads: int = 2, command: str | None = None
    ) -> None:
        self.folder = Path(folder)
        self._engine = Engine(self.folder, memory_limit_mb=memory_limit_mb, threads=threads, command=command)
        self._reads = Reads(self._engine)
        self._writes = Writes(self._engine, self._reads)
        self._batches = Batches(self._engine, self._reads, self._writes)
        self._compactor = Compactor(self._engine, self._reads)
        self._announcements = Announcements()
        self._recount_deleted()

    def _recount_deleted(self) -> None:
        """The indexes count hot rows as they were inserted; where a delete came later, count what is left."""
        snapshot, hot = self._engine.snapshot, self._engine.hot
        for (dataset, symbol), deletes in snapshot.deletes.items():
            shelf = snapshot.shelf(dataset)
            for delete in deletes:
                spans = {
                    *shelf.between(dataset.span_at(delete.start), dataset.span_at(delete.end - 1)),
                    *hot.spans.get(dataset, ()),
                }
                if any(delete.version > shelf.floors.get(span, 0) for span in spans):
                    self._writes.recount(dataset, symbol)
                    hot.count(dataset, [(span, 1) for span in spans])
                    break

    @property
    def capabilities(self) -> frozenset[Capability]:
        """See `Store.capabilities`."""
        return frozenset(Capability)

    @property
    def owner(self) -> Owner:
        """How this process is known to others that look for the folder's owner."""
        return self._engine.ownership.owner

    def announce_address(self, address: str) -> None:
        """Let those who look for the owner know where it serves HTTP."""
        self._engine.ownership.announce(address)

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
        """See `Store.write`."""
        return self._write(kind, conform(kind, table, interval, source), interval, on_conflict, prefer, batch)[0]

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
        """See `WritesTogether.write_together`."""
        joined = conform_together(kind, tables, interval, source)
        commit, judged = self._write(kind, joined, interval, on_conflict, prefer, batch)
        return commit, outcomes(kind, joined, [table.num_rows for table in tables], judged)

    def _write(
        self,
        kind: Kind,
        table: pa.Table,
        interval: Interval | None,
        on_conflict: OnConflict,
        prefer: Sequence[str],
        batch: str | None,
    ) -> tuple[Commit, Judged | None]:
        check_order(on_conflict, prefer)
        instruments = self._engine.instruments
        check_opening(table, interval, instruments)
        with self._engine.writing, faults(f"write {kind}"):
            if self._engine.instruments is not instruments:
                check_opening(table, interval, self._engine.instruments)
            commit, change, judged = self._writes.write(
                kind, table, interval=interval, on_conflict=on_conflict, prefer=prefer, batch=batch
            )
            self._announcements.put(change)
        self._announcements.deliver()
        return commit, judged

    def write_logged(
        self, writes: Sequence[LoggedWrite], before: Mapping[str, bytes | None], after: Mapping[str, bytes]
    ) -> list[Commit]:
        """See `KeepsUp.write_logged`."""
        conforming = [structs.replace(each, table=conform(each.kind, each.table, each.interval)) for each in writes]
        with self._engine.writing, faults("write records of the log"):
            check_positions(self._positions(before), before)
            for each in conforming:
                check_opening(each.table, each.interval, self._engine.instruments)
            made = self._writes.write_logged(conforming, POSITIONS, after)
            for one in made:
                self._announcements.put(one.change)
        self._announcements.deliver()
        return [one.commit for one in made]

    def recorded(self) -> Recorded:
        """See `KeepsUp.recorded`."""
        with self._engine.writing:
            return Recorded(self.head(), self._positions())

    def _positions(self, keys: Iterable[str] | None = None) -> dict[str, bytes]:
        with self._engine.query("read the positions of the log") as cursor:
            return catalog.load_documents(cursor, POSITIONS, None if keys is None else list(keys))

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
        """See `Store.delete`."""
        check_interval(kind, interval)
        with self._engine.writing, faults(f"delete {kind}"):
            commit, change = self._writes.delete(Dataset(kind, interval), symbols, start, end, batch)
            self._announcements.put(change)
        self._announcements.deliver()
        return commit

    def read(self, selection: Selection) -> Reading:
        """See `Store.read`."""
        return self._reads.read(selection)

    def latest(
        self,
        kind: Kind,
        symbols: Sequence[str] | None = None,
        *,
        interval: Interval | None = None,
        columns: tuple[str, ...] | None = None,
    ) -> pa.Table:
        """See `Store.latest`."""
        check_interval(kind, interval)
        schema = read_schema(kind, columns)
        dataset, ids = Dataset(kind, interval), self._engine.symbols.ids
        names = self.symbols() if symbols is None else sorted({s for s in symbols if s in ids})
        lasts = {name: extent.last for name in names if (extent := self._engine.series.get(dataset, ids[name]))}
        newest = [
            _first_of_each(
                self._reads.read(
                    Selection(
                        kind=kind,
                        interval=interval,
                        symbols=together,
                        start=min(lasts[name] for name in together),
                        end=max(lasts[name] for name in together) + 1,
                        columns=tuple(dict.fromkeys(("symbol", *schema.names))),
                        newest_first=True,
                    )
                ).table()
            )
            for together in _ending_together(lasts)
        ]
        if not newest:
            return schema.empty_table()
        rows = pa.concat_tables(newest).unify_dictionaries()
        return rows.take(pc.sort_indices(rows["symbol"].cast(pa.string()))).select(schema.names)

    def aggregate(self, selection: Selection, edges: Edges, aggregation: Aggregation) -> pa.Table:
        """See `Store.aggregate`."""
        check_interval(selection.kind, selection.interval)
        return aggregate_by_reading(self.read, selection, edges, aggregation)

    def symbols(self) -> list[str]:
        """See `Store.symbols`."""
        names = self._engine.symbols.names
        return sorted({names[symbol] for _, symbol, _ in self._engine.series.all()})

    def coverage(self, kind: Kind | None = None, symbols: Sequence[str] | None = None) -> list[Series]:
        """See `Store.coverage`."""
        ids, names = self._engine.symbols.ids, self._engine.symbols.names
        wanted = None if symbols is None else [ids[name] for name in set(symbols) if name in ids]
        found = [
            Series(symbol=names[s], kind=d.kind, interval=d.interval, first=e.first, last=e.last, rows=e.rows)
            for d, s, e in self._engine.series.all(wanted)
            if kind is None or d.kind is kind
        ]
        kinds, intervals = list(Kind), [None, *Interval]
        return sorted(found, key=lambda s: (s.symbol, kinds.index(s.kind), intervals.index(s.interval)))

    def stats(self) -> dict[str, Any]:
        """See `Store.stats`: rows and bytes of the hot and the archived part, by data set and in all."""
        engine = self._engine
        rows: Counter[Dataset] = Counter()
        symbols = set()
        for dataset, symbol, extent in engine.series.all():
            rows[dataset] += extent.rows
            symbols.add(symbol)
        hot = {dataset: engine.hot.rows(dataset) for dataset in DATASETS}
        files = list(engine.files())
        database = sum(p.stat().st_size for p in self.folder.glob("tapehouse.duckdb*"))
        archive = sum(file.bytes for file in files)
        return {
            "store": "duckdb",
            "folder": str(self.folder),
            "commit": engine.snapshot.head,
            "symbols": len(symbols),
            "rows": rows.total(),
            "hot_rows": sum(hot.values()),
            "archive_files": len(files),
            "archive_bytes": archive,
            "database_bytes": database,
            "bytes": archive + database,
            "open_readings": engine.pins.readers,
            "series": [
                {"kind": d.kind, "interval": d.interval, "rows": rows[d], "hot_rows": hot[d]}
                for d in DATASETS
                if rows[d]
            ],
        }

    def head(self) -> int:
        """See `Versions.head`."""
        return self._engine.snapshot.head

    def commit_at(self, time: int) -> int:
        """See `Versions.commit_at`."""
        with self._engine.query("read the commits") as cursor:
            rows = cursor.execute(
                "SELECT coalesce(max(number), 0) FROM commits WHERE recorded <= ?", [time]
            )  # fmt: skip
            return int(rows.fetchall()[0][0])

    def commits(self, *, after: int = 0, limit: int = 100) -> list[Commit]:
        """See `Versions.commits`."""
        with self._engine.query("read the commits") as cursor:
            rows = cursor.execute(
                "SELECT number, recorded, kind, code, batch, action, inserted, replaced, unchanged, rejected, deleted, "
                'start, "end" FROM commits WHERE number > ? ORDER BY number LIMIT ?',
                [after, limit],
            )
            return [_commit(row) for row in rows.fetchall()]

    def compact(self, *, everything: bool = False) -> CompactionReport:
        """See `Compacts.compact`."""
        return self._compactor.compact(everything=everything)

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """See `Announces.subscribe`."""
        return self._announcements.subscribe(listener)

    def instruments(self) -> list[Instrument]:
        """See `KeepsInstruments.instruments`."""
        return list(self._engine.instruments)

    def put_instruments(self, instruments: Sequence[Instrument]) -> None:
        """See `KeepsInstruments.put_instruments`."""
        with self._engine.writing:
            before = {known.pattern: known for known in self._engine.instruments}
            after = before | {known.pattern: known for known in instruments}
            check_zones(before.values(), after.values(), self.coverage(Kind.BARS))
            with self._engine.transaction("store instruments") as connection:
                for instrument in instruments:
                    catalog.put_instrument(connection, instrument)
            self._engine.instruments = catalog.load_instruments(self._engine.connection)

    def documents(self, collection: str, keys: Sequence[str] | None = None) -> dict[str, bytes]:
        """See `KeepsDocuments.documents`."""
        with self._engine.query("read documents") as cursor:
            return catalog.load_documents(cursor, collection, keys)

    def put_documents(self, collection: str, documents: Mapping[str, bytes | None]) -> None:
        """See `KeepsDocuments.put_documents`."""
        engine = self._engine
        with engine.writing:
            with engine.transaction("store documents") as connection:
                held = catalog.load_documents(connection, collection, list(documents))
                engine.documents_before = collection, {key: held.get(key) for key in documents}
                catalog.put_documents(connection, collection, documents)
            engine.documents_before = None

    def written(self, batch: str, kind: Kind, interval: Interval | None = None) -> Reading:
        """See `Audits.written`."""
        return self._batches.written(batch, kind, interval)

    def batches(
        self, names: Sequence[str] | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[Batch]:
        """See `Undoes.batches`."""
        return self._batches.named(names, before, limit)

    def undo(self, batch: str) -> Undone:
        """See `Undoes.undo`."""
        prepared = self._batches.prepare(batch)
        with self._engine.writing, faults(f"undo {batch}"):
            if self._batches.overtaken(prepared):
                prepared = self._batches.prepare(batch)
            undone, changes = self._batches.undo(prepared)
            for change in changes:
                self._announcements.put(change)
        self._announcements.deliver()
        return undone

    def forget_footers(self) -> None:
        """Drop the cached footers of archive files, as a benchmark of cold reads needs."""
        self._engine.reader.forget()

    def close(self) -> None:
        """See `Closes.close`."""
        self._reads.close()
        self._engine.close()


class Announcements:
    """Tells listeners of changes in the order of their commits, outside the writer's lock."""

    def __init__(self) -> None:
        self._waiting: deque[Change] = deque()
        self._listeners: tuple[Callable[[Change], None], ...] = ()
        self._delivering = threading.Lock()

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Add a listener; the returned function removes it."""
        self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            self._listeners = tuple(known for known in self._listeners if known is not listener)

        return unsubscribe

    def put(self, change: Change | None) -> None:
        """Queue a change; called in commit order, under the writer's lock."""
        if change is not None:
            self._waiting.append(change)

    def deliver(self) -> None:
        """Call the listeners with what waits; one that raises is logged, and the others still hear of it."""
        while self._waiting and self._delivering.acquire(blocking=False):
            try:
                while self._waiting:
                    self._tell(self._waiting.popleft())
            finally:
                self._delivering.release()

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:  # whatever a listener does, the commit stands and the others must hear of it
                log.exception("a listener failed on commit %d", change.commit)


def _ending_together(lasts: Mapping[str, int]) -> Iterable[tuple[str, ...]]:
    """The symbols by the minute of their last row: one read answers for all of a minute, and reads little more."""
    together: dict[int, list[str]] = {}
    for name, last in lasts.items():
        together.setdefault(last // MINUTE_NS, []).append(name)
    return map(tuple, together.values())


def _first_of_each(rows: pa.Table) -> pa.Table:
    """The first row of each symbol, of rows that are ordered by it."""
    codes = one_chunk(rows["symbol"].unify_dictionaries()).indices.to_numpy()
    return rows.take(pa.array(np.flatnonzero(np.diff(codes, prepend=-1))))


def _commit(row: Sequence[Any]) -> Commit:
    number, recorded, kind, code, *rest = row
    dataset = Dataset.decode(kind, code)
    names = ("batch", "action", "inserted", "replaced", "unchanged", "rejected", "deleted", "start", "end")
    fields: Mapping[str, Any] = dict(zip(names, rest, strict=True))
    return Commit(number=number, recorded=recorded, kind=dataset.kind, interval=dataset.interval, **fields)
