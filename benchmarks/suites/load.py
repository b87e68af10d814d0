"""Files into the store, everything validated, beside the same files into a raw DuckDB table."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from benchmarks import measure, ours
from benchmarks.bench import Bench
from benchmarks.measure import Figure

ABOUT = (
    "Every load runs in a process of its own, in turn, into an empty folder, and is timed from the first byte read to "
    "the last row durable; imports are not timed. Tapehouse recognises the file, validates every row and looks for "
    "what it would overwrite; DuckDB inserts into a table of the same columns (`INSERT ... SELECT` from Parquet, "
    "`COPY` from CSV). Memory is the most that the process had resident, files it mapped included."
)
DUCKDB = "raw DuckDB"
FORMATS = {
    "Parquet": ("benchmarks.peers:insert_parquet", 1_500_000, 0.35),
    "CSV": ("benchmarks.peers:copy_csv", None, 0.5),
}


def run(bench: Bench) -> list[Figure]:
    sources = {"Parquet": bench.files.stocks(), "CSV": bench.files.stocks_csv()}
    return [figure for kind, source in sources.items() for figure in _compare(bench, kind, source)]


def _compare(bench: Bench, kind: str, source: Path) -> list[Figure]:
    raw, target, ratio_target = FORMATS[kind]
    functions = {ours.NAME: "benchmarks.suites.load:load", DUCKDB: raw}
    taken: dict[str, list[float]] = {name: [] for name in functions}
    peaks: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(max(3, bench.repeats)):
        for name, function in functions.items():
            place = bench.empty("load")
            answer = measure.in_a_process(function, source=str(source), place=str(place))
            assert answer["rows"] == bench.scale.rows, (name, answer)
            taken[name].append(answer["seconds"])
            peaks[name].append(answer["peak_rss"] / 2**20)
    bench.empty("load")
    rates = {name: bench.scale.rows / seconds for name, seconds in measure.medians(taken).items()}
    return [
        Figure(
            name=kind,
            unit="rows/s",
            ours=rates[ours.NAME],
            better="higher",
            peers={DUCKDB: rates[DUCKDB]},
            target=target,
            ratio_to=DUCKDB,
            ratio_target=ratio_target,
            samples=taken,
        ),
        Figure(
            name=f"{kind}, peak memory",
            unit="MiB",
            ours=max(peaks[ours.NAME]),
            better="lower",
            peers={DUCKDB: max(peaks[DUCKDB])},
            target=2_048,
        ),
    ]


def load(source: str, place: str) -> dict[str, float]:
    """One load as `tapehouse load` does it, without the recognised columns being shown."""
    from tapehouse import bulk
    from tapehouse.store.duckdb.store import DuckDBStore

    started = time.perf_counter()
    store = DuckDBStore(place)
    report = bulk.load([source], store, bulk.LoadOptions(source=ours.SOURCE), quarantine_dir=Path(place) / "quarantine")
    taken = time.perf_counter() - started
    store.close()
    assert report.complete, report
    assert report.totals.quarantined == 0, report
    shutil.rmtree(place)
    return {"seconds": taken, "rows": report.totals.inserted}
