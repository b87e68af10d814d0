"""What is stored is exactly what was logged, once, whatever happens in between."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.contract.buses import entry
from tests.contract.stores import T0, M, bar, bars, read, trade, trades

from tapehouse.bus.base import Retention
from tapehouse.bus.memory import MemoryBus
from tapehouse.bus.sqlite import SQLiteBus
from tapehouse.codec.live.entries import Entry, make_entry
from tapehouse.errors import StoreFull
from tapehouse.failpoints import ENVIRONMENT
from tapehouse.model import Instrument, Kind, Position
from tapehouse.record.base import decode_position, encode_position
from tapehouse.record.recorder import Recorder
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bus() -> Iterator[MemoryBus]:
    held = MemoryBus()
    yield held
    held.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def of(channel: str, table: pa.Table, source: str = "feed", **header: Any) -> Entry:
    (batch,) = table.combine_chunks().to_batches()
    return make_entry(channel, batch, source, T0, **header)


def recorder(bus: Any, store: Any, **options: Any) -> Recorder:
    return Recorder(bus, store, **{"flush_s": 0.01, **options})


def closes(store: Any) -> list[tuple[Any, ...]]:
    return read(store, "symbol", "close", "source")


def test_records_of_all_kinds_are_stored_with_their_position(bus: Any, store: Any) -> None:
    bus.append(0, [of("trades", trades(trade("A", T0, 1), trade("B", T0, 2)))])
    bus.append(0, [of("bars.1m", bars(bar("A", T0, 1))), of("trades", trades(trade("A", T0, 1)))])
    recording = recorder(bus, store)
    assert recording.step() == 4
    assert closes(store) == [("A", 1, "feed")]
    assert read(store, "symbol", "price", "ordinal", kind=Kind.TRADES) == [("A", 1, 0), ("A", 1, 1), ("B", 2, 0)]
    assert recording.progress().positions == {0: bus.ends(0).last}
    assert recording.wait(0, bus.ends(0).last, 0)
    assert not recording.wait(0, Position(bus.ends(0).last.epoch, 7), 0)
    assert recording.step() == 0
    assert recorder(bus, store).step() == 0


def test_bars_that_are_not_over_and_metrics_are_not_stored(bus: Any, store: Any) -> None:
    both = bars(bar("A", T0, 1), bar("A", T0 + M, 2)).append_column("final", pa.array([True, False]))
    bus.append(0, [of("bars.1m", both, "derived", made_from=Position(1, 1))])
    recording = recorder(bus, store)
    recording.step()
    assert closes(store) == [("A", 1, "derived")]
    forming = bars(bar("A", T0 + M, 2)).append_column("final", pa.array([False]))
    bus.append(0, [of("bars.1m", forming, "derived", made_from=Position(1, 2))])
    recording.step()
    assert recording.progress().positions == {0: bus.ends(0).last}


def test_a_bar_that_a_source_made_goes_before_ours_in_any_order(bus: Any, store: Any) -> None:
    ours = of("bars.1m", bars(bar("A", T0, 1), bar("A", T0 + M, 1)), "derived", made_from=Position(1, 1))
    bus.append(0, [of("bars.1m", bars(bar("A", T0, 2))), ours])
    bus.append(0, [ours, of("bars.1m", bars(bar("A", T0 + M, 2)))])
    recorder(bus, store).step()
    assert closes(store) == [("A", 2, "feed"), ("A", 2, "feed")]


def test_what_the_store_refuses_is_set_aside_and_stops_nothing(bus: Any, store: Any) -> None:
    """The rules of the store may have changed since: an instrument got another time zone."""
    store.put_instruments([Instrument(pattern="B", timezone="America/New_York")])
    day = T0 // (1440 * M) * 1440 * M
    bus.append(0, [of("bars.1d", bars(bar("A", day, 1))), of("bars.1d", bars(bar("B", day, 1)))])
    bus.append(0, [of("trades", trades(trade("A", T0, 1)))])
    recording = recorder(bus, store)
    assert recording.step() == 2
    assert [series.symbol for series in store.coverage()] == ["A", "A"]
    assert recording.progress().set_aside == 1
    (aside,) = [one.entry for one in bus.read(0, None).entries if one.entry.channel == "rejected"]
    assert b"midnight" in aside.body
    assert recording.step() == 0
    assert recording.progress().positions == {0: bus.ends(0).last}


def test_what_the_log_lost_is_counted_and_recording_goes_on(bus: Any, store: Any, caplog: Any) -> None:
    positions = [bus.append(0, [entry(n)])[0] for n in range(5)]
    recording = recorder(bus, store)
    store.write_logged([], {"0": None}, {"0": encode_position(positions[0])})
    bus.trim(Retention(bytes=0), {0: positions[2]})
    recording = recorder(bus, store)
    assert recording.step() == 2
    assert recording.progress().lost == 1
    assert "lost" in caplog.text
    caplog.clear()


def test_of_two_recorders_one_writes(bus: Any, store: Any) -> None:
    bus.append(0, [entry(1)])
    one, other = recorder(bus, store), recorder(bus, store)
    one.step()
    stop = threading.Event()
    bus.append(0, [entry(2)])
    thread = threading.Thread(target=other.run, args=(stop,))
    thread.start()
    assert other.wait(0, bus.ends(0).last, 10)
    stop.set()
    thread.join()
    assert read(store, "price", kind=Kind.TRADES) == [(1,), (2,)]


def test_a_store_that_is_full_is_tried_again(bus: Any, store: Any, caplog: Any) -> None:
    full = [True]
    write = store.write_logged

    def refuse(*given: Any) -> Any:
        if full[0]:
            raise StoreFull("no space left")
        return write(*given)

    store.write_logged = refuse
    bus.append(0, [entry(1)])
    recording, stop = recorder(bus, store), threading.Event()
    thread = threading.Thread(target=recording.run, args=(stop,))
    thread.start()
    while recording.progress().error is None:
        pass
    assert "no space left" in (recording.progress().error or "")
    full[0] = False
    assert recording.wait(0, bus.ends(0).last, 10)
    assert recording.progress().error is None
    stop.set()
    thread.join()
    assert "trying again" in caplog.text
    caplog.clear()


def test_positions_are_kept_as_texts() -> None:
    assert decode_position(encode_position(Position(17, 4))) == Position(17, 4)


FAILPOINTS = ("record.taken", "record.written")
OTHERS = (
    "write.rows.inserted",
    "store.transaction.before_commit",
    "store.transaction.committed",
    "log.append.committed",
)


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("name", [*FAILPOINTS, *OTHERS])
def test_killed_anywhere_it_goes_on_with_neither_loss_nor_duplicate(name: str, nth: int, tmp_path: Path) -> None:
    for armed, expected in ((f"{name}=kill@{nth}", -9), ("", 0)):
        run = subprocess.run(
            [sys.executable, "-m", "tests.unit.record.life", str(tmp_path), "600"],
            env={**os.environ, ENVIRONMENT: armed},
            cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert run.returncode == expected, run.stderr
    store, bus = DuckDBStore(tmp_path / "data"), SQLiteBus(tmp_path / "log")
    try:
        stored = read(store, "price", kind=Kind.TRADES)
        assert sorted(price for (price,) in stored) == list(range(600))
        assert store.recorded().positions == {"0": encode_position(bus.ends(0).last)}
    finally:
        bus.close()
        store.close()
