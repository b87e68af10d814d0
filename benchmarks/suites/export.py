"""Rows out of the store as files, beside pyarrow and DuckDB writing the same rows from memory."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from benchmarks import measure, ours
from benchmarks.bench import Bench
from benchmarks.measure import Figure

ABOUT = (
    "All rows of the settled store as one file of each format, with all columns (three are empty): read from the "
    "archive, hashed row by row, written, synced and listed in a manifest; and as Parquet by symbol, where two threads "
    "have something to do. Beside it the eight columns that have values, in memory before the clock starts, written by "
    "pyarrow (one thread) and by DuckDB (two) to one file and synced. Every write has a process of its own, in turn; "
    "those of JSON lines and SQLite take long, and are timed once."
)
PYARROW = "pyarrow, from memory"
DUCKDB = "raw DuckDB, from memory"
COLUMNS = ("symbol", "timestamp", "open", "high", "low", "close", "volume", "source")
FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Parquet, zstd": ("parquet", (PYARROW, DUCKDB)),
    "CSV": ("csv", (PYARROW, DUCKDB)),
    "JSON lines": ("jsonl", (DUCKDB,)),
    "SQLite": ("sqlite", ()),
}
ONCE = {"jsonl", "sqlite"}


def run(bench: Bench) -> list[Figure]:
    store = ours.loaded(bench)
    figures = [_compare(bench, store, name, *FORMATS[name]) for name in FORMATS]
    return [*figures, _compare(bench, store, "Parquet by symbol", "parquet", (), partition="symbol")]


def _compare(
    bench: Bench, store: Path, name: str, format_: str, peers: tuple[str, ...], partition: str = "none"
) -> Figure:
    functions = {ours.NAME: "export", PYARROW: "write_pyarrow", DUCKDB: "write_duckdb"}
    taken: dict[str, list[float]] = {each: [] for each in (ours.NAME, *peers)}
    for _ in range(1 if format_ in ONCE else min(3, bench.repeats)):
        for each in taken:
            source = store if each == ours.NAME else bench.files.stocks()
            answer = measure.in_a_process(
                f"benchmarks.suites.export:{functions[each]}",
                source=str(source),
                place=str(bench.empty("export")),
                format_=format_,
                **({"partition": partition} if each == ours.NAME else {}),
            )
            assert answer["rows"] == bench.scale.rows, (each, answer)
            taken[each].append(answer["seconds"])
    bench.empty("export")
    rates = {each: bench.scale.rows / seconds for each, seconds in measure.medians(taken).items()}
    return Figure(
        name=name,
        unit="rows/s",
        ours=rates.pop(ours.NAME),
        better="higher",
        peers=rates,
        ratio_to=peers[0] if peers else None,
        samples=taken,
    )


def export(source: str, place: str, format_: str, partition: str) -> dict[str, float]:
    """One export as `tapehouse export` makes it."""
    from tapehouse import Client

    with Client(source) as client:
        started = time.perf_counter()
        manifest = client.export(place, format=format_, partition=partition)
        taken = time.perf_counter() - started
    shutil.rmtree(place)
    return {"seconds": taken, "rows": manifest.rows}


def _table(source: str) -> pa.Table:
    table = pq.read_table(source)
    names = pa.array(["bench"]).take(pa.array([0]))
    column = pa.DictionaryArray.from_arrays(pa.nulls(len(table), pa.int32()).fill_null(0), names)
    return table.append_column("source", column).select(list(COLUMNS))


def write_pyarrow(source: str, place: str, format_: str) -> dict[str, float]:
    """pyarrow's own writer."""
    table, path = _table(source), _made(place)
    started = time.perf_counter()
    if format_ == "parquet":
        pq.write_table(table, path, compression="zstd")
    else:
        pa_csv.write_csv(table, path)
    return _done(path, started, len(table))


def write_duckdb(source: str, place: str, format_: str) -> dict[str, float]:
    """DuckDB's `COPY`."""
    table, path = _table(source), _made(place)
    connection = duckdb.connect(":memory:")
    connection.register("rows", table)
    options = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv", "jsonl": "FORMAT json"}
    started = time.perf_counter()
    connection.execute(f"COPY rows TO '{path}' ({options[format_]})")
    return _done(path, started, len(table))


def _made(place: str) -> str:
    Path(place).mkdir(parents=True)
    return str(Path(place) / "rows")


def _done(path: str, started: float, rows: int) -> dict[str, Any]:
    import os

    with open(path, "rb") as file:
        os.fsync(file.fileno())
    taken = time.perf_counter() - started
    Path(path).unlink()
    return {"seconds": taken, "rows": rows}
