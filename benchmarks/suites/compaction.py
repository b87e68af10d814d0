"""How fast settled rows move into the archive, and how long a writer beside it has to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from benchmarks import measure, ours
from benchmarks.bench import Bench
from benchmarks.data import BARS, MINUTE_NS, SYMBOL, TIMESTAMP, session_start
from benchmarks.measure import Figure
from tapehouse.model import Interval, Kind
from tapehouse.store.base import CompactionReport
from tapehouse.store.duckdb.store import DuckDBStore

ABOUT = (
    "All rows move from the hot table into the archive while one thread writes a bar of every symbol every 20 ms, as a "
    "live feed would; then the same writer alone."
)
PAUSE_S = 0.02
ALONE_S = 10.0


def run(bench: Bench) -> list[Figure]:
    store = DuckDBStore(bench.empty("compaction"))
    ours.write_all(store, bench.files.stocks())
    writer = Writer(store, bench)
    reports: list[CompactionReport] = []
    beside = writer.waits_during(lambda: reports.append(store.compact(everything=True)))
    alone = writer.waits_during(lambda: time.sleep(ALONE_S))
    store.close()
    return [
        Figure(
            name="compaction, with a writer beside it",
            unit="rows/s",
            ours=reports[0].rows / reports[0].seconds,
            better="higher",
            target=500_000,
        ),
        Figure(
            name="a writer's longest wait beside a compaction",
            unit="ms",
            ours=max(beside) * 1e3,
            better="lower",
            peers={"the same writer alone": max(alone) * 1e3},
            target=100.0,
            note=f"{len(beside)} writes of {bench.symbols} rows: median {_median_ms(beside):.1f} ms, "
            f"alone {_median_ms(alone):.1f} ms",
        ),
    ]


def _median_ms(waits: list[float]) -> float:
    return measure.percentile(waits, 0.5) * 1e3


class Writer:
    """Writes one new minute of every symbol at a time, after the loaded days, and notes how long each write took."""

    def __init__(self, store: DuckDBStore, bench: Bench) -> None:
        self._store = store
        self._names = pa.array(bench.files.symbols).dictionary_encode().cast(SYMBOL)
        self._time = session_start(bench.files.days[-1]) + 400 * 86_400_000_000_000

    def waits_during(self, work: Callable[[], object]) -> list[float]:
        """Seconds of each write while the work was done in another thread."""
        worker = threading.Thread(target=work)
        waits = []
        worker.start()
        while worker.is_alive() or not waits:
            started = time.perf_counter()
            self._store.write(Kind.BARS, self._minute(), interval=Interval.M1, source="feed")
            waits.append(time.perf_counter() - started)
            time.sleep(PAUSE_S)
        worker.join()
        return waits

    def _minute(self) -> pa.Table:
        rows = len(self._names)
        self._time += MINUTE_NS
        times = pa.array(np.full(rows, self._time)).cast(TIMESTAMP)
        price, volume = pa.array(np.full(rows, 100.0)), pa.array(np.full(rows, 1_000.0))
        return pa.table([self._names, times, price, price, price, price, volume], schema=BARS)
