"""Many at once: a write shows as a whole or not at all, and everybody hears of it in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.contract.stores import T0, M, bar, bars, closes, counts, trade, trades, tuples, write

from tapehouse.model import Change, Interval, Kind
from tapehouse.store.base import Selection

SYMBOLS = "ABCDE"
ROWS = 40
WRITES = 15


def snapshot(value: float) -> Any:
    """A table that gives every key the same value."""
    return bars(*(bar(symbol, T0 + n * M, value) for symbol in SYMBOLS for n in range(ROWS)))


class Readers:
    """Threads that ask until told to stop; what went wrong in one is raised at the end."""

    def __init__(self, *questions: Callable[[], None]) -> None:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(len(questions))
        self._running = [self._pool.submit(self._ask, question) for question in questions]

    def _ask(self, question: Callable[[], None]) -> int:
        asked = 0
        while not self._stop.is_set():
            question()
            asked += 1
        return asked

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True)
        assert all(future.result() > 0 for future in self._running)


def test_readers_see_each_write_whole_or_not_at_all(store: Any) -> None:
    store.write(Kind.BARS, snapshot(0), interval=Interval.M1)

    def read_everything() -> None:
        with store.read(Selection(interval=Interval.M1, columns=("close", "commit"))) as reading:
            found = tuples(reading.table())
        assert len(found) == len(SYMBOLS) * ROWS
        assert set(found) == {(float(reading.commit - 1), reading.commit)}

    def read_the_past() -> None:
        commit = store.head()
        found = closes(store, as_of=commit, symbols=("C",))
        assert {close for _, _, close in found} == {commit - 1}

    def read_the_latest() -> None:
        before, latest = store.head(), store.latest(Kind.BARS, interval=Interval.M1, columns=("close",))
        assert {close >= before - 1 for (close,) in tuples(latest)} == {True}

    def count() -> None:
        assert {series.rows for series in store.coverage()} == {ROWS}

    with Readers(read_everything, read_everything, read_the_past, read_the_latest, count):
        for value in range(1, WRITES):
            store.write(Kind.BARS, snapshot(value), interval=Interval.M1)
    assert {close for _, _, close in closes(store)} == {WRITES - 1}


def test_a_delete_too_shows_whole_or_not_at_all(store: Any) -> None:
    everything = len(SYMBOLS) * ROWS

    def read_everything() -> None:
        assert len(closes(store)) in (0, everything)

    with Readers(read_everything, read_everything):
        for value in range(5):
            store.write(Kind.BARS, snapshot(value), interval=Interval.M1)
            assert counts(store.delete(Kind.BARS, list(SYMBOLS), interval=Interval.M1)) == {"deleted": everything}
    assert closes(store) == []


def test_writers_take_turns(store: Any) -> None:
    def write_own(writer: int) -> list[int]:
        return [
            store.write(
                Kind.TRADES,
                trades(*(trade("A", T0 + n, writer, id=f"{writer}.{n}.{round_}") for n in range(10))),
                source=f"w{writer}",
            ).number
            for round_ in range(5)
        ]

    with ThreadPoolExecutor(4) as pool:
        numbers = [number for numbers in pool.map(write_own, range(4)) for number in numbers]
    assert sorted(numbers) == list(range(1, 21))
    assert [series.rows for series in store.coverage()] == [200]
    assert [commit.inserted for commit in store.commits()] == [10] * 20


def test_the_same_rows_from_many_are_written_once(store: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        commits = list(pool.map(lambda _: store.write(Kind.BARS, snapshot(1), interval=Interval.M1), range(8)))
    assert sum(commit.inserted for commit in commits) == len(SYMBOLS) * ROWS
    assert sum(commit.unchanged for commit in commits) == 7 * len(SYMBOLS) * ROWS
    assert store.head() == 1


class TestAnnouncements:
    def test_every_commit_is_one_change(self, store: Any) -> None:
        changes: list[Change] = []
        store.subscribe(changes.append)
        write(store, bar("B", T0 + M, 1), bar("A", T0, 1))
        store.write(Kind.TRADES, trades(trade("C", T0, 1)))
        store.delete(Kind.BARS, ["A", "nobody"], interval=Interval.M1, start=T0, end=T0 + M)
        assert changes == [
            Change(commit=1, kind=Kind.BARS, interval=Interval.M1, symbols=("A", "B"), start=T0, end=T0 + M + 1),
            Change(commit=2, kind=Kind.TRADES, interval=None, symbols=("C",), start=T0, end=T0 + 1),
            Change(commit=3, kind=Kind.BARS, interval=Interval.M1, symbols=("A",), start=T0, end=T0 + M),
        ]

    def test_what_changed_nothing_is_none(self, store: Any) -> None:
        write(store, bar("A", T0, 1))
        changes: list[Change] = []
        store.subscribe(changes.append)
        write(store, bar("A", T0, 1))
        write(store)
        store.delete(Kind.BARS, ["B"], interval=Interval.M1)
        assert changes == []

    def test_it_covers_what_changed_and_names_no_other_symbol(self, store: Any) -> None:
        write(store, *(bar(symbol, T0 + n * M, 1) for symbol in "AB" for n in range(5)))
        changes: list[Change] = []
        store.subscribe(changes.append)
        write(store, *(bar("A", T0 + n * M, 1 if n != 2 else 9) for n in range(5)), bar("B", T0, 1))
        [change] = changes
        assert change.symbols == ("A",)
        assert change.start <= T0 + 2 * M < change.end

    def test_a_rejected_row_is_a_change_too(self, store: Any) -> None:
        write(store, bar("A", T0, 1), source="x")
        changes: list[Change] = []
        store.subscribe(changes.append)
        write(store, bar("A", T0, 2), source="y", on_conflict="keep")
        assert [(change.commit, change.symbols) for change in changes] == [(2, ("A",))]

    def test_until_unsubscribed(self, store: Any) -> None:
        first: list[Change] = []
        second: list[Change] = []
        unsubscribe = store.subscribe(first.append)
        store.subscribe(second.append)
        write(store, bar("A", T0, 1))
        unsubscribe()
        unsubscribe()
        write(store, bar("A", T0, 2))
        assert ([change.commit for change in first], [change.commit for change in second]) == ([1], [1, 2])

    def test_a_listener_that_fails_takes_nothing_from_the_others(
        self, store: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(change: Change) -> None:
            raise RuntimeError(f"no thanks for {change.commit}")

        heard: list[Change] = []
        store.subscribe(fail)
        store.subscribe(heard.append)
        assert write(store, bar("A", T0, 1)).number == 1
        assert [change.commit for change in heard] == [1]
        assert "no thanks for 1" in caplog.text

    def test_a_listener_may_read_what_it_hears_of(self, store: Any) -> None:
        heard: list[Any] = []
        store.subscribe(lambda change: heard.append((store.head(), closes(store))))
        write(store, bar("A", T0, 1))
        assert heard == [(1, [("A", 0, 1)])]

    def test_changes_come_in_order_whoever_writes(self, store: Any) -> None:
        heard: list[int] = []
        store.subscribe(lambda change: heard.append(change.commit))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: write(store, bar(f"S{n}", T0, n)), range(40)))
        assert heard == list(range(1, 41))
