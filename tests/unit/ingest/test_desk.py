"""Live records on their way into the log: none twice, none lost, bad ones set aside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.stores import T0, M, bar, bars, trade, trades

from tapehouse.bus.base import partition_of
from tapehouse.bus.memory import MemoryBus
from tapehouse.bus.sqlite import SQLiteBus
from tapehouse.codec.live.entries import Entry, table_of
from tapehouse.errors import InvalidRequest, InvalidTable, LogFull, Unavailable
from tapehouse.ingest.base import Arrival, Gap, Reason
from tapehouse.ingest.checks import Window
from tapehouse.ingest.desk import Desk
from tapehouse.model import HOUR_NS, SECOND_NS, Interval, Kind, Position
from tapehouse.store.tables import conform


def desk(bus: Any, now: int = T0) -> Desk:
    return Desk(bus, conform, clock=lambda: now)


def arrival(*prices: float, sequence: int | None = None, **options: Any) -> Arrival:
    """Trades at those prices, of as many symbols."""
    rows = trades(*(trade(f"S{number % 7}", T0, price) for number, price in enumerate(prices)))
    return Arrival(kind=Kind.TRADES, table=rows, source=options.pop("source", "feed"), sequence=sequence, **options)


def logged(bus: Any, channel: str = "trades") -> list[float]:
    """The prices that the log has, by partition."""
    entries = [one.entry for p in range(bus.partitions) for one in bus.read(p, None, limit=100_000).entries]
    return [price for e in entries if e.channel == channel for price in table_of(e)["price"].to_pylist()]


class Partitioned:
    """A log of several partitions in memory, which can refuse the appends that a test names."""

    survives = MemoryBus.survives

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._parts = [MemoryBus() for _ in range(partitions)]
        self._groups = MemoryBus()
        self.refuse: list[bool] = []

    def append(self, partition: int, entries: Sequence[Entry]) -> list[Position]:
        if self.refuse and self.refuse.pop(0):
            raise Unavailable("cut off")
        return self._parts[partition].append(0, entries)

    def read(self, partition: int, after: Position | None, **options: Any) -> Any:
        return self._parts[partition].read(0, after, **options)

    def ends(self, partition: int) -> Any:
        return self._parts[partition].ends(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._groups, name)


def test_what_is_accepted_is_in_the_log() -> None:
    bus = MemoryBus()
    receipt = desk(bus).take(arrival(1, 2, 3))
    assert (receipt.accepted, receipt.repeated, receipt.rejected, receipt.next) == (3, 0, 0, None)
    assert list(receipt.positions) == [0]
    (entry,) = (one.entry for one in bus.read(0, None).entries)
    assert (entry.channel, entry.source, entry.ingested, entry.rows, entry.symbols) == (
        "trades", "feed", T0, 3, ["S0", "S1", "S2"],
    )  # fmt: skip
    assert table_of(entry)["price"].to_pylist() == [1, 2, 3]
    assert "ordinal" not in table_of(entry).schema.names


def test_bars_go_to_the_channel_of_their_interval() -> None:
    bus = MemoryBus()
    desk(bus).take(Arrival(kind=Kind.BARS, table=bars(bar("A", T0, 1)), source="feed", interval=Interval.M1))
    assert bus.read(0, None).entries[0].entry.channel == "bars.1m"


def test_repeats_are_dropped_and_gaps_told() -> None:
    bus = MemoryBus()
    live = desk(bus)
    assert live.take(arrival(0, 1, 2, sequence=0)).next == 3
    again = live.take(arrival(1, 2, 3, 4, sequence=1))
    assert (again.accepted, again.repeated, again.gap, again.next) == (2, 2, None, 5)
    skipped = live.take(arrival(7, sequence=7))
    assert (skipped.accepted, skipped.gap, skipped.next) == (1, Gap(5, 6), 8)
    back = live.take(arrival(3, 4, sequence=3))
    assert (back.accepted, back.repeated, back.gap, back.next) == (0, 2, None, 8)
    assert logged(bus) == [0, 1, 2, 3, 4, 7]
    (source,) = live.sources()
    assert (source.last, source.accepted, source.repeated, source.gaps, source.missing) == (7, 6, 4, 1, 2)
    assert live.counts()["accepted"] == 6


def test_a_new_session_counts_anew_and_sources_do_not_meet() -> None:
    bus = MemoryBus()
    live = desk(bus)
    live.take(arrival(1, 2, sequence=0))
    assert live.take(arrival(3, 4, sequence=0, session="2")).accepted == 2
    assert live.take(arrival(5, 6, sequence=0, source="other")).accepted == 2
    assert logged(bus) == [1, 2, 3, 4, 5, 6]


def test_a_restart_knows_what_came(tmp_path: Path) -> None:
    bus = SQLiteBus(tmp_path / "log")
    live = desk(bus)
    live.take(arrival(0, 1, 2, sequence=0))
    live.checkpoint()
    live.take(arrival(0, 1, sequence=0, session="2"))
    live.take(arrival(float("nan"), sequence=2, session="2"))
    bus.close()
    bus = SQLiteBus(tmp_path / "log")
    live = desk(bus)
    receipt = live.take(arrival(1, float("nan"), 3, sequence=1, session="2"))
    assert (receipt.accepted, receipt.repeated, receipt.rejected, receipt.gap) == (1, 1, 0, None)
    assert [one.reason for one in live.rejected()] == [Reason.INVALID]
    bus.close()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (trade("A", T0, float("nan")), "price"),
        (trade("A", T0, float("inf")), "price"),
        (trade("A", T0, 1, size=-1), "size"),
        (trade("A B", T0, 1), "symbol"),
        (trade("", T0, 1), "symbol"),
        ({**trade("A", T0, 1), "price": None}, "price"),
    ],
)
def test_a_bad_record_is_set_aside_and_stops_no_other(bad: dict[str, Any], message: str) -> None:
    bus = MemoryBus()
    live = desk(bus)
    rows = trades(trade("A", T0, 1), bad, trade("A", T0, 2))
    receipt = live.take(Arrival(kind=Kind.TRADES, table=rows, source="feed"))
    assert (receipt.accepted, receipt.rejected) == (2, 1)
    (example,) = receipt.examples
    assert (example.row, example.reason, example.source, example.channel) == (1, Reason.INVALID, "feed", "trades")
    assert message in example.message
    assert "row 0" not in example.message
    assert live.rejected() == [example]
    assert logged(bus) == [1, 2]
    assert [one.entry.channel for one in bus.read(0, None).entries] == ["rejected", "trades"]


def test_many_bad_records_are_found_one_by_one() -> None:
    bus = MemoryBus()
    rows = [
        trade("A B" if n % 3 == 0 else "A", T0, -1 if n % 5 == 0 else n, size=-1 if n % 7 == 0 else 1)
        for n in range(500)
    ]
    receipt = desk(bus).take(Arrival(kind=Kind.TRADES, table=trades(*rows), source="feed"))
    good = [float(row["price"]) for row in rows if row["symbol"] == "A" and row["size"] > 0]
    assert logged(bus) == good
    assert receipt.rejected == 500 - len(good)


def test_times_out_of_the_window_are_set_aside_and_late_ones_counted() -> None:
    bus = MemoryBus()
    live = Desk(bus, conform, clock=lambda: T0, window=Window(future_s=5, late_s=3_600, grace_s=10))
    times = [T0 + 5 * SECOND_NS, T0 + HOUR_NS, T0 - 11 * SECOND_NS, T0 - HOUR_NS, T0 - HOUR_NS - 1]
    rows = trades(*(trade("A", time, number) for number, time in enumerate(times)))
    receipt = live.take(Arrival(kind=Kind.TRADES, table=rows, source="feed"))
    assert (receipt.accepted, receipt.late) == (3, 2)
    assert [(one.row, one.reason) for one in receipt.examples] == [(1, Reason.FUTURE), (4, Reason.TOO_LATE)]
    assert logged(bus) == [0, 2, 3]


def test_columns_that_are_no_records_are_refused_whole() -> None:
    bus = MemoryBus()
    live = desk(bus)
    for table in (pa.table({"a": [1]}), trades(trade("A", T0, 1)).drop_columns("price")):
        with pytest.raises(InvalidTable):
            live.take(Arrival(kind=Kind.TRADES, table=table, source="feed"))
    with pytest.raises(InvalidRequest):
        live.take(Arrival(kind=Kind.BARS, table=bars(bar("A", T0, 1)), source="feed"))
    with pytest.raises(InvalidTable, match="source"):
        live.take(arrival(1, source=""))
    assert bus.read(0, None).entries == []


def test_no_records_are_no_entry() -> None:
    bus = MemoryBus()
    receipt = desk(bus).take(arrival(sequence=4))
    assert (receipt.accepted, receipt.next) == (0, None)
    assert bus.read(0, None).entries == []


def test_a_full_log_refuses_and_the_same_again_is_taken_later() -> None:
    bus = MemoryBus(max_bytes=4_000)
    live = desk(bus)
    live.take(arrival(*range(10), sequence=0))
    with pytest.raises(LogFull):
        live.take(arrival(*range(10, 200), sequence=10))
    assert live.take(arrival(*range(10, 20), sequence=10)).accepted == 10
    assert logged(bus) == list(range(20))


def test_a_quiet_source_is_told_from_a_dead_one() -> None:
    now = [T0]
    live = Desk(MemoryBus(), conform, clock=lambda: now[0])
    live.take(arrival(1))
    now[0] += M
    assert not live.sources()[0].silent  # it never said how often it is heard
    live.beat("feed", 5)
    now[0] += 5 * SECOND_NS
    assert not live.sources()[0].silent
    now[0] += 1
    assert live.sources()[0].silent
    live.beat("feed")
    assert not live.sources()[0].silent
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InvalidRequest):
            live.beat("feed", wrong)


@given(
    cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)), min_size=1, max_size=12),
    refused=st.lists(st.booleans(), max_size=30),
    restarts=st.sets(st.integers(0, 11)),
)
def test_whatever_is_sent_again_or_cut_off_the_log_has_each_number_once(
    cuts: list[tuple[int, int]], refused: list[bool], restarts: set[int]
) -> None:
    """A producer that goes on where it was cut off, or earlier, loses nothing and doubles nothing."""
    bus = Partitioned(3)
    live = desk(bus)
    bus.refuse = list(refused)
    sent = 0
    for number, (back, rows) in enumerate(cuts):
        first = max(0, sent - back)
        table = trades(*(trade(f"S{n % 7}", T0, n) for n in range(first, first + rows)))
        batch = Arrival(kind=Kind.TRADES, table=table, source="feed", sequence=first)
        if number in restarts:
            live = desk(bus)
        try:
            live.take(batch)
        except Unavailable:
            bus.refuse = []
            live.take(batch)
        sent = max(sent, first + rows)
    assert sorted(logged(bus)) == list(range(sent))
    for partition in range(3):
        entries = [one.entry for one in bus.read(partition, None).entries]
        assert all(partition_of(symbol, 3) == partition for entry in entries for symbol in entry.symbols)
