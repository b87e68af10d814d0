"""What a read returns: which rows, which columns, in which order, in pages; and what is held at all."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from tests.contract.stores import T0, M, bar, bars, closes, read, trade, trades, tuples, write

from tapehouse.errors import InvalidRequest, UnknownColumn
from tapehouse.model import (
    DAY_NS,
    DEFAULT_COLUMNS,
    HOUR_NS,
    MAX_TIME_NS,
    MIN_TIME_NS,
    PROVENANCE,
    SCHEMAS,
    SECOND_NS,
    Interval,
    Kind,
    read_schema,
)
from tapehouse.store.base import Key, Selection, Series

YEAR_2024 = 1_704_067_200 * SECOND_NS
SUMMER_TIME = 1_710_054_000 * SECOND_NS
"""2024-03-10T07:00Z: in New York the clock jumps from 2:00 to 3:00."""
LEAP_DAY = 1_709_164_800 * SECOND_NS
BOUNDARIES = [0, YEAR_2024, SUMMER_TIME, LEAP_DAY, YEAR_2024 + DAY_NS, YEAR_2024 + HOUR_NS, -DAY_NS]


class TestSpan:
    def test_start_is_inside_and_end_is_not(self, store: Any) -> None:
        write(store, *(bar("A", T0 + n * M, n) for n in range(5)))
        assert closes(store, start=T0 + M, end=T0 + 3 * M) == [("A", 1, 1), ("A", 2, 2)]

    @pytest.mark.parametrize("boundary", BOUNDARIES)
    @pytest.mark.parametrize("interval", [Interval.S1, Interval.M1, Interval.H1, Interval.D1])
    def test_one_nanosecond_either_side_of_a_boundary(self, store: Any, boundary: int, interval: Interval) -> None:
        step = interval.nanos
        boundary = boundary // step * step
        write(store, *(bar("A", boundary + n * step, n + 5) for n in (-1, 0, 1)), interval=interval)
        for start, end, expected in [
            (boundary - step, boundary, [4]),
            (boundary - step + 1, boundary + 1, [5]),
            (boundary, boundary + 1, [5]),
            (boundary + 1, boundary + step, []),
            (boundary + 1, boundary + step + 1, [6]),
            (boundary, MAX_TIME_NS, [5, 6]),
            (MIN_TIME_NS, boundary, [4]),
            (boundary, boundary, []),
            (boundary + 1, boundary - 1, []),
        ]:
            found = read(store, "timestamp", "close", interval=interval, start=start, end=end)
            assert found == [(boundary + (value - 5) * step, value) for value in expected]

    @pytest.mark.parametrize("boundary", BOUNDARIES)
    def test_one_nanosecond_between_trades(self, store: Any, boundary: int) -> None:
        store.write(Kind.TRADES, trades(*(trade("A", boundary + n, n + 5) for n in (-1, 0, 1))))
        for start, end, expected in [
            (boundary - 1, boundary, [4]),
            (boundary, boundary + 1, [5]),
            (boundary + 1, boundary + 2, [6]),
            (boundary, MAX_TIME_NS, [5, 6]),
            (MIN_TIME_NS, boundary, [4]),
            (boundary, boundary, []),
            (boundary + 1, boundary - 1, []),
        ]:
            found = read(store, "timestamp", "price", kind=Kind.TRADES, start=start, end=end)
            assert found == [(boundary + value - 5, value) for value in expected]

    def test_the_first_and_the_last_time_that_there_is(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", MIN_TIME_NS, 1), trade("A", MAX_TIME_NS - 1, 2)))
        of_trades = {"kind": Kind.TRADES}
        assert read(store, "timestamp", "price", **of_trades) == [(MIN_TIME_NS, 1), (MAX_TIME_NS - 1, 2)]
        assert read(store, "price", start=MAX_TIME_NS - 1, **of_trades) == [(2,)]
        assert read(store, "price", end=MIN_TIME_NS + 1, **of_trades) == [(1,)]


class TestOrder:
    @pytest.fixture(autouse=True)
    def _rows(self, store: Any) -> None:
        # Written neither by symbol nor by time, in several commits.
        write(store, *(bar(s, T0 + n * M, n) for n in (3, 0) for s in ("b", "É", "A")))
        write(store, *(bar(s, T0 + n * M, n) for n in (1, 2) for s in ("BRK.B", "A", "É", "b")))

    def test_by_symbol_as_python_compares_strings_then_by_time(self, store: Any) -> None:
        expected = [(s, n, n) for s in ("A", "BRK.B", "b", "É") for n in range(4) if s != "BRK.B" or n in (1, 2)]
        assert closes(store) == expected
        assert closes(store, symbols=("É", "A", "b", "BRK.B")) == expected

    def test_newest_first_within_each_symbol(self, store: Any) -> None:
        found = closes(store, newest_first=True, symbols=("b", "A"))
        assert found == [(s, n, n) for s in "Ab" for n in (3, 2, 1, 0)]

    @pytest.mark.parametrize("newest_first", [False, True])
    def test_a_limit_counts_over_all_symbols(self, store: Any, newest_first: bool) -> None:
        everything = closes(store, newest_first=newest_first)
        for limit in (0, 1, 4, 5, 14, 15, 10**12):
            assert closes(store, newest_first=newest_first, limit=limit) == everything[:limit]

    @pytest.mark.parametrize("newest_first", [False, True])
    @pytest.mark.parametrize("limit", [1, 3, 4])
    def test_pages_meet_without_a_gap_or_a_repetition(self, store: Any, newest_first: bool, limit: int) -> None:
        everything = read(store, "symbol", "timestamp", newest_first=newest_first)
        found: list[Any] = []
        while page := read(
            store,
            "symbol",
            "timestamp",
            newest_first=newest_first,
            limit=limit,
            after=Key(*found[-1]) if found else None,
        ):
            found += page
            assert len(found) <= len(everything)
        assert found == everything

    def test_a_page_may_go_on_after_a_row_that_is_not_there(self, store: Any) -> None:
        assert closes(store, after=Key("A", T0 + 2 * M + 5), limit=2) == [("A", 3, 3), ("BRK.B", 1, 1)]
        assert closes(store, after=Key("Z", T0), limit=1) == [("b", 0, 0)]
        assert closes(store, after=Key("É", T0 + 3 * M)) == []


class TestSymbols:
    def test_none_means_all_and_none_at_all_means_none(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("B", T0, 2))
        assert closes(store) == [("A", 0, 1), ("B", 0, 2)]
        assert closes(store, symbols=()) == []

    def test_unknown_ones_have_no_rows_and_twice_is_once(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("B", T0, 2))
        assert closes(store, symbols=("nobody", "B", "B")) == [("B", 0, 2)]

    def test_a_prefix_is_another_symbol(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("AA", T0, 2), bar("a", T0, 3))
        assert closes(store, symbols=("A",)) == [("A", 0, 1)]

    def test_an_empty_store_answers(self, store: Any) -> None:
        assert (closes(store), store.symbols(), store.coverage(), store.commits(), store.head()) == ([], [], [], [], 0)
        assert store.latest(Kind.BARS, interval=Interval.M1).num_rows == 0


class TestColumns:
    @pytest.mark.parametrize(
        "columns", [None, ("close",), ("commit", "source", "symbol"), ("vwap", "timestamp", "open")]
    )
    @pytest.mark.parametrize("rows", [0, 2])
    def test_the_schema_is_the_models_in_the_order_asked_for(self, store: Any, columns: Any, rows: int) -> None:
        write(store, *(bar("A", T0 + n * M, n) for n in range(rows)))
        with store.read(Selection(interval=Interval.M1, columns=columns)) as reading:
            assert reading.schema == read_schema(Kind.BARS, columns)
            table = reading.table()
        assert (table.schema, table.num_rows) == (read_schema(Kind.BARS, columns), rows)
        latest = store.latest(Kind.BARS, interval=Interval.M1, columns=columns)
        assert (latest.schema, latest.num_rows) == (read_schema(Kind.BARS, columns), min(rows, 1))

    def test_without_names_it_is_the_default_ones(self, store: Any) -> None:
        write(store, bar("A", T0, 1, vwap=3.0))
        assert read(store) == [("A", T0, 1, 1, 1, 1, 1)]
        assert store.read(Selection(interval=Interval.M1)).schema.names == list(DEFAULT_COLUMNS[Kind.BARS])

    def test_every_column_comes_back_as_it_was_written(self, store: Any) -> None:
        row = {
            "symbol": "A",
            "timestamp": T0,
            "open": 0.1,
            "high": 3e300,
            "low": -5.25,
            "close": 1 / 3,
            "volume": 2.0**53,
        }
        row |= {"vwap": 5e-324, "trades": 2**62 + 1, "adj_close": -0.1, "source": "file: a b.csv"}
        write(store, row, bar("A", T0 + M, 1))
        first, second = read(store, *SCHEMAS[Kind.BARS].names, *PROVENANCE)
        assert first == (*row.values(), 1)
        assert second == ("A", T0 + M, 1, 1, 1, 1, 1, None, None, None, "unknown", 1)

    @pytest.mark.parametrize("columns", [("nothing",), ("close", "bid"), ("close", "close")])
    def test_one_that_is_not_there_or_twice_is_refused(self, store: Any, columns: tuple[str, ...]) -> None:
        with pytest.raises(UnknownColumn):
            store.read(Selection(interval=Interval.M1, columns=columns))
        with pytest.raises(UnknownColumn):
            store.latest(Kind.BARS, interval=Interval.M1, columns=columns)

    def test_the_batches_add_up_to_the_table(self, store: Any) -> None:
        rows = bars(*(bar(f"S{n % 5}", T0 + n * M, n) for n in range(5_000)))
        store.write(Kind.BARS, rows, interval=Interval.M1)
        selection = Selection(interval=Interval.M1)
        batches = list(store.read(selection))
        assert pa.Table.from_batches(batches).num_rows == 5_000
        assert tuples(pa.Table.from_batches(batches)) == tuples(store.read(selection).table())

    def test_a_reading_may_be_closed_before_its_end(self, store: Any) -> None:
        write(store, *(bar("A", T0 + n * M, n) for n in range(100)))
        reading = store.read(Selection(interval=Interval.M1))
        reading.close()
        reading.close()
        assert len(closes(store)) == 100


class TestWrongQuestions:
    @pytest.mark.parametrize(("kind", "interval"), [(Kind.BARS, None), (Kind.TRADES, Interval.M1)])
    def test_bars_need_an_interval_and_others_have_none(self, store: Any, kind: Kind, interval: Any) -> None:
        with pytest.raises(InvalidRequest):
            store.read(Selection(kind=kind, interval=interval))
        with pytest.raises(InvalidRequest):
            store.latest(kind, interval=interval)
        with pytest.raises(InvalidRequest):
            store.delete(kind, ["A"], interval=interval)

    def test_a_limit_is_not_negative(self, store: Any) -> None:
        with pytest.raises(InvalidRequest):
            store.read(Selection(interval=Interval.M1, limit=-1))


class TestLatest:
    def test_it_is_the_current_row_with_the_greatest_time(self, store: Any) -> None:
        write(store, bar("B", T0 + M, 4), bar("A", T0 + M, 2), bar("A", T0, 1))
        write(store, bar("A", T0, 9))
        latest = store.latest(Kind.BARS, interval=Interval.M1, columns=("symbol", "close"))
        assert tuples(latest) == [("A", 2), ("B", 4)]

    def test_of_some_symbols_in_order(self, store: Any) -> None:
        write(store, *(bar(s, T0, 1) for s in "ABC"))
        latest = store.latest(Kind.BARS, ["C", "nobody", "A", "C"], interval=Interval.M1, columns=("symbol",))
        assert tuples(latest) == [("A",), ("C",)]
        assert store.latest(Kind.BARS, [], interval=Interval.M1).num_rows == 0

    def test_after_a_delete_it_is_the_one_before(self, store: Any) -> None:
        write(store, *(bar("A", T0 + n * M, n) for n in range(3)))
        store.delete(Kind.BARS, ["A"], interval=Interval.M1, start=T0 + M)
        assert tuples(store.latest(Kind.BARS, interval=Interval.M1, columns=("close",))) == [(0,)]

    def test_of_one_time_it_is_the_last_in_order(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", T0, 9, id="1"), trade("A", T0, 1, id="0"), trade("A", T0 - 1, 2)))
        assert tuples(store.latest(Kind.TRADES, columns=("price",))) == [(1,)]
        store.write(Kind.TRADES, trades(trade("A", T0, 7, id="1")))
        assert tuples(store.latest(Kind.TRADES, columns=("price",))) == [(7,)]


class TestWhatIsHeld:
    def test_first_last_and_rows_by_symbol_kind_and_interval(self, store: Any) -> None:
        store.write(Kind.TRADES, trades(trade("A", T0, 1), trade("A", T0, 1), trade("A", T0 + 7, 1)))
        write(store, bar("B", T0, 1), interval=Interval.H4)
        write(store, bar("A", T0, 1), bar("A", T0 + M, 1))
        write(store, bar("A", T0, 1), interval=Interval.H1)
        write(store, bar("A", T0, 1), interval=Interval.S5)

        def series(symbol: str, kind: Kind, interval: Interval | None, last: int, rows: int) -> Series:
            return Series(symbol=symbol, kind=kind, interval=interval, first=T0, last=last, rows=rows)

        everything = [
            series("A", Kind.BARS, Interval.S5, T0, 1),
            series("A", Kind.BARS, Interval.M1, T0 + M, 2),
            series("A", Kind.BARS, Interval.H1, T0, 1),
            series("A", Kind.TRADES, None, T0 + 7, 3),
            series("B", Kind.BARS, Interval.H4, T0, 1),
        ]
        assert store.coverage() == everything
        assert store.coverage(Kind.TRADES) == [everything[3]]
        assert store.coverage(symbols=["B", "nobody"]) == [everything[4]]
        assert store.coverage(Kind.BARS, ["A"]) == everything[:3]
        assert store.coverage(Kind.QUOTES) == store.coverage(symbols=[]) == []
        assert store.symbols() == ["A", "B"]

    def test_it_is_exact_after_replacing_rejecting_and_deleting(self, store: Any) -> None:
        def held() -> list[tuple[int, int, int]]:
            return [((s.first - T0) // M, (s.last - T0) // M, s.rows) for s in store.coverage()]

        write(store, *(bar("A", T0 + n * M, n) for n in range(10)))
        write(store, *(bar("A", T0 + n * M, 7) for n in range(5, 12)))
        assert held() == [(0, 11, 12)]
        write(store, *(bar("A", T0 + n * M, 8) for n in range(-2, 3)), on_conflict="keep")
        assert held() == [(-2, 11, 14)]
        store.delete(Kind.BARS, ["A"], interval=Interval.M1, start=T0 + 10 * M)
        assert held() == [(-2, 9, 12)]
        store.delete(Kind.BARS, ["A"], interval=Interval.M1, end=T0 + 2 * M)
        assert held() == [(2, 9, 8)]
        store.delete(Kind.BARS, ["A"], interval=Interval.M1, start=T0 + 4 * M, end=T0 + 6 * M)
        assert held() == [(2, 9, 6)]
        write(store, bar("A", T0 + 5 * M, 1), bar("A", T0 + 6 * M, 1))
        assert held() == [(2, 9, 7)]

    def test_stats_say_which_store_and_how_much(self, store: Any) -> None:
        write(store, bar("A", T0, 1), bar("A", T0 + M, 1), bar("B", T0, 1))
        write(store, bar("A", T0, 2))
        stats = store.stats()
        assert isinstance(stats["store"], str)
        assert (stats["rows"], stats["symbols"], stats["commit"]) == (3, 2, 2)
        assert [(s["kind"], s["interval"], s["rows"]) for s in stats["series"]] == [("bars", "1m", 3)]
