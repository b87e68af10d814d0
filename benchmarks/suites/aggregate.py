"""A question about all symbols: a month's daily OHLCV and VWAP of each, beside the same in SQL."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from benchmarks import measure, ours, peers
from benchmarks.bench import DAY_NS, Bench
from benchmarks.measure import Figure
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Aggregation, Selection

ABOUT = "Daily open, high, low, close, volume and VWAP of every symbol over one month of minutes, from the store."
MEASURES = ("open", "high", "low", "close", "volume", "vwap")


def run(bench: Bench) -> list[Figure]:
    start, end = bench.one_month()
    days = np.arange(start // DAY_NS * DAY_NS, end + DAY_NS, DAY_NS)
    mine = ours.Reader(ours.loaded(bench))
    duck = peers.RawDuckDB(bench.files)
    selection = Selection(kind=Kind.BARS, interval=Interval.M1, start=int(days[0]), end=int(days[-1]))

    def aggregate() -> pa.Table:
        mine.forget()
        return mine.store.aggregate(selection, lambda _symbol: days, Aggregation(measures=MEASURES))

    _check_answers(aggregate(), duck.daily(int(days[0]), int(days[-1])))
    samples = measure.alternate(
        {ours.NAME: aggregate, duck.name: lambda: duck.daily(int(days[0]), int(days[-1]))}, 4 * bench.repeats
    )
    mine.close()
    duck.close()
    taken = measure.medians(samples, 1e3)
    return [
        Figure(
            name=f"{bench.symbols} symbols, one month, daily, p50",
            unit="ms",
            ours=taken[ours.NAME],
            better="lower",
            peers={duck.name: taken[duck.name]},
            target=100.0,
            ratio_to=duck.name,
        )
    ]


def _check_answers(mine: pa.Table, theirs: pa.Table) -> None:
    assert mine.num_rows == theirs.num_rows > 0, (mine.num_rows, theirs.num_rows)
    for column in ("open", "high", "low", "close", "volume"):
        assert np.array_equal(mine[column].to_numpy(), theirs[column].to_numpy()), column
