"""Inspection by itself, beside one rolling median; and what a load takes with it, with a sample, and without."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import measure, ours
from benchmarks.bench import Bench
from benchmarks.measure import Figure
from tapehouse.bulk.checks import inspector, record
from tapehouse.bulk.checks.base import Checks, Validate
from tapehouse.calendars import timeline
from tapehouse.model import Instrument, Interval, Kind

ABOUT = (
    "All checks of bars (bands, splits, stuck prices, volumes, calendar) over rows that are in memory, in one thread; "
    "beside it, pandas takes one rolling median of 128 returns per symbol and nothing else. Then the load of the same "
    "Parquet file with every row inspected, with the default sample, and with none; each in a process of its own."
)
PANDAS = "one pandas rolling median"
WINDOW = 128
BLOCK_ROWS = 65_536
NEW_YORK = [Instrument(pattern="*", calendar="XNYS", timezone="America/New_York")]


def run(bench: Bench) -> list[Figure]:
    return [_inspection(bench), *_loads(bench)]


def _inspection(bench: Bench) -> Figure:
    table = pq.read_table(bench.files.stocks())
    timeline(NEW_YORK[0]).sessions(19_000, 20_000)  # built once in the life of a process, so it is not timed
    closes = {symbol: _returns(table, place, bench) for place, symbol in enumerate(bench.files.symbols)}
    samples = measure.alternate(
        {ours.NAME: lambda: _inspect(table), PANDAS: lambda: _rolling_medians(closes)}, max(2, bench.repeats // 2)
    )
    rates = {name: table.num_rows / seconds for name, seconds in measure.medians(samples).items()}
    return Figure(
        name="Every row inspected, in memory",
        unit="rows/s",
        ours=rates[ours.NAME],
        better="higher",
        peers={PANDAS: rates[PANDAS]},
        ratio_to=PANDAS,
        samples=samples,
    )


def _inspect(table: pa.Table) -> None:
    looking = inspector(Checks(validate=Validate.FULL), NEW_YORK)
    assert looking is not None
    for first in range(0, table.num_rows, BLOCK_ROWS):
        looking.inspect(Kind.BARS, Interval.M1, table.slice(first, BLOCK_ROWS))
    assert sum(look.tally.inspected for look in looking.finish()) == table.num_rows


def _returns(table: pa.Table, place: int, bench: Bench) -> np.ndarray:
    rows = bench.scale.rows // bench.scale.symbols
    return np.diff(np.log(table["close"].slice(place * rows, rows).to_numpy()))


def _rolling_medians(returns: dict[str, np.ndarray]) -> None:
    import pandas as pd

    for values in returns.values():
        pd.Series(values).rolling(WINDOW).median()


def _loads(bench: Bench) -> list[Figure]:
    source = bench.files.stocks()
    taken: dict[str, list[float]] = {mode: [] for mode in ("off", "sample", "full")}
    for turn in range(max(3, bench.repeats)):
        modes = list(taken)
        for mode in modes[turn % 3 :] + modes[: turn % 3]:
            place = bench.empty("quality")
            answer = measure.in_a_process(
                "benchmarks.suites.quality:load", source=str(source), place=str(place), mode=mode
            )
            assert answer["rows"] == bench.scale.rows, (mode, answer)
            taken[mode].append(answer["seconds"])
    rates = {mode: bench.scale.rows / seconds for mode, seconds in measure.medians(taken).items()}
    without = "the same load, none inspected"
    return [
        Figure(
            name=f"Load of Parquet, {shown}",
            unit="rows/s",
            ours=rates[mode],
            better="higher",
            peers={without: rates["off"]},
            ratio_to=without,
            samples={mode: taken[mode], "off": taken["off"]},
        )
        for mode, shown in (("sample", "a sample inspected"), ("full", "every row inspected"))
    ]


def load(source: str, place: str, mode: str) -> dict[str, float]:
    """One load with that much of it inspected, and what was seen kept in the store."""
    from tapehouse import bulk
    from tapehouse.store.duckdb.store import DuckDBStore

    started = time.perf_counter()
    store = DuckDBStore(place)
    rows = pq.read_metadata(source).num_rows
    looking = inspector(Checks(validate=Validate(mode)), NEW_YORK, rows)
    report = bulk.load(
        [source],
        store,
        bulk.LoadOptions(source=ours.SOURCE),
        quarantine_dir=Path(place) / "quarantine",
        inspect=None if looking is None else looking.inspect,
    )
    if looking is not None:
        record(store, looking.finish(batch=report.batch, commit=report.head))
    taken = time.perf_counter() - started
    store.close()
    assert report.complete, report
    shutil.rmtree(place)
    return {"seconds": taken, "rows": report.totals.inserted}
