"""Writes and deletes: one transaction each, judged against what is stored only where time ranges overlap."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.errors import Conflict
from tapehouse.failpoints import failpoint
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, Change, Commit, Interval, Kind, OnConflict
from tapehouse.store.archive.columns import one_chunk
from tapehouse.store.archive.files import internal_schema, value_fields
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.base import LoggedWrite, Outcome
from tapehouse.store.duckdb import hot
from tapehouse.store.duckdb.catalog import Names, Shelf, Snapshot, insert, insert_commit, load_documents, put_documents
from tapehouse.store.duckdb.engine import Engine
from tapehouse.store.duckdb.reads import Reads, Scope
from tapehouse.store.duckdb.series import Extent
from tapehouse.store.duckdb.versions import Judged, Verdict, judge, version_columns
from tapehouse.store.hiding import Delete, not_hidden
from tapehouse.store.met import met_of
from tapehouse.store.tables import VALUES

CONFLICTS_SHOWN = 5


@dataclass(slots=True)
class Incoming:
    """A table on its way in: names as numbers, and per symbol the time range of its rows."""

    dataset: Dataset
    rows: pa.Table
    symbols: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @property
    def span(self) -> tuple[int, int]:
        """`[start, end)` of all rows."""
        return int(self.first.min()), int(self.last.max()) + 1


@dataclass(slots=True)
class Fresh:
    """Names that one transaction brings, with their numbers."""

    symbols: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)


class Prepared(NamedTuple):
    """A table, and what is to become of its rows; None: all of them are new."""

    incoming: Incoming
    judged: Judged | None

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have each verdict."""
        verdicts = None if self.judged is None else self.judged.verdicts
        rows = self.incoming.rows.num_rows
        counts = [0, rows, 0, 0] if verdicts is None else np.bincount(verdicts, minlength=len(Verdict)).tolist()
        return dict(zip(("unchanged", "inserted", "replaced", "rejected"), counts, strict=True))


class Made(NamedTuple):
    """The commit of a write, and what it changed."""

    commit: Commit
    change: Change | None


class Writes:
    """The writing half of the embedded store."""

    def __init__(self, engine: Engine, reads: Reads) -> None:
        self._engine = engine
        self._reads = reads

    def write(
        self,
        kind: Kind,
        table: pa.Table,
        *,
        interval: Interval | None,
        on_conflict: OnConflict,
        prefer: Sequence[str],
        batch: str | None,
    ) -> tuple[Commit, Change | None, Judged | None]:
        """See `Store.write`; the table conforms. The caller holds `writing`.

        Returns with it the judgement of the rows, None when all of them were inserted.
        """
        dataset = Dataset(kind, interval)
        if table.num_rows == 0:
            return self._unchanged(dataset, 0), None, None
        fresh = Fresh()
        prepared = self._prepare(dataset, table, on_conflict, prefer, fresh)
        ((commit, change),) = self._store([prepared], fresh, batch)
        return commit, change, prepared.judged

    def write_logged(
        self, writes: Sequence[LoggedWrite], collection: str, positions: Mapping[str, bytes]
    ) -> list[Made]:
        """See `KeepsUp.write_logged`; the tables conform. The caller holds `writing`."""
        fresh = Fresh()
        prepared = []
        for each in writes:
            dataset = Dataset(each.kind, each.interval)
            table = each.table if each.kind is Kind.BARS else self._counted_on(dataset, each.table)
            prepared.append(self._prepare(dataset, table, each.on_conflict, (), fresh))
        return self._store(prepared, fresh, None, (collection, positions))

    def _counted_on(self, dataset: Dataset, table: pa.Table) -> pa.Table:
        """The table with ordinals that count on from those of equal stored rows: each of its rows is another record."""
        incoming = self._number(dataset, table, Fresh())
        overlapping = self._overlapping(incoming)
        if not overlapping:
            return table
        stored = self._stored(incoming, overlapping)
        return count_on(dataset.kind, table, incoming.rows, stored)

    def _prepare(
        self, dataset: Dataset, table: pa.Table, on_conflict: OnConflict, prefer: Sequence[str], fresh: Fresh
    ) -> Prepared:
        incoming = self._number(dataset, table, fresh)
        return Prepared(incoming, self._judge(incoming, on_conflict, prefer, fresh))

    def _number(self, dataset: Dataset, table: pa.Table, fresh: Fresh) -> Incoming:
        """Names become numbers; the rows are those of `table`, in its order."""
        times = one_chunk(table["timestamp"]).view(pa.int64())
        encoded = one_chunk(table["symbol"].unify_dictionaries())
        used, first, last = time_ranges(encoded.indices, times)
        symbol, symbols = _numbered(self._engine.symbols, encoded, used, fresh.symbols)
        encoded = one_chunk(table["source"].unify_dictionaries())
        used = np.unique(encoded.indices.to_numpy())
        source, _ = _numbered(self._engine.sources, encoded, used, fresh.sources)
        values = {f.name: table[f.name] for f in value_fields(dataset.kind) if f.name in table.column_names}
        rows = pa.table({"symbol": symbol, "source": source, "timestamp": times, **values})
        return Incoming(dataset, rows, symbols, first, last)

    def _judge(self, incoming: Incoming, on_conflict: OnConflict, prefer: Sequence[str], fresh: Fresh) -> Judged | None:
        """The verdict on each row, and what it met; None means that all are new, without any comparison."""
        overlapping = self._overlapping(incoming)
        repeats = _may_repeat(incoming)
        if not overlapping and not repeats:
            return None
        stored = self._stored(incoming, overlapping)
        known = self._engine.sources.ids
        ranks = [known.get(name, fresh.sources.get(name, -1)) for name in prefer]
        with self._engine.query("compare with stored rows") as cursor:
            kind, rows = incoming.dataset.kind, incoming.rows
            judged = judge(cursor, kind, rows, stored, on_conflict=on_conflict, prefer=ranks, repeats=repeats)
        if on_conflict is OnConflict.ERROR:
            self._refuse_conflicts(incoming, judged.verdicts, fresh)
        return judged

    def _overlapping(self, incoming: Incoming) -> list[int]:
        """Symbols with versions, current or not, in the time range of their new rows."""
        engine, dataset = self._engine, incoming.dataset
        shelf = engine.snapshot.shelf(dataset)
        known = len(engine.symbols.names)
        found = []
        for symbol, first, last in zip(
            incoming.symbols.tolist(), incoming.first.tolist(), incoming.last.tolist(), strict=True
        ):
            if symbol < known and (
                engine.hot.touches(dataset, symbol, first, last + 1) or _archived(dataset, shelf, symbol, first, last)
            ):
                found.append(symbol)
        return found

    def _stored(self, incoming: Incoming, symbols: list[int]) -> pa.Table:
        """Every version that is not deleted of those symbols, from the first to the last new row of any of them."""
        dataset, snapshot = incoming.dataset, self._engine.snapshot
        columns = dict.fromkeys((*version_columns(dataset.kind), *(f.name for f in value_fields(dataset.kind))))
        place = np.isin(incoming.symbols, symbols)
        if not symbols:
            schema = internal_schema(dataset.kind, [*columns, "lost"])
            return schema.append(pa.field("symbol", pa.int32())).empty_table()
        start, end = int(incoming.first[place].min()), int(incoming.last[place].max()) + 1
        scope = Scope(snapshot, dataset, start, end, tuple(columns), snapshot.head, newest_first=False)
        tables = []
        hot_rows = self._reads.hot_rows(scope, symbols)
        for symbol in symbols:
            rows = self._reads.versions(scope, symbol, hot_rows.get(symbol))
            kept = not_hidden(
                rows["timestamp"].to_numpy(),
                rows["commit"].to_numpy(),
                snapshot.deletes_of(dataset, symbol),
                snapshot.head,
            )
            rows = rows if kept.all() else rows.filter(pa.array(kept))
            tables.append(rows.append_column("symbol", pa.array(np.full(rows.num_rows, symbol, "i4"))))
        return pa.concat_tables(tables)

    def _refuse_conflicts(self, incoming: Incoming, verdicts: np.ndarray, fresh: Fresh) -> None:
        differing = np.flatnonzero(verdicts >= Verdict.REPLACED)
        if len(differing) == 0:
            return
        new = {number: name for name, number in fresh.symbols.items()}
        examples = []
        for row in differing[:CONFLICTS_SHOWN].tolist():
            symbol = incoming.rows["symbol"][row].as_py()
            name = new.get(symbol) or self._engine.symbols.names[symbol]
            examples.append({"row": row, "symbol": name, "timestamp": incoming.rows["timestamp"][row].as_py()})
        raise Conflict(
            f"{len(differing)} rows differ from what is stored or from one another, the first is row "
            f"{examples[0]['row']} ({examples[0]['symbol']}); nothing was written (on_conflict=error)",
            conflicts=len(differing),
            examples=examples,
        )

    def _store(
        self,
        prepared: Sequence[Prepared],
        fresh: Fresh,
        batch: str | None,
        documents: tuple[str, Mapping[str, bytes]] | None = None,
    ) -> list[Made]:
        """One transaction: a commit of each table that changes anything, in order, and the documents."""
        engine = self._engine
        snapshot = engine.snapshot
        made: list[Made] = []
        stored: list[tuple[Prepared, Commit, pa.Table]] = []
        for each in prepared:
            counts, dataset = each.counts, each.incoming.dataset
            if counts["unchanged"] == each.incoming.rows.num_rows:
                made.append(Made(self._unchanged(dataset, counts["unchanged"]), None))
                continue
            start, end = each.incoming.span
            commit = self._next(dataset, "write", batch, start, end, **counts)
            number, recorded = commit.number + len(stored), commit.recorded + len(stored)
            commit = msgspec.structs.replace(commit, number=number, recorded=recorded)
            rows = _stored_rows(each)
            stored.append((each, commit, rows))
            made.append(Made(commit, None))
        if stored or documents:
            self._transact(stored, fresh, documents)
        for each, commit, rows in stored:
            self._index(each.incoming, rows)
            engine.snapshot = snapshot = Snapshot(commit.number, commit.recorded, snapshot.shelves, snapshot.deletes)
            engine.note_rows(rows.num_rows)
        known = {commit.number: self._change(commit, rows) for _, commit, rows in stored}
        return [Made(commit, known.get(commit.number) if commit.start is not None else None) for commit, _ in made]

    def _change(self, commit: Commit, rows: pa.Table) -> Change:
        names = self._engine.symbols.names
        changed = tuple(sorted(names[i] for i in np.flatnonzero(np.bincount(rows["symbol"].to_numpy()))))
        start, end = commit.start or 0, commit.end or 0
        return Change(
            commit=commit.number, kind=commit.kind, interval=commit.interval, symbols=changed, start=start, end=end
        )

    def _transact(
        self,
        stored: Sequence[tuple[Prepared, Commit, pa.Table]],
        fresh: Fresh,
        documents: tuple[str, Mapping[str, bytes]] | None,
    ) -> None:
        engine = self._engine
        names = ((engine.symbols, fresh.symbols), (engine.sources, fresh.sources))
        kinds = dict.fromkeys(commit.kind for _, commit, _ in stored)
        with engine.transaction(f"write {' and '.join(kinds) or 'a position'}") as connection:
            for known, new in names:
                if new:
                    rows = pa.table({"id": pa.array(new.values(), pa.int32()), "name": pa.array(new, pa.string())})
                    insert(connection, f"INSERT INTO names SELECT '{known.kind}', id, name FROM incoming", rows)
            failpoint("write.names.inserted")
            for each, commit, rows in stored:
                dataset = each.incoming.dataset
                insert(connection, hot.insert_statement(dataset, rows.column_names), rows, [commit.number])
                failpoint("write.rows.inserted")
                insert_commit(connection, dataset, commit)
            if documents is not None:
                held = load_documents(connection, documents[0], list(documents[1]))
                engine.documents_before = documents[0], {key: held.get(key) for key in documents[1]}
                put_documents(connection, *documents)
        engine.documents_before = None
        for known, new in names:
            known.add([(number, name) for name, number in new.items()])

    def _index(self, incoming: Incoming, stored: pa.Table) -> None:
        """Memory learns of the rows before any reader can see them."""
        engine, dataset = self._engine, incoming.dataset
        times = one_chunk(stored["timestamp"]).to_numpy()
        engine.hot.add_spans(dataset, times)
        symbols = stored["symbol"].to_numpy()
        ranges, stored_rows = (incoming.symbols, incoming.first, incoming.last), _counts(symbols)
        inserted, mixed = stored_rows, set[int]()
        if "verdict" in stored.column_names:
            fresh = stored["verdict"].to_numpy() == Verdict.INSERTED
            ranges = time_ranges(stored["symbol"], stored["timestamp"])
            inserted, mixed = _counts(symbols[fresh]), set(symbols[~fresh].tolist())
        for symbol, first, last in zip(*(each.tolist() for each in ranges), strict=True):
            engine.hot.add(dataset, symbol, hot.HotSymbol(first, last, stored_rows[symbol], symbol in mixed))
            if inserted[symbol]:
                engine.series.add(dataset, symbol, first, last, inserted[symbol])

    def _next(self, dataset: Dataset, action: str, batch: str | None, start: int, end: int, **counts: int) -> Commit:
        snapshot = self._engine.snapshot
        return Commit(
            number=snapshot.head + 1,
            # A clock that was set back must not make commits run backwards.
            recorded=max(time.time_ns(), snapshot.recorded + 1),
            kind=dataset.kind,
            interval=dataset.interval,
            batch=batch,
            action=action,
            start=start,
            end=end,
            **counts,
        )

    def _unchanged(self, dataset: Dataset, rows: int, action: str = "write") -> Commit:
        snapshot = self._engine.snapshot
        return Commit(
            action=action,
            number=snapshot.head,
            recorded=snapshot.recorded,
            kind=dataset.kind,
            interval=dataset.interval,
            unchanged=rows,
        )

    def delete(
        self, dataset: Dataset, symbols: Iterable[str], start: int, end: int, batch: str | None
    ) -> tuple[Commit, Change | None]:
        """See `Store.delete`. The caller holds `writing`."""
        engine, ids = self._engine, self._engine.symbols.ids
        # Also where it hides nothing for now: an undo may bring back what is older, and that stays deleted.
        stored = [ids[name] for name in sorted(set(symbols)) if name in ids]
        stored = [symbol for symbol in stored if self._reads.stores(dataset, symbol, start, end)]
        times = {symbol: self._times(dataset, symbol, start, end) for symbol in stored}
        hidden = {symbol: found for symbol, found in times.items() if len(found)}
        if not hidden:
            return self._unchanged(dataset, 0, "delete"), None
        commit = self._next(dataset, "delete", batch, start, end, deleted=sum(map(len, hidden.values())))
        rows = pa.table({"symbol": pa.array(stored, pa.int32())})
        with engine.transaction(f"delete {dataset.kind}") as connection:
            statement = "INSERT INTO deletes SELECT ?, ?, ?, symbol, ?, ? FROM incoming"
            insert(connection, statement, rows, [commit.number, dataset.kind, dataset.code, start, end])
            failpoint("delete.inserted")
            insert_commit(connection, dataset, commit)
        deletes = dict(engine.snapshot.deletes)
        for symbol in stored:
            deletes[dataset, symbol] = (*deletes.get((dataset, symbol), ()), Delete(commit.number, start, end))
        for found in hidden.values():
            engine.hot.hide(dataset, found)
        engine.snapshot = Snapshot(commit.number, commit.recorded, engine.snapshot.shelves, deletes)
        for symbol, found in hidden.items():
            self.discount(dataset, symbol, len(found))
        names = tuple(engine.symbols.names[symbol] for symbol in hidden)
        change = Change(
            commit=commit.number, kind=dataset.kind, interval=dataset.interval, symbols=names, start=start, end=end
        )
        return commit, change

    def recount(self, dataset: Dataset, symbol: int) -> None:
        """Count a symbol's current rows again."""
        rows = first = last = 0
        for times in self._current(dataset, symbol, MIN_TIME_NS, MAX_TIME_NS, newest_first=False):
            first, last = first if rows else int(times[0]), int(times[-1])
            rows += len(times)
        self._engine.series.put(dataset, symbol, Extent(first, last, rows) if rows else None)

    def discount(self, dataset: Dataset, symbol: int, gone: int) -> None:
        """Take so many rows off a symbol, and find its first and last row again."""
        held = self._engine.series.get(dataset, symbol)
        if held is None:
            return
        rows = held.rows - gone
        if rows == 0:
            self._engine.series.put(dataset, symbol, None)
            return
        first, last = (
            self.outermost(dataset, symbol, held.first, held.last, newest_first=newest) for newest in (False, True)
        )
        self._engine.series.put(dataset, symbol, Extent(first, last, rows))

    def _times(self, dataset: Dataset, symbol: int, start: int, end: int) -> np.ndarray:
        return np.concatenate([np.zeros(0, "i8"), *self._current(dataset, symbol, start, end, newest_first=False)])

    def outermost(self, dataset: Dataset, symbol: int, first: int, last: int, *, newest_first: bool) -> int:
        """The time of the first or the last current row between those times, where there is one."""
        times = next(iter(self._current(dataset, symbol, first, last + 1, newest_first=newest_first)))
        return int(times[-1 if newest_first else 0])

    def _current(
        self, dataset: Dataset, symbol: int, start: int, end: int, *, newest_first: bool
    ) -> Iterable[np.ndarray]:
        snapshot = self._engine.snapshot
        scope = Scope(snapshot, dataset, start, end, ("timestamp",), snapshot.head, newest_first=newest_first)
        for rows in self._reads.pieces(scope, symbol):
            if rows.num_rows:
                yield rows["timestamp"].to_numpy()


def outcomes(kind: Kind, table: pa.Table, rows: Sequence[int], judged: Judged | None) -> list[Outcome]:
    """What became of tables of so many rows that were written as one table, given how its rows were judged."""
    if judged is None:
        return [Outcome(inserted=count) for count in rows]
    parts = np.split(judged.verdicts, np.cumsum(rows[:-1], dtype="i8")) if rows else []
    met = met_of(kind, table, rows, judged.met)
    counts = [np.bincount(part, minlength=len(Verdict)).tolist() for part in parts]
    return [
        Outcome(unchanged=unchanged, inserted=inserted, replaced=replaced, rejected=rejected, met=what)
        for (unchanged, inserted, replaced, rejected), what in zip(counts, met, strict=True)
    ]


def _stored_rows(prepared: Prepared) -> pa.Table:
    """The rows that are stored, with their verdicts unless all are new."""
    rows = prepared.incoming.rows
    if prepared.judged is None:
        return rows
    verdicts = prepared.judged.verdicts
    return rows.append_column("verdict", pa.array(verdicts)).filter(pa.array(verdicts != Verdict.UNCHANGED))


def _numbered(
    known: Names, encoded: pa.DictionaryArray, used: np.ndarray, fresh: dict[str, int]
) -> tuple[Any, np.ndarray]:
    """The number of each row's name, and those of the used entries of the dictionary."""
    numbers = known.number(encoded.dictionary.take(pa.array(used)).to_pylist(), fresh)
    if len(numbers) == 1:
        return pa.array(np.full(len(encoded), numbers[0], "i4")), numbers
    by_index = np.zeros(len(encoded.dictionary), "i4")
    by_index[used] = numbers
    return pa.array(by_index[encoded.indices.to_numpy()]), numbers


def count_on(kind: Kind, table: pa.Table, rows: pa.Table, stored: pa.Table) -> pa.Table:
    """The table, its ordinals counted on from the stored rows that are equal to a row of it.

    `rows` are its rows with names as numbers, `stored` versions of its symbols. Rows with an id have no ordinal.
    """
    near = stored.filter(pc.is_in(stored["timestamp"], rows["timestamp"].combine_chunks()))
    near = near.filter(pc.is_null(near["id"]))
    if not near.num_rows or "ordinal" not in table.column_names:
        return table
    keys = ("symbol", "timestamp", "source", *VALUES[kind])
    used = near.group_by(list(keys)).aggregate([("ordinal", "max")])
    next_of = {tuple(row[name] for name in keys): row["ordinal_max"] + 1 for row in used.to_pylist()}
    columns = zip(*(rows[name].to_pylist() for name in keys), strict=True)
    ahead = pa.array([next_of.get(row, 0) for row in columns], pa.int32())
    ordinals = pc.add(table["ordinal"], pa.chunked_array([ahead]))
    return table.set_column(table.column_names.index("ordinal"), "ordinal", ordinals)


def time_ranges(symbols: Any, times: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each symbol, its first and its last time."""
    ranges = pa.table({"symbol": symbols, "timestamp": times}).group_by("symbol")
    ranges = ranges.aggregate([("timestamp", "min"), ("timestamp", "max")])
    symbol, first, last = (ranges[name].to_numpy() for name in ("symbol", "timestamp_min", "timestamp_max"))
    return symbol, first, last


def _counts(symbols: np.ndarray) -> Counter[int]:
    counts = np.bincount(symbols)
    known = np.flatnonzero(counts)
    return Counter(dict(zip(known.tolist(), counts[known].tolist(), strict=True)))


def _archived(dataset: Dataset, shelf: Shelf, symbol: int, first: int, last: int) -> bool:
    spans = shelf.between(dataset.span_at(first), dataset.span_at(last))
    return any(shelf.groups_of(span, symbol, first, last + 1) for span in spans)


def _may_repeat(incoming: Incoming) -> bool:
    """Whether two rows may have one key: not if they are in strict order of symbol and time, or time and symbol."""
    symbols, times = one_chunk(incoming.rows["symbol"]).to_numpy(), one_chunk(incoming.rows["timestamp"]).to_numpy()
    same, later = symbols[1:] == symbols[:-1], times[1:] > times[:-1]
    runs = len(symbols) - int(same.sum())
    if bool((later | ~same).all()) and runs == len(incoming.symbols):
        return False
    if bool((later | ((times[1:] == times[:-1]) & (symbols[1:] > symbols[:-1]))).all()):
        return False
    order = np.lexsort((times, symbols))
    repeated = (symbols[order][1:] == symbols[order][:-1]) & (times[order][1:] == times[order][:-1])
    return bool(repeated.any())
