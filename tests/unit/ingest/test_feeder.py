"""What a feed has is handed in when it is due, once, whatever the log says."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from tests.contract.stores import trade, trades
from tests.unit.ingest.test_desk import logged

from tapehouse.bus.memory import MemoryBus
from tapehouse.errors import LogFull
from tapehouse.ingest.base import Gap
from tapehouse.ingest.desk import Desk
from tapehouse.ingest.feeder import Feeder
from tapehouse.model import Kind
from tapehouse.sources.base import Batch
from tapehouse.sources.sim import SimFeed, SimMarket
from tapehouse.store.tables import conform


class Script:
    """A feed that gives a batch at each time it is asked, until there are no more."""

    name, heartbeat_s = "script", 60.0

    def __init__(self, *batches: Batch) -> None:
        self._batches = list(batches)

    def next(self, now_ns: int) -> list[Batch]:
        return [self._batches.pop(0)]

    def next_due_ns(self) -> int | None:
        return time.time_ns() if self._batches else None


def batch(*prices: float, skipped: int = 0) -> Batch:
    now = time.time_ns()
    (rows,) = trades(*(trade("A", now, price) for price in prices)).to_batches()
    return Batch(Kind.TRADES, None, rows, skipped)


def test_all_of_it_is_handed_in_and_numbered() -> None:
    bus = MemoryBus()
    desk = Desk(bus, conform)
    Feeder(Script(batch(1, 2), batch(3), batch(4, skipped=2)), desk).run(threading.Event())
    assert logged(bus) == [1, 2, 3, 4]
    (source,) = desk.sources()
    assert (source.source, source.last, source.heartbeat_s, source.missing) == ("script", 5, 60.0, 2)


def test_what_the_log_has_no_room_for_waits(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    from tapehouse.ingest import feeder

    monkeypatch.setattr(feeder, "_PAUSE_S", 0.001)
    bus = MemoryBus()
    desk = Desk(bus, conform)
    append, refusals = bus.append, [3]

    def full(*given: Any) -> Any:
        refusals[0] -= 1
        if refusals[0] >= 0:
            raise LogFull("no room")
        return append(*given)

    monkeypatch.setattr(bus, "append", full)
    Feeder(Script(batch(1, 2), batch(3)), desk).run(threading.Event())
    assert logged(bus) == [1, 2, 3]
    assert caplog.text.count("trying again") == 1
    caplog.clear()


def test_a_gap_is_told_by_the_desk() -> None:
    desk = Desk(MemoryBus(), conform)
    receipts = []
    take = desk.take
    desk.take = lambda arrival: receipts.append(take(arrival)) or receipts[-1]  # type: ignore[func-returns-value,method-assign]
    Feeder(Script(batch(1), batch(2, skipped=3)), desk).run(threading.Event())
    assert [receipt.gap for receipt in receipts] == [None, Gap(1, 3)]


def test_a_market_feeds_until_told_to_stop() -> None:
    bus, stop = MemoryBus(), threading.Event()
    desk = Desk(bus, conform)
    market = SimMarket(5, seed=1, trades_per_s=2_000, start_ns=time.time_ns())
    feeding = threading.Thread(target=Feeder(SimFeed(market), desk).run, args=(stop,))
    feeding.start()
    end = time.monotonic() + 20
    while desk.counts()["accepted"] < 500:
        assert time.monotonic() < end
        time.sleep(0.01)
    stop.set()
    feeding.join(20)
    assert not feeding.is_alive()
    assert desk.counts()["rejected"] == 0
