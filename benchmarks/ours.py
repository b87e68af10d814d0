"""Tapehouse as it is measured: the embedded store as it comes, through its contract."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench import Bench
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.duckdb.store import DuckDBStore

NAME = "Tapehouse"
SOURCE = "bench"


class Reader:
    """Answers as the query stage asks: one selection, one Arrow table."""

    name = NAME

    def __init__(self, folder: Path) -> None:
        self.store = DuckDBStore(folder)

    def read(self, symbol: str, start: int, end: int) -> pa.Table:
        return self.store.read(
            Selection(kind=Kind.BARS, interval=Interval.M1, symbols=(symbol,), start=start, end=end)
        ).table()

    def forget(self) -> None:
        """Empty what the store keeps in memory of its files."""
        self.store.forget_footers()

    def close(self) -> None:
        self.store.close()


def write_all(store: DuckDBStore, source: Path, kind: Kind = Kind.BARS) -> int:
    """Write a Parquet file row group by row group; returns the rows."""
    interval = Interval.M1 if kind is Kind.BARS else None
    with pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups):
            store.write(kind, file.read_row_group(group), interval=interval, source=SOURCE)
        return int(file.metadata.num_rows)


def loaded(bench: Bench) -> Path:
    """A folder with all stocks, settled into the archive; made once in a run of the benchmarks."""
    folder = Path(bench.work) / f"loaded-{bench.scale.name}"
    if not folder.exists():
        part = bench.empty(f"{folder.name}.part")
        store = DuckDBStore(part)
        write_all(store, bench.files.stocks())
        store.compact(everything=True)
        store.close()
        part.rename(folder)
    return folder
