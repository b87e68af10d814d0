"""How fast settled rows move into the archive, and how long a writer beside it has to wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    "live feed would; then the same writer alone. A write is durable when it returns, so another thread tells how long "
    "the disk itself took meanwhile: as often, it appends as much to a file of its own beside the store, and syncs."
)
SYNC = "a plain append and sync beside the same compaction"
APPENDED_BYTES = 16_384
PAUSE_S = 0.02
ALONE_S = 10.0


def run(bench: Bench) -> list[Figure]:
    turns = [_turn(bench) for _ in range(min(3, bench.repeats))]
    longest = [max(turn.beside) for turn in turns]
    median = measure.percentile(longest, 0.5)
    typical = turns[longest.index(median)]
    every = ", ".join(f"{seconds * 1e3:.0f}" for seconds in longest)
    note = (
        f"the longest of each of {len(turns)} compactions: {every} ms; in the middle one {len(typical.beside)} writes "
        f"of {bench.symbols} rows, median {_median_ms(typical.beside):.1f} ms, alone {_median_ms(typical.alone):.1f} ms"
    )
    return [
        Figure(
            name="compaction, with a writer beside it",
            unit="rows/s",
            ours=measure.percentile([turn.report.rows / turn.report.seconds for turn in turns], 0.5),
            better="higher",
            target=500_000,
        ),
        Figure(
            name="a writer's longest wait beside a compaction",
            unit="ms",
            ours=median * 1e3,
            better="lower",
            peers={"the same writer alone": max(typical.alone) * 1e3, SYNC: max(typical.syncs) * 1e3},
            target=100.0,
            note=note,
        ),
    ]


@dataclass
class _Turn:
    """One compaction, and how many seconds each write took beside it and alone, and each sync beside it."""

    report: CompactionReport
    beside: list[float]
    alone: list[float]
    syncs: list[float]


def _turn(bench: Bench) -> _Turn:
    folder = bench.empty("compaction")
    store = DuckDBStore(folder)
    ours.write_all(store, bench.files.stocks())
    writer = Writer(store, bench)
    reports: list[CompactionReport] = []
    with _syncing(folder.with_suffix(".appended")) as syncs:
        beside = writer.waits_during(lambda: reports.append(store.compact(everything=True)))
    alone = writer.waits_during(lambda: time.sleep(ALONE_S))
    store.close()
    return _Turn(reports[0], beside, alone, syncs)


@contextmanager
def _syncing(path: Path) -> Iterator[list[float]]:
    """The seconds that a plain append and its sync take, again and again."""
    taken, over = list[float](), threading.Event()

    def work() -> None:
        with path.open("wb", buffering=0) as file:
            while not over.wait(PAUSE_S):
                started = time.perf_counter()
                file.write(bytes(APPENDED_BYTES))
                os.fdatasync(file.fileno())
                taken.append(time.perf_counter() - started)
        path.unlink()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


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
