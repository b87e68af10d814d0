"""Live bars and history never disagree: whatever comes late, twice or after a restart, the store ends with what the
sorted trades make."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.stores import T0, trade, trades

from tapehouse.bus.memory import MemoryBus
from tapehouse.bus.sqlite import SQLiteBus
from tapehouse.codec.live.entries import table_of
from tapehouse.derive.deriver import Deriver
from tapehouse.failpoints import ENVIRONMENT
from tapehouse.ingest.base import Arrival
from tapehouse.ingest.checks import Window
from tapehouse.ingest.desk import Desk
from tapehouse.model import HOUR_NS, SECOND_NS, Instrument, Interval, Kind
from tapehouse.record.recorder import Recorder
from tapehouse.resample import Rows, resample
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore
from tapehouse.store.tables import conform

INTERVALS = (Interval.S1, Interval.M1, Interval.H1, Interval.D1)
S = SECOND_NS


class Line:
    """A desk, a recorder and a deriver on one log, moved by hand."""

    def __init__(self, bus: Any, store: Any) -> None:
        self.now = T0
        self.bus, self.store = bus, store
        self.desk = Desk(bus, conform, window=Window(future_s=1e6, late_s=1e9), clock=lambda: self.now)
        self.recorder = Recorder(bus, store, flush_s=0.001)
        self.derive()

    def derive(self) -> None:
        """Begin to derive, or begin again."""
        self.deriver = Deriver(
            self.bus, 0, self.store, self.recorder, intervals=INTERVALS, flush_s=0.0, clock=lambda: self.now
        )
        self.deriver.resume()

    def trade(self, *rows: tuple[str, float, float, float]) -> None:
        """Trades of (symbol, seconds after T0, price, size) come in."""
        table = trades(*(trade(symbol, T0 + int(at * S), price, size) for symbol, at, price, size in rows))
        self.desk.take(Arrival(kind=Kind.TRADES, table=table, source="feed"))

    def settle(self, seconds: float = 0.0) -> None:
        """Let the time pass, and all of it be derived and recorded."""
        self.now += int(seconds * S)
        for _ in range(3):
            self.deriver.step()
            while self.recorder.step():
                pass

    def said(self, channel: str, *, final: bool = True) -> list[tuple[Any, ...]]:
        """(symbol, seconds after T0, close, volume, revision) of what was published."""
        found = []
        for logged in self.bus.read(0, None, limit=100_000, max_bytes=1 << 30).entries:
            if logged.entry.channel == channel and logged.entry.made_from is not None:
                for row in table_of(logged.entry).to_pylist():
                    if row["final"] is final:
                        at = (row["timestamp"].value - T0) / S
                        found.append((row["symbol"], at, row["close"], row["volume"], row["revision"]))
        return found

    def check(self) -> None:
        """Every stored bar is that of the stored trades, sorted."""
        held = self.store.read(Selection(kind=Kind.TRADES, columns=("symbol", "timestamp", "price", "size"))).table()
        for interval in INTERVALS[:-1]:
            wanted = {}
            for symbol in sorted(set(held["symbol"].to_pylist())):
                own = held.filter(pa.array([each == symbol for each in held["symbol"].to_pylist()]))
                times = own["timestamp"].cast(pa.int64()).to_numpy()
                first = int(times[0]) // interval.nanos * interval.nanos
                edges = np.arange(first, int(times[-1]) + 2 * interval.nanos, interval.nanos)
                rows = resample(Rows.of_trades(times, own["price"].to_numpy(), own["size"].to_numpy()), edges).rows
                assert rows.vwap is not None
                assert rows.trades is not None
                columns = (rows.times, rows.open, rows.high, rows.low, rows.close, rows.volume, rows.vwap, rows.trades)
                for values in zip(*(column.tolist() for column in columns), strict=True):
                    wanted[symbol, values[0]] = values[1:]
            stored = self.store.read(
                Selection(
                    kind=Kind.BARS, interval=interval,
                    columns=("symbol", "timestamp", "open", "high", "low", "close", "volume", "vwap", "trades"),
                )
            ).table()  # fmt: skip
            times = stored["timestamp"].cast(pa.int64()).to_pylist()
            rows_ = zip(*(stored[name].to_pylist() for name in stored.column_names if name != "timestamp"), strict=True)
            found = {(row[0], time_): row[1:] for time_, row in zip(times, rows_, strict=True)}
            nan = {key: tuple(None if v != v else v for v in values) for key, values in wanted.items()}
            assert found == nan, interval


def line(store: Any = None) -> Line:
    return Line(MemoryBus(), store or MemoryStore())


def test_a_bar_forms_is_over_and_is_stored() -> None:
    live = line()
    live.trade(("A", 0.1, 10, 1), ("A", 0.9, 11, 2))
    live.settle()
    assert live.said("bars.1m", final=False) == [("A", 0, 11, 3, 0)]
    assert live.said("bars.1s") == []
    live.settle(10)
    assert live.said("bars.1s") == [("A", 0, 11, 3, 0)]
    live.trade(("A", 30, 12, 1))
    live.settle(60)
    assert live.said("bars.1m") == [("A", 0, 12, 4, 0)]
    (bar,) = (
        live.store.read(Selection(kind=Kind.BARS, interval=Interval.M1, columns=("close", "source")))
        .table()
        .to_pylist()
    )
    assert bar == {"close": 12, "source": "tapehouse"}
    live.settle(2 * 86_400)
    live.check()


def test_bars_are_over_when_their_time_is_though_nothing_else_comes() -> None:
    live = line()
    live.trade(("A", 0.5, 10, 1))
    live.settle(0.9)
    assert live.said("bars.1s") == []
    live.settle(2.2)
    assert live.said("bars.1s") == [("A", 0, 10, 1, 0)]


def test_a_late_trade_revises_its_bar_with_a_number() -> None:
    live = line()
    live.trade(("A", 0.5, 10, 1))
    live.settle(10)
    live.trade(("A", 0.6, 12, 1))
    live.settle()
    live.trade(("A", 0.2, 9, 1))
    live.settle()
    assert live.said("bars.1s") == [("A", 0, 10, 1, 0), ("A", 0, 12, 2, 1), ("A", 0, 12, 3, 2)]
    live.settle(2 * 86_400)
    live.check()


def test_a_trade_a_day_late_revises_bars_that_nobody_remembers() -> None:
    live = line()
    for hour in range(30):
        live.trade(("A", hour * 3_600 + 0.5, 10 + hour, 1))
        live.settle(3_600)
    live.trade(("A", 0.7, 99, 5))
    live.settle(1)
    live.settle(1)
    assert live.said("bars.1m")[-1] == ("A", 0, 99, 6, 1)
    live.settle(2 * 86_400)
    live.check()


def test_days_go_by_the_zone_of_the_instrument() -> None:
    store = MemoryStore()
    store.put_instruments([Instrument(pattern="N", timezone="America/New_York")])
    live = line(store)
    live.trade(("N", 0, 10, 1), ("U", 0, 10, 1))
    live.settle(3 * 86_400)
    first = {row[0]: T0 + int(row[1] * S) for row in live.said("bars.1d")}
    assert first["U"] % (24 * HOUR_NS) == 0
    assert first["N"] % (24 * HOUR_NS) == 5 * HOUR_NS


@pytest.mark.parametrize("saved", [False, True])
def test_a_restart_repeats_nothing_and_forgets_nothing(saved: bool) -> None:
    live = line()
    live.trade(("A", 0.5, 10, 1), ("B", 0.5, 20, 1))
    live.settle(10)
    if saved:
        live.deriver.save()
    live.trade(("A", 11.5, 11, 1))
    live.settle(10)
    before = live.said("bars.1s")
    live.derive()
    live.settle()
    assert live.said("bars.1s") == before
    live.trade(("A", 0.6, 15, 1), ("B", 30, 21, 1))
    live.settle(100)
    assert ("A", 0, 15, 2, 1) in live.said("bars.1s")
    assert len(set(live.said("bars.1s"))) == len(live.said("bars.1s"))
    live.settle(2 * 86_400)
    live.check()


ROW = st.tuples(
    st.sampled_from("AB"),
    st.one_of(st.floats(0, 8), st.integers(0, 200).map(float)),
    st.decimals(1, 100, places=2).map(float),
    st.one_of(st.integers(1, 100).map(float), st.decimals("0.00000001", 1, places=8).map(float)),
)


@given(
    steps=st.lists(
        st.tuples(
            st.lists(ROW, min_size=1, max_size=6), st.floats(0, 30), st.sampled_from(["", "", "save", "restart"])
        ),
        min_size=1,
        max_size=8,
    )
)
def test_live_bars_are_what_history_makes_of_the_trades(steps: list[tuple[list[Any], float, str]]) -> None:
    live = line()
    for rows, seconds, event in steps:
        live.trade(*rows)
        if event != "restart":
            live.settle(seconds)
        if event == "save":
            live.deriver.save()
        if event == "restart":
            live.derive()
    live.settle(3 * 86_400)
    live.settle()
    live.check()


def test_bars_that_are_stored_are_those_that_are_resampled(tmp_path: Path) -> None:
    """The whole line on disk, in threads, with trades out of order; then the bars are asked for and made anew."""
    store, bus, stop = DuckDBStore(tmp_path / "data"), SQLiteBus(tmp_path / "log"), threading.Event()
    recorder = Recorder(bus, store, flush_s=0.02)
    deriver = Deriver(bus, 0, store, recorder, intervals=INTERVALS, flush_s=0.02, grace_s=0.2)
    threads = [threading.Thread(target=one.run, args=(stop,)) for one in (recorder, deriver)]
    for thread in threads:
        thread.start()
    try:
        desk, rng = Desk(bus, conform), random.Random(1)
        for _ in range(60):
            now = time.time_ns()
            rows = [
                trade(rng.choice("ABC"), now - int(rng.expovariate(4) * S), round(rng.uniform(10, 20), 2), rng.random())
                for _ in range(30)
            ]
            desk.take(Arrival(kind=Kind.TRADES, table=trades(*rows), source="feed"))
            time.sleep(0.02)
        time.sleep(1.5)
        until_stored(recorder, 1_800)
        last = bus.ends(0).last
        assert recorder.wait(0, last, 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    bus.close()
    try:
        made = 0
        for interval in (Interval.S1, Interval.M1):
            for (symbol, at), bar in columns(store, interval).items():
                assert remade(store, symbol, at, interval) == [bar]
                made += 1
        assert made > 5
    finally:
        store.close()


def until_stored(recorder: Recorder, rows: int) -> None:
    end = time.monotonic() + 20
    while recorder.progress().rows < rows:
        assert time.monotonic() < end
        time.sleep(0.02)


NAMES = ("open", "high", "low", "close", "volume", "vwap", "trades")


def columns(store: Any, interval: Interval) -> dict[tuple[str, int], tuple[Any, ...]]:
    """The stored bars by symbol and time."""
    selection = Selection(kind=Kind.BARS, interval=interval, columns=("symbol", "timestamp", *NAMES))
    table = store.read(selection).table()
    times = table["timestamp"].cast(pa.int64()).to_pylist()
    rows = zip(*(table[name].to_pylist() for name in NAMES), strict=True)
    return dict(zip(zip(table["symbol"].to_pylist(), times, strict=True), rows, strict=True))


def remade(store: Any, symbol: str, at: int, interval: Interval) -> list[tuple[Any, ...]]:
    """The bar that the stored trades make."""
    edges = np.array([at, at + interval.nanos])
    selection = Selection(
        kind=Kind.TRADES, symbols=(symbol,), start=at, end=int(edges[1]), columns=("timestamp", "price", "size")
    )
    table = store.read(selection).table().combine_chunks()
    times, price, size = (table[name].to_numpy() for name in ("timestamp", "price", "size"))
    rows = resample(Rows.of_trades(times.view(np.int64), price, size), edges).rows
    found = [getattr(rows, name) for name in NAMES]
    return list(zip(*(column.tolist() for column in found), strict=True))


FAILPOINTS = ("derive.taken", "derive.published", "derive.saved")


@pytest.mark.parametrize("nth", [2, 5])
@pytest.mark.parametrize("name", [*FAILPOINTS, "record.written"])
def test_killed_anywhere_it_says_everything_once(name: str, nth: int, tmp_path: Path) -> None:
    for armed, expected in ((f"{name}=kill@{nth}", -9), ("", 0)):
        run = subprocess.run(
            [sys.executable, "-m", "tests.unit.derive.life", str(tmp_path), "1000"],
            env={**os.environ, ENVIRONMENT: armed},
            cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert run.returncode == expected, run.stderr
    store, bus = DuckDBStore(tmp_path / "data"), SQLiteBus(tmp_path / "log")
    try:
        said: list[tuple[Any, ...]] = []
        for logged in bus.read(0, None, limit=100_000, max_bytes=1 << 30).entries:
            if logged.entry.made_from is not None:
                rows = [row for row in table_of(logged.entry).to_pylist() if row["final"]]
                said += [(logged.entry.channel, row["symbol"], row["timestamp"].value, row["revision"]) for row in rows]
        assert len(said) == len(set(said)), "a revision was said twice"
        held = store.read(Selection(kind=Kind.TRADES, columns=("symbol", "timestamp"))).table()
        assert held.num_rows == 1_000
        times = held["timestamp"].cast(pa.int64()).to_pylist()
        for interval in (Interval.S1, Interval.M1):
            found = columns(store, interval)
            keys = zip(held["symbol"].to_pylist(), times, strict=True)
            assert set(found) == {(symbol, at // interval.nanos * interval.nanos) for symbol, at in keys}
            for (symbol, at), bar in found.items():
                assert remade(store, symbol, at, interval) == [bar]
    finally:
        bus.close()
        store.close()
