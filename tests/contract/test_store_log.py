"""Stores that keep up with a log: rows and positions together or not at all, each record once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.stores import T0, M, bar, bars, quote, read, table, trade, trades

from tapehouse.errors import Conflict, InvalidTable
from tapehouse.model import Interval, Kind, OnConflict
from tapehouse.store.base import Capability, LoggedWrite, Recorded
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore


def logged(kind: Kind, rows: Any, interval: Interval | None = None, **options: Any) -> LoggedWrite:
    return LoggedWrite(kind=kind, table=rows, interval=interval, **options)


def of(store: Any, kind: Kind, *columns: str, **selection: Any) -> list[tuple[Any, ...]]:
    return read(store, *columns, kind=kind, **selection)


def test_rows_of_all_kinds_and_the_position_are_written_together(store: Any) -> None:
    assert Capability.KEEPS_UP in store.capabilities
    assert store.recorded() == Recorded(0, {})
    commits = store.write_logged(
        [
            logged(Kind.TRADES, trades(trade("A", T0, 10), trade("B", T0, 20))),
            logged(Kind.QUOTES, table(Kind.QUOTES, [quote("C", T0, 1, 2)])),
            logged(Kind.BARS, bars(bar("A", T0, 10)), Interval.M1),
        ],
        {"0": None},
        {"0": b"seven"},
    )
    assert [(commit.number, commit.kind, commit.inserted) for commit in commits] == [
        (1, Kind.TRADES, 2),
        (2, Kind.QUOTES, 1),
        (3, Kind.BARS, 1),
    ]
    assert store.recorded() == Recorded(3, {"0": b"seven"})
    assert of(store, Kind.TRADES, "symbol", "price") == [("A", 10.0), ("B", 20.0)]
    assert of(store, Kind.QUOTES, "symbol", "bid") == [("C", 1.0)]
    assert read(store, "symbol", "close") == [("A", 10.0)]
    assert store.symbols() == ["A", "B", "C"]
    assert [commit.recorded for commit in store.commits()] == sorted({commit.recorded for commit in store.commits()})


def test_a_position_alone_is_kept(store: Any) -> None:
    assert store.write_logged([], {"0": None}, {"0": b"1"}) == []
    assert store.write_logged([], {"0": b"1"}, {"0": b"2", "1": b"0"}) == []
    assert store.recorded() == Recorded(0, {"0": b"2", "1": b"0"})


def test_they_are_still_there_after_a_restart(home: Any) -> None:
    home.store.write_logged([logged(Kind.TRADES, trades(trade("A", T0, 10)))], {"0": None}, {"0": b"1"})
    if home.backend.persists:
        store = home.reopen()
        assert store.recorded() == Recorded(1, {"0": b"1"})
        assert of(store, Kind.TRADES, "price") == [(10.0,)]


def test_of_two_who_record_the_same_one_fails(store: Any) -> None:
    write = [logged(Kind.TRADES, trades(trade("A", T0, 10)))]
    store.write_logged(write, {"0": None}, {"0": b"1"})
    for before in ({"0": None}, {"0": b"0"}):
        with pytest.raises(Conflict, match="partition 0"):
            store.write_logged(write, before, {"0": b"1"})
    assert len(of(store, Kind.TRADES, "price")) == 1
    store.write_logged(write, {"1": None}, {"1": b"1"})


def test_a_bad_row_leaves_nothing_behind(store: Any) -> None:
    with pytest.raises(InvalidTable):
        store.write_logged(
            [
                logged(Kind.TRADES, trades(trade("A", T0, 10))),
                logged(Kind.BARS, bars(bar("A", T0 + 1, 1)), Interval.M1),
            ],
            {"0": None},
            {"0": b"1"},
        )
    assert store.recorded() == Recorded(0, {})
    assert store.symbols() == []


def test_identical_records_are_records_of_their_own(store: Any) -> None:
    """Two trades of one price, size and time are legitimate, also when they come in two pieces of the log."""
    same = trade("A", T0, 10, source="x")
    store.write_logged([logged(Kind.TRADES, trades(same, same))], {}, {"0": b"1"})
    store.write_logged(
        [logged(Kind.TRADES, trades(same, trade("A", T0, 11, source="x"), trade("A", T0, 10, source="y")))],
        {},
        {"0": b"2"},
    )
    store.write_logged([logged(Kind.TRADES, trades(trade("A", T0 + 1, 9), same))], {}, {"0": b"3"})
    found = of(store, Kind.TRADES, "price", "source", "ordinal", end=T0 + 1)
    assert sorted(found) == [(10, "x", 0), (10, "x", 1), (10, "x", 2), (10, "x", 3), (10, "y", 0), (11, "x", 0)]


def test_records_with_an_id_are_told_apart_by_it(store: Any) -> None:
    one = trade("A", T0, 10, id="1", source="x")
    store.write_logged([logged(Kind.TRADES, trades(one))], {}, {"0": b"1"})
    (commit,) = store.write_logged([logged(Kind.TRADES, trades(one, {**one, "id": "2"}))], {}, {"0": b"2"})
    assert (commit.inserted, commit.unchanged) == (1, 1)
    assert of(store, Kind.TRADES, "id") == [("1",), ("2",)]


def test_own_replaces_what_its_source_wrote_and_nothing_else(store: Any) -> None:
    store.write(Kind.BARS, bars(bar("A", T0, 1, source="vendor")), interval=Interval.M1)
    mine = bars(bar("A", T0, 2, source="derived"), bar("A", T0 + M, 2, source="derived"))
    (commit,) = store.write_logged([logged(Kind.BARS, mine, Interval.M1, on_conflict=OnConflict.OWN)], {}, {"0": b"1"})
    assert (commit.inserted, commit.rejected) == (1, 1)
    store.write(
        Kind.BARS, bars(bar("A", T0 + M, 3, source="derived")), interval=Interval.M1, on_conflict=OnConflict.OWN
    )
    assert read(store, "close", "source") == [(1, "vendor"), (3, "derived")]
    store.write(Kind.BARS, bars(bar("A", T0 + M, 4, source="vendor")), interval=Interval.M1)
    store.write(
        Kind.BARS, bars(bar("A", T0 + M, 5, source="derived")), interval=Interval.M1, on_conflict=OnConflict.OWN
    )
    assert read(store, "close", "source") == [(1, "vendor"), (4, "vendor")]
    assert read(store, "close", source="derived") == [(2,), (5,)]


def test_changes_that_came_from_the_log_are_announced_in_order(store: Any) -> None:
    heard = []
    store.subscribe(lambda change: heard.append((change.commit, change.kind, change.symbols)))
    store.write_logged(
        [
            logged(Kind.TRADES, trades(trade("A", T0, 10))),
            logged(Kind.BARS, bars(bar("B", T0, 1)), Interval.M1),
        ],
        {},
        {"0": b"1"},
    )
    assert heard == [(1, Kind.TRADES, ("A",)), (2, Kind.BARS, ("B",))]


def test_the_position_and_the_commit_are_of_one_moment(store: Any) -> None:
    """Every row up to the position, and none beyond it, can be read as of the commit."""
    stop = threading.Event()

    def write() -> None:
        number, before = 0, None
        while not stop.is_set():
            after = str(number).encode()
            store.write_logged([logged(Kind.TRADES, trades(trade("A", T0 + number, 1)))], {"0": before}, {"0": after})
            number, before = number + 1, after

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            recorded = store.recorded()
            rows = of(store, Kind.TRADES, "timestamp", as_of=recorded.commit)
            assert len(rows) == int(recorded.positions.get("0", b"-1")) + 1
    finally:
        stop.set()
        writer.join()


PRICES = st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 2), st.integers(1, 2)), max_size=6)


@given(pieces=st.lists(PRICES, max_size=5))
def test_nothing_is_lost_whatever_is_equal(pieces: list[list[tuple[str, int, int]]], tmp_path_factory: Any) -> None:
    duckdb = DuckDBStore(tmp_path_factory.mktemp("store") / "data")
    stores: list[Any] = [MemoryStore(), duckdb]
    try:
        for number, piece in enumerate(pieces):
            rows = trades(*(trade(symbol, T0 + time, price) for symbol, time, price in piece))
            for store in stores:
                store.write_logged([logged(Kind.TRADES, rows)], {}, {"0": str(number).encode()})
        expected = sorted((symbol, T0 + time, float(price)) for piece in pieces for symbol, time, price in piece)
        columns = ("symbol", "timestamp", "price", "ordinal")
        found = [of(store, Kind.TRADES, *columns) for store in stores]
        assert found[0] == found[1]
        assert sorted(row[:3] for row in found[0]) == expected
    finally:
        duckdb.close()
