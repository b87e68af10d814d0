"""Trades and quotes: told apart by id or by values and ordinal, and by their source."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.stores import T0, counts, quote, read, table, trade, trades

from tapehouse.errors import Conflict
from tapehouse.model import SCHEMAS, Kind, OnConflict
from tapehouse.store.base import Key


def prices(store: Any, **selection: Any) -> list[Any]:
    return [price for (price,) in read(store, "price", kind=Kind.TRADES, **selection)]


class TestIds:
    def test_trades_of_one_time_are_told_apart_by_id(self, store: Any) -> None:
        rows = trades(trade("A", T0, 1, id="1"), trade("A", T0, 1, id="2"), trade("A", T0, 1, id="1"))
        assert counts(store.write(Kind.TRADES, rows)) == {"inserted": 2, "unchanged": 1}
        assert prices(store) == [1, 1]

    def test_a_correction_has_the_same_id(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", T0, 1, id="1"), trade("A", T0, 5, id="2")))
        assert counts(store.write(Kind.TRADES, trades(trade("A", T0, 2, id="1")))) == {"replaced": 1}
        assert (sorted(prices(store)), prices(store, as_of=1)) == ([2, 5], [1, 5])

    def test_ids_are_a_sources_own(self, store: Any) -> None:
        for source in ("x", "y"):
            commit = store.write(Kind.TRADES, trades(trade("A", T0, 1, id="1")), source=source)
            assert counts(commit) == {"inserted": 1}
        assert prices(store) == [1, 1]

    def test_an_id_is_a_days_own(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", T0, 1, id="1"), trade("A", T0 + 1, 2, id="1")))
        assert prices(store) == [1, 2]

    @pytest.mark.parametrize(
        ("on_conflict", "expected"), [(OnConflict.KEEP, [1]), (OnConflict.PREFER, [2]), (OnConflict.REPLACE, [2])]
    )
    def test_conflicts_are_settled_as_those_of_bars(self, store: Any, on_conflict: OnConflict, expected: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", T0, 1, id="1")))
        store.write(
            Kind.TRADES,
            trades(trade("A", T0, 2, id="1")),
            on_conflict=on_conflict,
            prefer=["nobody"] if on_conflict == "prefer" else [],
        )
        assert prices(store) == expected
        with pytest.raises(Conflict):
            store.write(Kind.TRADES, trades(trade("A", T0, 3, id="1")), on_conflict=OnConflict.ERROR)


class TestOrdinals:
    def test_identical_trades_are_legitimate(self, store: Any) -> None:
        rows = trades(*[trade("A", T0, 1)] * 3, trade("A", T0, 2))
        assert counts(store.write(Kind.TRADES, rows)) == {"inserted": 4}
        assert counts(store.write(Kind.TRADES, rows)) == {"unchanged": 4}
        assert read(store, "price", "ordinal", kind=Kind.TRADES) == [(1, 0), (1, 1), (1, 2), (2, 0)]

    def test_more_of_the_same_adds_only_what_is_more(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(*[trade("A", T0, 1)] * 2))
        assert counts(store.write(Kind.TRADES, trades(*[trade("A", T0, 1)] * 3))) == {"unchanged": 2, "inserted": 1}

    def test_a_loader_passes_its_own(self, store: Any) -> None:
        for ordinal in (0, 1, 2):
            commit = store.write(Kind.TRADES, trades(trade("A", T0, 1, ordinal=ordinal)))
            assert counts(commit) == {"inserted": 1}
        assert len(prices(store)) == 3

    def test_other_columns_are_values_and_not_part_of_the_key(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", T0, 1, side="buy")))
        assert counts(store.write(Kind.TRADES, trades(trade("A", T0, 1, side="sell")))) == {"replaced": 1}
        assert read(store, "side", kind=Kind.TRADES) == [("sell",)]

    def test_one_with_an_id_and_one_without_are_two(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", T0, 1)))
        store.write(Kind.TRADES, trades(trade("A", T0, 1, id="1")))
        assert read(store, "id", "ordinal", kind=Kind.TRADES) == [(None, 0), ("1", None)]


class TestOrder:
    def test_of_one_time_by_commit_and_place_in_it(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(*(trade("A", T0, price, id=str(price)) for price in (5, 3, 4))))
        store.write(Kind.TRADES, trades(*(trade("A", T0, price, id=str(price)) for price in (2, 6, 1))))
        assert prices(store) == [5, 3, 4, 2, 6, 1]
        assert prices(store, newest_first=True) == [1, 6, 2, 4, 3, 5]

    def test_a_correction_stands_where_its_commit_stands(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(*(trade("A", T0, price, id=str(price)) for price in (1, 2))))
        store.write(Kind.TRADES, trades(trade("A", T0, 9, id="1")))
        assert prices(store) == [2, 9]

    @pytest.mark.parametrize("newest_first", [False, True])
    def test_pages_end_and_go_on_among_rows_of_one_time(self, store: Any, newest_first: bool) -> None:
        rows = [trade("A", T0 + n // 4, n, id=str(n)) for n in range(10)]
        store.write(Kind.TRADES, trades(*rows, *(row | {"symbol": "B"} for row in rows)))
        everything = read(store, "symbol", "timestamp", "price", kind=Kind.TRADES, newest_first=newest_first)
        for n, (symbol, timestamp, _) in enumerate(everything):
            nth = sum(row[:2] == (symbol, timestamp) for row in everything[:n])
            page = read(
                store,
                *("symbol", "timestamp", "price"),
                kind=Kind.TRADES,
                newest_first=newest_first,
                after=Key(symbol, timestamp, nth),
                limit=3,
            )
            assert page == everything[n + 1 : n + 4]


class TestQuotes:
    def test_they_are_told_apart_by_all_four_numbers(self, store: Any) -> None:
        rows = [quote("A", T0, 1, 2), quote("A", T0, 1, 3), quote("A", T0, 1, 2), quote("A", T0, 1, 2, id="7")]
        assert counts(store.write(Kind.QUOTES, table(Kind.QUOTES, rows))) == {"inserted": 4}
        assert counts(store.write(Kind.QUOTES, table(Kind.QUOTES, rows))) == {"unchanged": 4}
        found = read(store, "ask", "ordinal", "id", kind=Kind.QUOTES)
        assert found == [(2, 0, None), (3, 0, None), (2, 1, None), (2, None, "7")]

    def test_a_crossed_one_and_one_without_size_are_facts(self, store: Any) -> None:
        rows = table(Kind.QUOTES, [quote("A", T0, 2, 1) | {"bid_size": 0.0}])
        store.write(Kind.QUOTES, rows)
        assert read(store, kind=Kind.QUOTES) == [("A", T0, 2, 0, 1, 1)]


def test_every_column_comes_back(store: Any) -> None:
    text = {"side": "buy", "exchange": "N", "conditions": "@ F"}
    row = trade("A", T0, 1 / 3, 0.1, **text, id="ü 1", source="x")
    store.write(Kind.TRADES, trades(row, trade("A", T0 + 1, 1)))
    names = SCHEMAS[Kind.TRADES].names
    found = read(store, *names, kind=Kind.TRADES)
    assert found[0] == tuple((row | {"ordinal": None})[name] for name in names)
    assert found[1] == ("A", T0 + 1, 1, 1, None, None, None, None, 0, "unknown")


def test_kinds_are_apart(store: Any) -> None:
    store.write(Kind.TRADES, trades(trade("A", T0, 1)))
    store.write(Kind.QUOTES, table(Kind.QUOTES, [quote("A", T0, 1, 2)]))
    assert counts(store.delete(Kind.TRADES, ["A"])) == {"deleted": 1}
    assert prices(store) == []
    assert len(read(store, kind=Kind.QUOTES)) == 1
