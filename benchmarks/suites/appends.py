"""The store after a year of daily appends, beside one that was loaded sorted in one go."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import measure, ours
from benchmarks.bench import Bench
from benchmarks.measure import Figure
from benchmarks.suites.reads import DAY_READS, time_reads
from tapehouse.model import Interval, Kind
from tapehouse.store.duckdb.compactor import QUIET_S
from tapehouse.store.duckdb.store import DuckDBStore

ABOUT = (
    "Every day of all symbols is one write, in order, while a compactor runs as it does in the server; then the same "
    "reads as from one sorted load, in turn."
)
COMPACT_EVERY_S = 1.0
ALLOWED = 1.5


def run(bench: Bench) -> list[Figure]:
    folder = bench.empty("appended")
    rate = _append_all(bench, folder)
    appended, loaded = ours.Reader(folder), ours.Reader(ours.loaded(bench))
    figures = [
        _figure("one symbol, one day, p50", appended, loaded, bench.one_day(7, DAY_READS)),
        _figure("one symbol, one year, p50", appended, loaded, bench.all_time(8, 6 * bench.repeats)),
    ]
    stats = appended.store.stats()
    appended.close()
    loaded.close()
    figures[
        0
    ].note = f"{stats['archive_files']} archive files and {stats['hot_rows']:,} hot rows after {bench.days} appends"
    return [*figures, Figure(name="daily appends with compaction running", unit="rows/s", ours=rate, better="higher")]


def _append_all(bench: Bench, folder: Path) -> float:
    store = DuckDBStore(folder)
    done = threading.Event()
    compactor = threading.Thread(target=_compact_until, args=(store, done))
    compactor.start()
    writing = 0.0
    try:
        with pq.ParquetFile(bench.files.stocks_by_day()) as file:
            for day in range(file.num_row_groups):
                table = file.read_row_group(day)
                started = time.perf_counter()
                store.write(Kind.BARS, table, interval=Interval.M1, source=ours.SOURCE)
                writing += time.perf_counter() - started
    finally:
        done.set()
        compactor.join()
    time.sleep(QUIET_S + 1)  # between real days the compactor catches up
    store.compact()
    store.close()
    return bench.scale.rows / writing


def _compact_until(store: DuckDBStore, done: threading.Event) -> None:
    while not done.wait(COMPACT_EVERY_S):
        store.compact()


def _figure(name: str, appended: ours.Reader, loaded: ours.Reader, questions: list[tuple[str, int, int]]) -> Figure:
    sorted_load = "one sorted load"
    readers = {ours.NAME: appended, sorted_load: loaded}
    for reader in readers.values():
        reader.read(*questions[0])
    samples = time_reads(readers, questions, forget=False)
    taken = {who: measure.percentile(s, 0.5) * 1e3 for who, s in samples.items()}
    return Figure(
        name=name,
        unit="ms",
        ours=taken[ours.NAME],
        better="lower",
        peers={sorted_load: taken[sorted_load]},
        ratio_to=sorted_load,
        ratio_target=ALLOWED,
    )
