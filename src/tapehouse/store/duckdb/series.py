"""How much there is of each symbol: first, last and the exact number of current rows, kept up to date in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np

from tapehouse.store.archive.spans import Dataset
from tapehouse.store.duckdb.catalog import Shelf
from tapehouse.store.duckdb.versions import Verdict


@dataclass(frozen=True, slots=True)
class Extent:
    """Of one symbol in one data set; times are inclusive."""

    first: int
    last: int
    rows: int


class SeriesIndex:
    """Extents per data set and symbol id; a symbol without rows is not in it.

    The writer changes it a few lines at a time, so that a reader never waits for a write.
    """

    def __init__(self) -> None:
        self._extents: dict[Dataset, dict[int, Extent]] = {}
        self._lock = threading.Lock()

    def get(self, dataset: Dataset, symbol: int) -> Extent | None:
        """The extent of a symbol, None when it has no current rows."""
        return self._extents.get(dataset, {}).get(symbol)

    def add(self, dataset: Dataset, symbol: int, first: int, last: int, rows: int) -> None:
        """Count new current rows."""
        held = self.get(dataset, symbol)
        extent = Extent(first, last, rows)
        if held is not None:
            extent = Extent(min(held.first, first), max(held.last, last), held.rows + rows)
        self.put(dataset, symbol, extent)

    def put(self, dataset: Dataset, symbol: int, extent: Extent | None) -> None:
        """Set what was counted anew; None when no row is left."""
        with self._lock:
            extents = self._extents.setdefault(dataset, {})
            if extent is None:
                extents.pop(symbol, None)
            else:
                extents[symbol] = extent

    def all(self, symbols: Sequence[int] | None = None) -> list[tuple[Dataset, int, Extent]]:
        """Every extent, or those of some symbols."""
        with self._lock:
            if symbols is None:
                return [(dataset, symbol, e) for dataset, held in self._extents.items() for symbol, e in held.items()]
            found = [(dataset, s, held.get(s)) for dataset, held in self._extents.items() for s in symbols]
        return [(dataset, symbol, extent) for dataset, symbol, extent in found if extent is not None]


def load_extents(connection: duckdb.DuckDBPyConnection, dataset: Dataset, shelf: Shelf, index: SeriesIndex) -> None:
    """Count what is archived and what is hot; exact as long as no delete is newer than the archive's floors."""
    files = [file for held in shelf.files.values() for file in held if not file.history]
    if files:
        symbols = np.concatenate([f.symbols for f in files])
        order = np.argsort(symbols, kind="stable")
        known, starts = np.unique(symbols[order], return_index=True)
        first = np.minimum.reduceat(np.concatenate([f.first for f in files])[order], starts)
        last = np.maximum.reduceat(np.concatenate([f.last for f in files])[order], starts)
        rows = np.add.reduceat(np.concatenate([f.rows for f in files])[order].astype("i8"), starts)
        for extent in zip(known.tolist(), first.tolist(), last.tolist(), rows.tolist(), strict=True):
            index.add(dataset, *extent)
    hot = connection.execute(
        f"SELECT symbol, min(timestamp), max(timestamp), count(*) FILTER (verdict = {Verdict.INSERTED:d}) "
        f"FROM {dataset.table} WHERE verdict <> {Verdict.REJECTED:d} GROUP BY symbol"
    ).fetchall()
    for symbol, first_time, last_time, count in hot:
        index.add(dataset, symbol, first_time, last_time, count)
