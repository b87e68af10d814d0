"""What a batch brought, whatever became of it since."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pytest
from tests.contract.stores import T0, D, Home, M, bar, quote, read, table, trade, trades, tuples, write

from tapehouse.errors import InvalidRequest
from tapehouse.model import PROVENANCE, SCHEMAS, Interval, Kind, OnConflict


def written(store: Any, batch: str, *columns: str, kind: Kind = Kind.BARS) -> list[tuple[Any, ...]]:
    """Those columns of what the batch wrote, in the order of symbol, time and commit."""
    with store.written(batch, kind, Interval.M1 if kind is Kind.BARS else None) as reading:
        found = reading.table()
    assert found.column_names == [*SCHEMAS[kind].names, *PROVENANCE]
    symbols = found["symbol"].to_pylist()
    assert len(list(groupby(symbols))) <= 10 * len(set(symbols))
    order = tuples(found.select(["symbol", "timestamp", "commit"]))
    rows = tuples(found.select(list(columns)))
    return [rows[place] for place in sorted(range(len(rows)), key=order.__getitem__)]


def values(store: Any, batch: str) -> Sequence[tuple[Any, ...]]:
    return written(store, batch, "symbol", "close", "commit")


def test_it_is_every_row_that_its_commits_stored(store: Any) -> None:
    write(store, bar("A", T0, 1), bar("B", T0, 1), batch="one")
    write(store, bar("A", T0, 2), bar("C", T0 + M, 5, vwap=1.5, source="x"), batch="two")
    write(store, bar("D", T0, 7), batch="one")
    write(store, bar("E", T0, 7))
    assert values(store, "one") == [("A", 1, 1), ("B", 1, 1), ("D", 7, 3)]
    assert written(store, "two", "symbol", "timestamp", "vwap", "source") == [
        ("A", T0, None, "unknown"),
        ("C", T0 + M, 1.5, "x"),
    ]


def test_also_what_lost_was_corrected_or_deleted(store: Any) -> None:
    write(store, bar("A", T0, 1), source="x", batch="one")
    write(store, bar("A", T0, 2), bar("B", T0, 2), source="y", on_conflict=OnConflict.KEEP, batch="two")
    write(store, bar("A", T0, 3), bar("B", T0, 3), source="z", batch="three")
    store.delete(Kind.BARS, ["A", "B"], interval=Interval.M1, batch="three")
    assert [values(store, batch) for batch in ("one", "two", "three")] == [
        [("A", 1, 1)],
        [("A", 2, 2), ("B", 2, 2)],
        [("A", 3, 3), ("B", 3, 3)],
    ]


def test_what_was_unchanged_was_not_stored(store: Any) -> None:
    write(store, bar("A", T0, 1), batch="one")
    write(store, bar("A", T0, 1), bar("B", T0, 1), batch="two")
    assert values(store, "two") == [("B", 1, 2)]


def test_of_one_kind_and_interval_at_a_time(store: Any) -> None:
    write(store, bar("A", T0, 1), batch="b")
    write(store, bar("A", T0 // D * D, 2), interval=Interval.D1, batch="b")
    store.write(Kind.TRADES, trades(trade("A", T0, 3, id="7"), trade("A", T0, 3)), batch="b")
    store.write(Kind.QUOTES, table(Kind.QUOTES, [quote("A", T0, 1, 2)]), batch="b")
    assert values(store, "b") == [("A", 1, 1)]
    assert sorted(written(store, "b", "id", "ordinal", kind=Kind.TRADES), key=repr) == [("7", None), (None, 0)]
    assert written(store, "b", "bid", "ask", "ordinal", kind=Kind.QUOTES) == [(1, 2, 0)]


def test_of_a_batch_without_rows_it_is_empty(store: Any) -> None:
    write(store, bar("A", T0, 1), batch="b")
    store.delete(Kind.BARS, ["A"], interval=Interval.M1, batch="gone")
    assert values(store, "gone") == values(store, "nobody") == []
    assert written(store, "b", "price", kind=Kind.TRADES) == []


def test_it_agrees_with_a_read_of_what_is_current(home: Home) -> None:
    store = home.store
    for first in range(0, 300, 100):
        write(store, *(bar(s, T0 + n * M, n) for s in "ABC" for n in range(first, first + 100)), batch="b")
        if home.backend.persists:
            store.compact(everything=first == 100)
    columns = (*SCHEMAS[Kind.BARS].names, *PROVENANCE)
    assert written(store, "b", *columns) == read(store, *columns)
    store = home.reopen()
    assert written(store, "b", *columns) == read(store, *columns)


def test_it_shows_what_was_there_when_it_was_asked_for(store: Any) -> None:
    write(store, bar("A", T0, 1), batch="b")
    reading = store.written("b", Kind.BARS, Interval.M1)
    write(store, bar("A", T0, 2), bar("B", T0, 2), batch="b")
    assert (reading.commit, tuples(reading.table().select(["close"]))) == (1, [(1.0,)])


def test_bars_have_an_interval_and_others_none(store: Any) -> None:
    for kind, interval in ((Kind.BARS, None), (Kind.TRADES, Interval.M1)):
        with pytest.raises(InvalidRequest):
            store.written("b", kind, interval)
