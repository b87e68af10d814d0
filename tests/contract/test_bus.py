"""Every bus: what is appended is read in order, by everyone, at their own pace; what is lost is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.buses import BUSES, DURABLE, LIMITED, Open, entry, fill, prices

from tapehouse.bus.base import Committed, Lost, Retention, partition_of
from tapehouse.model import Position


def _marked(names: Any) -> list[Any]:
    return [pytest.param(name, marks=getattr(BUSES[name], "marks", ())) for name in names]


@pytest.fixture(params=_marked(BUSES))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a bus of that kind, at one place."""
    yield from _opened(request.param, tmp_path)


@pytest.fixture(params=_marked(DURABLE))
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """The same of those that keep what they have."""
    yield from _opened(request.param, tmp_path)


@pytest.fixture(params=_marked(LIMITED))
def limited(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """The same of those that have a limit."""
    yield from _opened(request.param, tmp_path)


def _opened(name: str, folder: Path) -> Iterator[Open]:
    buses = []
    with BUSES[name](folder) as place:

        def open_(**options: Any) -> Any:
            buses.append(place(**options))
            return buses[-1]

        yield open_
        for bus in buses:
            bus.close()


def test_what_is_appended_is_read_in_order_and_numbered_without_a_gap(opened: Open) -> None:
    bus = opened()
    positions = bus.append(0, [entry(1, 2), entry(3)]) + bus.append(0, [entry(4)])
    assert [at.offset for at in positions] == [0, 1, 2]
    assert len({at.epoch for at in positions}) == 1
    assert prices(bus) == [1, 2, 3, 4]
    assert prices(bus, positions[0]) == [3, 4]
    assert prices(bus, positions[2]) == []
    assert prices(bus, limit=1) == [1, 2]
    assert prices(bus, max_bytes=1) == [1, 2]
    assert [logged.position for logged in bus.read(0, None).entries] == positions
    ends = bus.ends(0)
    assert (ends.first, ends.next, ends.last) == (0, 3, positions[2])
    assert ends.since == 1_700_000_000 * 10**9
    assert ends.bytes > 0


def test_an_empty_log_can_be_read(opened: Open) -> None:
    bus = opened()
    ends = bus.ends(0)
    assert (ends.first, ends.next, ends.last.offset, ends.since) == (0, 0, -1, None)
    assert bus.read(0, None) == ([], None)
    assert bus.read(0, ends.last) == ([], None)


def test_who_waits_hears_of_the_next_entry(opened: Open) -> None:
    bus = opened()
    (at,) = bus.append(0, [entry(1)])
    started = time.monotonic()
    assert bus.read(0, at, wait_s=0.05).entries == []
    assert time.monotonic() - started >= 0.04
    heard: list[float] = []
    waiting = threading.Thread(target=lambda: heard.extend(prices(bus, at, wait_s=20)))
    waiting.start()
    bus.append(0, [entry(2)])
    waiting.join(20)
    assert heard == [2]


def test_closing_wakes_who_waits(opened: Open) -> None:
    bus = opened()
    (at,) = bus.append(0, [entry(1)])
    ended = threading.Event()

    def wait() -> None:
        try:
            bus.read(0, at, wait_s=100)
        finally:
            ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.05)
    bus.close()
    assert ended.wait(20)
    waiting.join(20)


def test_many_at_once_are_each_whole_and_in_their_own_order(opened: Open) -> None:
    bus = opened()

    def append(producer: int) -> None:
        for number in range(30):
            bus.append(0, [entry(producer * 1_000 + number), entry(producer * 1_000 + number + 0.5)])

    producers = [threading.Thread(target=append, args=(n,)) for n in range(4)]
    for each in producers:
        each.start()
    for each in producers:
        each.join()
    found = prices(bus)
    assert len(found) == 240
    for producer in range(4):
        own = [price for price in found if price // 1_000 == producer]
        assert own == sorted(own)
    assert all(second == first + 0.5 for first, second in zip(found[::2], found[1::2], strict=True))


def test_a_group_goes_on_where_it_was_with_what_it_knew(opened: Open) -> None:
    bus = opened()
    first, second = bus.append(0, [entry(1), entry(2)])
    assert bus.committed("derive") == Committed()
    bus.commit("record", {0: first})
    bus.commit("derive", {0: first}, b"state")
    assert bus.committed("derive") == Committed({0: first}, b"state")
    bus.commit("derive", {0: second})
    assert bus.committed("derive") == Committed({0: second}, b"state")
    bus.commit("record", {0: second})
    assert bus.committed("record") == Committed({0: second})
    assert bus.groups() == ["derive", "record"]


def test_a_large_state_is_kept(opened: Open) -> None:
    bus = opened()
    (at,) = bus.append(0, [entry(1)])
    state = bytes(range(256)) * 16_384
    bus.commit("derive", {0: at}, state)
    assert bus.committed("derive") == Committed({0: at}, state)


def test_a_reader_from_another_epoch_or_the_future_is_told_what_it_lost(opened: Open) -> None:
    bus = opened()
    (at,) = bus.append(0, [entry(1)])
    for wrong in (Position(at.epoch - 1, 0), Position(at.epoch, 7), Position(at.epoch + 1, 0)):
        piece = bus.read(0, wrong)
        assert piece.lost == Lost(after=wrong, first=at)
        assert [logged.position for logged in piece.entries] == [at]


def test_what_is_trimmed_is_told_and_what_is_protected_stays(opened: Open) -> None:
    bus = opened()
    positions = [bus.append(0, [entry(*[number] * 50)])[0] for number in range(20)]
    assert bus.trim(Retention(age_s=0), {0: positions[9]}) >= 0
    first = bus.ends(0).first
    assert first <= 10
    assert prices(bus, positions[9])[::50] == list(range(10, 20))
    if first:
        lost = bus.read(0, Position(positions[0].epoch, -1)).lost
        assert lost == Lost(after=Position(positions[0].epoch, -1), first=positions[first])


def test_a_full_log_takes_nothing_and_loses_nothing(limited: Open) -> None:
    bus = limited(max_bytes=200_000)
    taken = len(list(fill(bus)))
    assert taken > 10
    assert bus.ends(0).next == taken
    assert prices(bus, limit=10_000)[::100] == list(range(taken))


def test_it_is_all_there_when_it_is_opened_again(durable: Open) -> None:
    bus = durable()
    positions = [bus.append(0, [entry(*[number] * 50)])[0] for number in range(60)]
    bus.commit("record", {0: positions[30]}, b"known")
    bus.close()
    again = durable()
    assert prices(again)[::50] == list(range(60))
    assert again.committed("record") == Committed({0: positions[30]}, b"known")
    assert again.append(0, [entry(60)])[0] == Position(positions[0].epoch, 60)


def test_a_symbol_has_one_partition_for_ever(opened: Open) -> None:
    assert [partition_of(symbol, 8) for symbol in ("AAPL", "BTC-USDT", "東京")] == [4, 7, 7]
    bus = opened()
    assert bus.join("record").partitions() == frozenset(range(bus.partitions))
