"""Bytes a row on disk, the whole folder counted, beside the same rows as pyarrow writes them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import measure, ours
from benchmarks.bench import Bench
from benchmarks.measure import Figure
from tapehouse.model import Kind
from tapehouse.store.duckdb.store import DuckDBStore

ABOUT = (
    "The whole folder (archive, database, locks) after everything has settled, divided by its rows. Beside it the same "
    "rows, sorted by symbol and time, as pyarrow writes them with zstd and its defaults."
)
PYARROW = "pyarrow Parquet, zstd"
STOCKS_TARGET = 5.6


def run(bench: Bench) -> list[Figure]:
    files = bench.files
    return [
        _figure(bench, "stocks: two decimals, whole volumes", files.stocks(), STOCKS_TARGET),
        _figure(bench, "crypto: up to eight decimals", files.crypto()),
        _figure(bench, "adjusted prices: floats", files.adjusted()),
        _figure(bench, "trades", files.trades(), kind=Kind.TRADES),
    ]


def _figure(bench: Bench, name: str, source: Path, target: float | None = None, kind: Kind = Kind.BARS) -> Figure:
    folder = bench.empty("size")
    store = DuckDBStore(folder)
    rows = ours.write_all(store, source, kind)
    store.compact(everything=True)
    store.close()
    plain = bench.empty("size.parquet")
    pq.write_table(pq.read_table(source), plain, compression="zstd")
    return Figure(
        name=name,
        unit="bytes/row",
        ours=measure.folder_bytes(folder) / rows,
        better="lower",
        peers={PYARROW: plain.stat().st_size / rows},
        target=target,
        ratio_to=PYARROW,
    )
