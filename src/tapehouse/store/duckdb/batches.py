"""Batches: all commits of one name. What they are, the rows that they brought, and how they are undone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from tapehouse.errors import Conflict, NotFound
from tapehouse.failpoints import failpoint
from tapehouse.model import (
    MAX_TIME_NS,
    MIN_TIME_NS,
    PROVENANCE,
    SCHEMAS,
    Change,
    Commit,
    Interval,
    Kind,
    read_schema,
)
from tapehouse.store.archive.files import ArchiveFile
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.base import Batch, Reading, Undone
from tapehouse.store.duckdb.catalog import DATASETS, Snapshot, insert_commit, insert_undo, load_undos
from tapehouse.store.duckdb.engine import Engine
from tapehouse.store.duckdb.hot import read_written
from tapehouse.store.duckdb.reads import ROWS_PER_HOT_QUERY, ROWS_PER_RUN, Found, Reads, Scope, encode
from tapehouse.store.duckdb.series import Extent
from tapehouse.store.duckdb.versions import EXAMPLES, Undoing, effect, version_columns
from tapehouse.store.duckdb.writes import Writes, time_ranges
from tapehouse.store.hiding import Runs, Undo, latest_undos
from tapehouse.store.tables import check_interval

ALL_TIME = MIN_TIME_NS, MAX_TIME_NS
RUNS_PER_SYMBOL = 4
"""Rows of a symbol that come in more pieces than this are put together, at the price of a copy."""


class Prepared(NamedTuple):
    """An undo, found out as of the commit `head`."""

    batch: str
    head: int
    parts: list[Undoing]


class Batches:
    """Looks at the rows of a store by the commits that brought them."""

    def __init__(self, engine: Engine, reads: Reads, writes: Writes) -> None:
        self._engine = engine
        self._reads = reads
        self._writes = writes

    def named(self, names: Sequence[str] | None, before: int | None, limit: int) -> list[Batch]:
        """See `Undoes.batches`."""
        condition, parameters = "", list[Any]()
        if names is not None:
            condition, parameters = "AND batch IN (SELECT unnest(?::VARCHAR[]))", [list(names)]
        snapshot = self._engine.snapshot
        bound = snapshot.head + 1 if before is None else before
        with self._engine.query("read the batches") as cursor:
            undos = {version: runs for version, runs in load_undos(cursor).items() if version <= snapshot.head}
            rows = cursor.execute(
                f"""SELECT batch, min(number), max(number), min(recorded), max(recorded), count(*),
                sum(inserted)::BIGINT, sum(replaced)::BIGINT, sum(unchanged)::BIGINT, sum(rejected)::BIGINT,
                sum(deleted)::BIGINT, list({{'kind': kind, 'code': code, 'number': number}} ORDER BY number)
                FROM commits WHERE batch IS NOT NULL AND number <= ? {condition}
                GROUP BY batch HAVING max(number) < ? ORDER BY max(number) DESC LIMIT ?""",
                [snapshot.head, *parameters, bound, limit],
            ).fetchall()
            names_of = _names(cursor, undos)
        return [_batch(row, undos, names_of) for row in rows]

    def prepare(self, batch: str) -> Prepared:
        """Find out what an undo of that batch is to change, beside writers."""
        snapshot, release = self._engine.pinned()
        try:
            commits = self._to_undo(snapshot, batch)
            ordered = sorted(commits, key=DATASETS.index)
            parts = [self._plan(snapshot, dataset, commits[dataset]) for dataset in ordered]
        finally:
            release()
        return Prepared(batch, snapshot.head, parts)

    def overtaken(self, prepared: Prepared) -> bool:
        """Whether a commit since may have changed what the undo is to change. The caller holds `writing`."""
        with self._engine.query("read the commits") as cursor:
            newer = cursor.execute(
                'SELECT kind, code, batch, start, "end" FROM commits WHERE number > ?', [prepared.head]
            ).fetchall()
        spans = {part.dataset: part.span for part in prepared.parts}
        for kind, code, batch, start, end in newer:
            first, last = spans.get(Dataset.decode(kind, code), (end, start))
            if batch == prepared.batch or (start < last and end > first):
                return True
        return False

    def undo(self, prepared: Prepared) -> tuple[Undone, list[Change]]:
        """See `Undoes.undo`. The caller holds `writing`, and nothing has overtaken what was prepared."""
        head, batch = self._engine.snapshot.head, prepared.batch
        parts = [part.numbered(version) for version, part in enumerate(prepared.parts, head + 1)]
        made = self._commits_of(parts, self._name(batch))
        failpoint("undo.planned")
        with self._engine.transaction(f"undo {batch}") as connection:
            for part, commit in zip(parts, made, strict=True):
                insert_undo(connection, part.dataset, part.entries)
                failpoint("undo.entries.inserted")
                insert_commit(connection, part.dataset, commit)
        self._index(parts, made[-1])
        examples = [(p.dataset.kind, p.dataset.interval, *example) for p in parts for example in p.examples]
        undone = Undone(
            batch=batch,
            commits=made,
            removed=sum(part.gone for part in parts),
            restored=sum(part.back + part.other for part in parts),
            left=sum(part.left for part in parts),
            examples=examples[:EXAMPLES],
        )
        return undone, [self._change(part, commit) for part, commit in zip(parts, made, strict=True)]

    def _index(self, parts: Sequence[Undoing], last: Commit) -> None:
        """Memory learns of the undo."""
        engine = self._engine
        deletes = dict(engine.snapshot.deletes)
        for part in parts:
            for symbol, entry in part.entries.items():
                deletes[part.dataset, symbol] = (*deletes.get((part.dataset, symbol), ()), entry)
            engine.hot.count(part.dataset, part.spans.items(), hidden=True)
        engine.snapshot = Snapshot(last.number, last.recorded, engine.snapshot.shelves, deletes)
        for part in parts:
            self._recount(part)

    def _to_undo(self, snapshot: Snapshot, batch: str) -> dict[Dataset, Runs]:
        """The commits of the batch that count, by data set."""
        with self._engine.query("read the commits") as cursor:
            found = cursor.execute(
                "SELECT number, kind, code FROM commits WHERE batch = ? AND number <= ? ORDER BY number",
                [batch, snapshot.head],
            ).fetchall()
            undos = latest_undos({v: runs for v, runs in load_undos(cursor).items() if v <= snapshot.head})
        if not found:
            raise NotFound(f"there is no batch {batch!r}", batch=batch)
        counting: dict[Dataset, list[int]] = {}
        for number, kind, code in found:
            if not any(number in runs for runs in undos.values()):
                counting.setdefault(Dataset.decode(kind, code), []).append(number)
        if not counting:
            (known,) = self.named([batch], None, 1)
            raise Conflict(
                f"batch {batch!r} is undone already, by {known.undone_by!r}; undo that to have it back",
                batch=batch,
                undone_by=known.undone_by,
            )
        return {dataset: Runs.of(numbers) for dataset, numbers in counting.items()}

    def _name(self, batch: str) -> str:
        """What the undo is called: no batch has that name yet."""
        query = "SELECT count(*) FROM commits WHERE batch = ?"
        names = chain([f"undo-{batch}"], (f"undo-{batch}-{number}" for number in count(2)))
        return next(name for name in names if self._engine.connection.execute(query, [name]).fetchall() == [(0,)])

    def _plan(self, snapshot: Snapshot, dataset: Dataset, commits: Runs) -> Undoing:
        """What an undo of those commits changes, as the next commit."""
        names, version = self._engine.symbols.names, snapshot.head + 1
        ranges = self._touched(snapshot, dataset, commits)
        part = Undoing(dataset, {symbol: Undo(version, *times, commits) for symbol, times in ranges.items()})
        scope = Scope(snapshot, dataset, *ALL_TIME, version_columns(dataset.kind), snapshot.head)
        for symbol, span, rows in self._reads.versions_by_span(scope, ranges):
            if rows.num_rows:
                deletes = snapshot.deletes_of(dataset, symbol)
                part.add(symbol, names[symbol], span, effect(dataset.kind, rows, deletes, part.entries[symbol]))
        return part

    def _touched(self, snapshot: Snapshot, dataset: Dataset, commits: Runs) -> dict[int, tuple[int, int]]:
        """The symbols that those commits wrote, deleted or undid, and the times `[start, end)` of it."""
        touched: dict[int, tuple[int, int]] = {}

        def touch(symbol: int, start: int, end: int) -> None:
            held = touched.get(symbol, (start, end))
            touched[symbol] = min(start, held[0]), max(end, held[1])

        for found in self._rows(snapshot, dataset, commits, ["commit"]):
            ranges = time_ranges(pa.array(found.place), found.rows["timestamp"])
            for symbol, first, last in zip(*(each.tolist() for each in ranges), strict=True):
                touch(symbol, first, last + 1)
        for (held, symbol), entries in snapshot.deletes.items():
            for entry in entries if held == dataset else ():
                if entry.version in commits:
                    touch(symbol, entry.start, entry.end)
        return touched

    def _commits_of(self, parts: Sequence[Undoing], name: str) -> list[Commit]:
        recorded = max(time.time_ns(), self._engine.snapshot.recorded + 1)
        return [
            Commit(
                number=part.version,
                recorded=recorded + place,
                kind=part.dataset.kind,
                interval=part.dataset.interval,
                batch=name,
                action="undo",
                inserted=part.back,
                replaced=part.other,
                unchanged=part.left,
                deleted=part.gone,
                start=part.span[0],
                end=part.span[1],
            )
            for place, part in enumerate(parts)
        ]

    def _change(self, part: Undoing, commit: Commit) -> Change:
        names = self._engine.symbols.names
        return Change(
            commit=commit.number,
            kind=commit.kind,
            interval=commit.interval,
            symbols=tuple(sorted(names[symbol] for symbol in part.entries)),
            start=part.span[0],
            end=part.span[1],
        )

    def _recount(self, part: Undoing) -> None:
        """Bring the extents of the symbols up to date, which are known outside of the times that were touched."""
        series, dataset = self._engine.series, part.dataset
        for symbol, found in part.symbols.items():
            held = series.get(dataset, symbol)
            rows = found.gained + (0 if held is None else held.rows)
            if rows == 0:
                series.put(dataset, symbol, None)
                continue
            start, end = part.entries[symbol].start, part.entries[symbol].end
            first, last = found.first, found.last
            if held is not None and held.first < start:
                first = held.first
            if held is not None and held.last >= end:
                last = held.last
            if first is None:  # what is left comes after the touched times, or before them
                assert last is not None
                first = self._writes.outermost(dataset, symbol, end, last, newest_first=False)
            if last is None:
                last = self._writes.outermost(dataset, symbol, first, start - 1, newest_first=True)
            series.put(dataset, symbol, Extent(first, last, rows))

    def written(self, batch: str, kind: Kind, interval: Interval | None) -> Reading:
        """See `Audits.written`."""
        check_interval(kind, interval)
        dataset = Dataset(kind, interval)
        schema = read_schema(kind, (*SCHEMAS[kind].names, *PROVENANCE))
        snapshot, release = self._engine.pinned()
        try:
            commits = self._commits(snapshot, dataset, batch)
        except BaseException:
            release()
            raise
        if commits is None:
            release()
            return Reading(schema, snapshot.head, iter(()))
        dictionaries = {
            "symbol": pa.array(list(self._engine.symbols.names), pa.string()),
            "source": pa.array(list(self._engine.sources.names), pa.string()),
        }
        found = self._rows(snapshot, dataset, commits, [n for n in schema.names if n not in ("symbol", "timestamp")])
        return Reading(schema, snapshot.head, (encode(schema, one, dictionaries) for one in found), release)

    def _commits(self, snapshot: Snapshot, dataset: Dataset, batch: str) -> Runs | None:
        """The batch's commits to the data set, None when there are none."""
        with self._engine.query("read the commits") as cursor:
            found = cursor.execute(
                "SELECT number FROM commits WHERE batch = ? AND kind = ? AND code = ? AND number <= ? ORDER BY number",
                [batch, dataset.kind, dataset.code, snapshot.head],
            ).fetchall()
        return Runs.of(number for (number,) in found) if found else None

    def _rows(self, snapshot: Snapshot, dataset: Dataset, commits: Runs, columns: Sequence[str]) -> Iterator[Found]:
        """Every version that those commits brought, with the ids of their symbols, a bounded number at a time."""
        for found in chain(
            self._hot(snapshot, dataset, commits, columns), self._archived(snapshot, dataset, commits, columns)
        ):
            held = commits.hold(found.rows["commit"].to_numpy())
            if held.all():
                yield found
            elif held.any():
                yield Found(np.asarray(found.place)[held], found.rows.filter(pa.array(held)))

    def _hot(self, snapshot: Snapshot, dataset: Dataset, commits: Runs, columns: Sequence[str]) -> Iterator[Found]:
        between = int(commits.since[0]), int(commits.until[-1])
        for symbols, times in self._hot_parts(dataset):
            with self._engine.query(f"read {dataset.kind}") as cursor:
                rows = read_written(cursor, snapshot, dataset, symbols, times, between, columns)
            if rows.num_rows:
                yield _gathered(Found(rows["symbol"].to_numpy(), rows))

    def _hot_parts(self, dataset: Dataset) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """The first and last of some symbols, and times `[start, end)`, whose hot rows are to be read at once."""
        index, chosen, rows = self._engine.hot, list[int](), 0
        for symbol, hot in sorted(index.symbols.get(dataset, {}).items()):
            busy = hot.rows > ROWS_PER_HOT_QUERY
            if chosen and (busy or rows + hot.rows > ROWS_PER_HOT_QUERY):
                yield (chosen[0], chosen[-1]), ALL_TIME
                chosen, rows = [], 0
            if busy:
                for span in sorted(index.spans[dataset]):
                    yield (symbol, symbol), dataset.bounds(span)
            else:
                chosen.append(symbol)
                rows += hot.rows
        if chosen:
            yield (chosen[0], chosen[-1]), ALL_TIME

    def _archived(self, snapshot: Snapshot, dataset: Dataset, commits: Runs, columns: Sequence[str]) -> Iterator[Found]:
        for file in chain.from_iterable(snapshot.shelf(dataset).files.values()):
            if commits.meet(file.min_version, file.max_version):
                for groups in _runs(file):
                    rows = self._engine.reader.read(file, groups, ["timestamp", *columns], whole=True)
                    yield Found(np.repeat(file.symbols[groups], file.rows[groups]), rows)


def _gathered(found: Found) -> Found:
    """The same with the rows of each symbol together, unless they are nearly so."""
    symbols = np.asarray(found.place)
    runs = 1 + np.count_nonzero(symbols[1:] != symbols[:-1])
    if runs <= RUNS_PER_SYMBOL * np.count_nonzero(np.bincount(symbols)):
        return found
    order = np.argsort(symbols, kind="stable")
    return Found(symbols[order], found.rows.take(pa.array(order)))


def _runs(file: ArchiveFile) -> Iterator[list[int]]:
    """The file's row groups, some at a time, no more than are read at once."""
    groups, rows = list[int](), 0
    for group, more in enumerate(file.rows.tolist()):
        if groups and rows + more > ROWS_PER_RUN:
            yield groups
            groups, rows = [], 0
        groups.append(group)
        rows += more
    if groups:
        yield groups


def _names(cursor: duckdb.DuckDBPyConnection, undos: Mapping[int, Runs]) -> dict[int, str]:
    """The batches of the undos, and of the first commits that they hide."""
    numbers = [*undos, *(int(runs.since[0]) for runs in undos.values())]
    query = "SELECT number, batch FROM commits WHERE number IN (SELECT unnest(?::BIGINT[]))"
    return dict(cursor.execute(query, [numbers]).fetchall())


def _batch(row: Sequence[Any], undos: Mapping[int, Runs], names: Mapping[int, str]) -> Batch:
    name, first, last, started, ended, commits, *counts, members = row
    counts_by_name = dict(zip(("inserted", "replaced", "unchanged", "rejected", "deleted"), counts, strict=True))
    numbers = [member["number"] for member in members]
    hiding = [
        (version, runs) for version, runs in latest_undos(undos).items() if any(number in runs for number in numbers)
    ]
    undone = all(any(number in runs for _, runs in hiding) for number in numbers)
    own = next((undos[number] for number in numbers if number in undos), None)
    series = dict.fromkeys(Dataset.decode(member["kind"], member["code"]) for member in members)
    return Batch(
        name=name,
        first_commit=first,
        last_commit=last,
        started=started,
        ended=ended,
        commits=commits,
        series=tuple((dataset.kind, dataset.interval) for dataset in sorted(series, key=DATASETS.index)),
        **counts_by_name,
        undone_by=names[hiding[0][0]] if undone else None,
        undoes=None if own is None else names[int(own.since[0])],
    )
