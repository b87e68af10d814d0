"""Batches: what commits of one name brought."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa

from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, PROVENANCE, SCHEMAS, Interval, Kind, read_schema
from tapehouse.store.archive.files import ArchiveFile
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.base import Reading
from tapehouse.store.duckdb.catalog import Snapshot
from tapehouse.store.duckdb.engine import Engine
from tapehouse.store.duckdb.hot import read_hot
from tapehouse.store.duckdb.reads import ROWS_PER_HOT_QUERY, ROWS_PER_RUN, Found, encode
from tapehouse.store.hiding import Runs
from tapehouse.store.tables import check_interval

ALL_TIME = MIN_TIME_NS, MAX_TIME_NS


class Batches:
    """Looks at the rows of a store by the commits that brought them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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
        first, last = int(commits.since[0]), int(commits.until[-1])
        for symbols, start, end in self._hot_parts(dataset):
            with self._engine.query(f"read {dataset.kind}") as cursor:
                rows = read_hot(cursor, snapshot, dataset, symbols, start, end, columns, (first, last))
            if rows.num_rows:
                yield Found(rows["symbol"].to_numpy(), rows)

    def _hot_parts(self, dataset: Dataset) -> Iterator[tuple[list[int], int, int]]:
        """The symbols with hot rows, and times `[start, end)`, in parts to be read at once."""
        index, chosen, rows = self._engine.hot, list[int](), 0
        for symbol, hot in sorted(index.symbols.get(dataset, {}).items()):
            if hot.rows > ROWS_PER_HOT_QUERY:
                for span in sorted(index.spans[dataset]):
                    yield [symbol], *dataset.bounds(span)
                continue
            if chosen and rows + hot.rows > ROWS_PER_HOT_QUERY:
                yield chosen, *ALL_TIME
                chosen, rows = [], 0
            chosen.append(symbol)
            rows += hot.rows
        if chosen:
            yield chosen, *ALL_TIME

    def _archived(self, snapshot: Snapshot, dataset: Dataset, commits: Runs, columns: Sequence[str]) -> Iterator[Found]:
        for file in chain.from_iterable(snapshot.shelf(dataset).files.values()):
            if commits.meet(file.min_version, file.max_version):
                for groups in _runs(file):
                    rows = self._engine.reader.read(file, groups, ["timestamp", *columns])
                    yield Found(np.repeat(file.symbols[groups], file.rows[groups]), rows)


def _runs(file: ArchiveFile) -> Iterator[list[int]]:
    """The file's row groups, some at a time, no more than are read at once."""
    groups, rows = list[int](), 0
    for group, count in enumerate(file.rows.tolist()):
        if groups and rows + count > ROWS_PER_RUN:
            yield groups
            groups, rows = [], 0
        groups.append(group)
        rows += count
    if groups:
        yield groups
