"""What a table must be before any store takes it."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import InvalidRequest, InvalidSymbol, InvalidTable
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, NAME, SCHEMAS, TIMESTAMP, Interval, Kind
from tapehouse.store.tables import conform


def times(*values: int) -> pa.Array:
    return pa.array(values, TIMESTAMP)


def bars(rows: int = 3, **columns: Any) -> pa.Table:
    """Clean bars, with some columns exchanged or added (None takes one away)."""
    table: dict[str, Any] = {
        "symbol": ["A"] * rows,
        "timestamp": times(*range(rows)),
        "open": [2.0] * rows,
        "high": [3.0] * rows,
        "low": [1.0] * rows,
        "close": [2.5] * rows,
        "volume": [10.0] * rows,
    }
    table |= columns
    return pa.table({name: column for name, column in table.items() if column is not None})


def trades(rows: list[tuple[str, int, float, float]], **columns: Any) -> pa.Table:
    symbol, timestamp, price, size = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "symbol": pa.array(symbol, pa.string()),
            "timestamp": times(*timestamp),
            "price": pa.array(price, pa.float64()),
            "size": pa.array(size, pa.float64()),
            **columns,
        }
    )


def conform_bars(**columns: Any) -> pa.Table:
    return conform(Kind.BARS, bars(**columns), Interval.M1)


def refusal(**columns: Any) -> InvalidTable:
    with pytest.raises(InvalidTable) as caught:
        conform_bars(**columns)
    return caught.value


class TestColumns:
    def test_the_result_has_the_models_types_in_the_models_order(self) -> None:
        table = conform(Kind.BARS, bars(vwap=[1, 2, 3]).select(["vwap", *reversed(bars().column_names)]), Interval.M1)
        assert table.schema == pa.schema(
            [f for f in SCHEMAS[Kind.BARS] if f.name not in ("trades", "adj_close")],
        )

    def test_a_missing_required_column_is_named(self) -> None:
        assert refusal(low=None, volume=None).details["columns"] == ["low", "volume"]

    def test_an_unknown_column_is_named(self) -> None:
        assert "'bid'" in refusal(bid=[1.0] * 3).message

    def test_the_stores_own_column_is_not_taken_back(self) -> None:
        assert refusal(commit=[1, 1, 1]).details["columns"] == ["commit"]

    def test_a_column_named_twice_is_refused(self) -> None:
        table = bars().append_column("open", pa.array([1.0] * 3))
        with pytest.raises(InvalidTable, match="more than once"):
            conform(Kind.BARS, table, Interval.M1)

    def test_optional_columns_stay_absent_when_absent_or_without_a_value(self) -> None:
        table = conform_bars(vwap=pa.nulls(3), trades=pa.array([None] * 3, pa.int64()))
        assert table.column_names == [*bars().column_names, "source"]

    def test_an_empty_table_is_taken(self) -> None:
        assert conform_bars(rows=0, symbol=pa.array([], pa.string()), volume=pa.array([], pa.int64())).num_rows == 0

    def test_a_required_column_without_a_type_has_no_values(self) -> None:
        assert refusal(open=pa.nulls(3)).details == {"row": 0, "column": "open", "value": None, "expected": "a value"}

    def test_columns_of_many_chunks_and_slices_are_taken(self) -> None:
        whole = pa.concat_tables([bars(), bars(symbol=["B"] * 3), bars(symbol=["A"] * 3)]).slice(2, 5)
        table = conform(Kind.BARS, whole, Interval.M1)
        assert table["symbol"].to_pylist() == ["A", "B", "B", "B", "A"]
        assert len({chunk.dictionary.to_pylist().__repr__() for chunk in table["symbol"].chunks}) == 1


class TestInterval:
    def test_bars_need_one(self) -> None:
        with pytest.raises(InvalidRequest, match="bars need an interval"):
            conform(Kind.BARS, bars())

    def test_trades_have_none(self) -> None:
        with pytest.raises(InvalidRequest, match="trades have no interval"):
            conform(Kind.TRADES, trades([]), Interval.M1)


class TestTimes:
    @pytest.mark.parametrize(("unit", "nanos"), [("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)])
    def test_any_unit_and_zone_is_cast_exactly(self, unit: str, nanos: int) -> None:
        table = conform_bars(timestamp=pa.array([-1, 0, 7], pa.timestamp(unit, "America/New_York")))
        assert table["timestamp"].cast(pa.int64()).to_pylist() == [-nanos, 0, 7 * nanos]

    def test_a_naive_time_is_refused_and_the_message_says_why(self) -> None:
        assert "naive" in refusal(timestamp=pa.array([0, 1, 2], pa.timestamp("ns"))).message

    @pytest.mark.parametrize("column", [[0, 1, 2], ["2024-01-02"] * 3, [1.5] * 3])
    def test_what_is_no_time_is_refused(self, column: list[Any]) -> None:
        assert refusal(timestamp=pa.array(column)).details["column"] == "timestamp"

    def test_a_null_is_refused(self) -> None:
        assert refusal(timestamp=pa.array([0, None, 2], TIMESTAMP)).details["row"] == 1

    @pytest.mark.parametrize("unit", ["s", "ms", "us"])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_time_that_nanoseconds_cannot_hold_is_refused_with_its_row(self, unit: str, sign: int) -> None:
        value = sign * (MAX_TIME_NS // {"s": 10**9, "ms": 10**6, "us": 10**3}[unit] + 1)
        error = refusal(timestamp=pa.array([0, value, 2], pa.timestamp(unit, "UTC")))
        assert (error.details["row"], error.details["value"]) == (1, value)

    def test_the_first_and_last_nanosecond(self) -> None:
        table = conform_bars(timestamp=times(MIN_TIME_NS, 0, MAX_TIME_NS - 1))
        assert table["timestamp"].cast(pa.int64()).to_pylist() == [MIN_TIME_NS, 0, MAX_TIME_NS - 1]
        assert refusal(timestamp=times(0, 1, MAX_TIME_NS)).details["row"] == 2
        assert refusal(timestamp=times(0, 1, MIN_TIME_NS - 1)).details["row"] == 2


class TestNumbers:
    @pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
    def test_a_required_number_is_there_and_finite(self, value: float | None) -> None:
        error = refusal(open=[2.0, 2.0, value])
        assert (error.details["row"], error.details["column"]) == (2, "open")

    def test_the_row_is_right_in_a_later_block(self) -> None:
        rows = 200_000
        open_ = np.full(rows, 2.0)
        open_[150_001] = np.nan
        assert refusal(rows=rows, open=open_).details["row"] == 150_001
        open_[150_001] = 3.5
        assert refusal(rows=rows, open=open_).details["row"] == 150_001

    def test_an_optional_nan_is_a_missing_value_and_an_infinity_is_refused(self) -> None:
        assert conform_bars(vwap=[1.0, float("nan"), None])["vwap"].to_pylist() == [1.0, None, None]
        assert refusal(vwap=[1.0, float("inf"), None]).details["row"] == 1

    @pytest.mark.parametrize(
        "type_", [pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.decimal128(30, 2), pa.decimal256(60, 2)]
    )
    def test_other_numbers_are_cast(self, type_: pa.DataType) -> None:
        column = pa.array([7, 8, 9], pa.int64()).cast(type_)
        assert conform_bars(volume=column)["volume"].to_pylist() == [7.0, 8.0, 9.0]

    def test_an_integer_that_no_float_holds_is_refused(self) -> None:
        assert refusal(volume=[1, 2**53 + 1, 3]).details["row"] == 1

    @pytest.mark.parametrize("column", [["1", "2", "3"], [True, False, True], [b"1", b"2", b"3"]])
    def test_what_is_no_number_is_refused(self, column: list[Any]) -> None:
        assert "expected numbers" in refusal(volume=column).message

    @given(
        st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=0, max_value=10**16)),
        st.integers(0, 3),
    )
    def test_decimals_become_the_nearest_floats(self, decimals: list[Decimal], skipped: int) -> None:
        column = pa.array([*[Decimal(0)] * skipped, *decimals], pa.decimal128(38, 9)).slice(skipped)
        table = conform_bars(rows=len(decimals), volume=column, symbol=pa.array(["A"] * len(decimals), pa.string()))
        assert table["volume"].to_pylist() == [float(value) for value in decimals]

    def test_optional_decimals_keep_their_nulls(self) -> None:
        column = pa.array([Decimal("0.10"), None, Decimal("0.30")], pa.decimal128(9, 2))
        assert conform_bars(vwap=column)["vwap"].to_pylist() == [0.1, None, 0.3]

    def test_counts_may_come_as_floats_but_not_as_fractions(self) -> None:
        assert conform_bars(trades=[1.0, float("nan"), 3.0])["trades"].to_pylist() == [1, None, 3]
        assert refusal(trades=[1.0, 2.5, 3.0]).details["row"] == 1
        assert refusal(trades=[1.0, 2.0, 1e30]).details["row"] == 2

    @pytest.mark.parametrize("name", ["open", "volume", "vwap"])
    def test_negative_zero_becomes_zero(self, name: str) -> None:
        lows = {"low": [-1.0] * 3}
        for values in ([-0.0, 0.0, 1.0], [-0.0, 0.0, None]):
            if name == "vwap" or None not in values:
                column = conform_bars(**lows, **{name: values})[name]
                assert [str(value) for value in column.to_pylist()][:2] == ["0.0", "0.0"]

    def test_prices_may_be_negative(self) -> None:
        table = conform_bars(open=[-37.6] * 3, high=[-1.0] * 3, low=[-40.0] * 3, close=[-30.0] * 3)
        assert table["open"].to_pylist() == [-37.6] * 3


class TestRules:
    @pytest.mark.parametrize(
        ("column", "value", "expected"),
        [
            ("high", 1.9, "at least open, which is 2.0"),
            ("high", 2.4, "at least close, which is 2.5"),
            ("low", 2.1, "at most open, which is 2.0"),
            ("volume", -1.0, "at least 0"),
            ("trades", -1, "at least 0"),
        ],
    )
    def test_a_row_that_breaks_one_is_named(self, column: str, value: float, expected: str) -> None:
        good = {"high": 3.0, "low": 1.0, "volume": 1.0, "trades": 1}[column]
        error = refusal(**{column: [good, value, value]})
        assert error.details == {"row": 1, "column": column, "value": value, "expected": expected}
        assert f"row 1, column {column}: {value!r}; expected {expected}" in error.message

    def test_low_is_at_most_close(self) -> None:
        error = refusal(open=[2.6] * 3, close=[2.5, 2.5, 1.0], low=[1.1] * 3)
        assert (error.details["row"], error.details["column"]) == (2, "low")

    def test_counts_with_nulls_are_checked_too(self) -> None:
        assert refusal(trades=[None, 1, -1]).details["row"] == 2

    def test_a_crossed_quote_is_a_fact(self) -> None:
        quote = {"symbol": ["A"], "timestamp": times(1), "bid": [2.0], "bid_size": [0.0], "ask": [1.0]}
        assert conform(Kind.QUOTES, pa.table(quote | {"ask_size": [0.0]})).num_rows == 1
        with pytest.raises(InvalidTable, match="ask_size"):
            conform(Kind.QUOTES, pa.table(quote | {"ask_size": [-1.0]}))


class TestNames:
    @pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()])
    def test_any_text_is_dictionary_encoded(self, type_: pa.DataType) -> None:
        table = conform_bars(symbol=pa.array(["A", "B", "A"], type_))
        assert table["symbol"].type == NAME
        assert table["symbol"].to_pylist() == ["A", "B", "A"]

    @pytest.mark.parametrize("index", [pa.int8(), pa.uint16(), pa.int64()])
    @pytest.mark.parametrize("value", [pa.string(), pa.large_string(), pa.string_view()])
    def test_any_dictionary_is_taken(self, index: pa.DataType, value: pa.DataType) -> None:
        column = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1], index), pa.array(["A", "B"], value))
        assert conform_bars(symbol=column)["symbol"].to_pylist() == ["B", "A", "B"]

    @pytest.mark.parametrize("symbol", ["", "../etc", "A B", "x" * 129, "a\x00b"])
    def test_a_bad_symbol_is_refused(self, symbol: str) -> None:
        with pytest.raises(InvalidSymbol):
            conform_bars(symbol=["A", symbol, "A"])

    def test_a_null_symbol_is_refused_with_its_row(self) -> None:
        assert refusal(symbol=["A", "B", None]).details["row"] == 2

    def test_only_names_that_rows_have_are_checked(self) -> None:
        column = pa.DictionaryArray.from_arrays(pa.array([1, 1, 2]), pa.array(["not a symbol", "A", "A", None]))
        encoded = conform_bars(symbol=column)["symbol"]
        assert encoded.chunk(0).dictionary.to_pylist() == ["A"]

    def test_a_null_in_the_dictionary_is_a_null(self) -> None:
        column = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1]), pa.array(["A", None]))
        assert refusal(symbol=column).details["row"] == 0

    def test_a_dictionary_index_outside_is_refused(self) -> None:
        column = pa.DictionaryArray.from_arrays(pa.array([0, 5, 0]), pa.array(["A"]), safe=False)
        assert "damaged" in refusal(symbol=column).message

    def test_text_that_is_not_utf8_is_refused(self) -> None:
        column = pa.array([b"A", b"\xff", b"A"]).cast(pa.string(), safe=False)
        assert "damaged" in refusal(symbol=column).message

    def test_numbers_are_no_names(self) -> None:
        assert "expected text" in refusal(symbol=[1, 2, 3]).message


class TestSource:
    def test_it_is_unknown_when_nobody_names_one(self) -> None:
        assert conform_bars()["source"].to_pylist() == ["unknown"] * 3

    def test_the_given_one_fills_only_what_is_missing(self) -> None:
        table = conform(Kind.BARS, bars(source=["x", None, "y"]), Interval.M1, "file:a.csv")
        assert table["source"].to_pylist() == ["x", "file:a.csv", "y"]
        assert table["source"].type == NAME

    @pytest.mark.parametrize("source", ["", "a\nb", "x" * 257])
    def test_a_bad_one_is_refused(self, source: str) -> None:
        with pytest.raises(InvalidTable, match="source"):
            conform(Kind.BARS, bars(), Interval.M1, source)
        with pytest.raises(InvalidTable, match="source"):
            conform_bars(source=[source, "a", "b"])


def counted(rows: list[tuple[Any, ...]]) -> list[int]:
    """The ordinal of each row, counted in the plainest way."""
    seen: Counter[tuple[Any, ...]] = Counter()
    ordinals = []
    for row in rows:
        ordinals.append(seen[row])
        seen[row] += 1
    return ordinals


ROWS = st.lists(
    st.tuples(st.sampled_from("ABC"), st.integers(0, 4), st.sampled_from([-0.0, 0.0, 1.5]), st.sampled_from([1.0, 2.0]))
)


class TestOrdinals:
    @given(ROWS, st.sampled_from(["as they come", "by time", "by symbol and time"]), st.integers(0, 5))
    def test_they_count_equal_rows_in_the_order_of_the_table(self, rows: list[Any], order: str, cut: int) -> None:
        if order != "as they come":
            rows = sorted(rows, key=lambda row: row[1] if order == "by time" else row[:2])
        table = pa.concat_tables([trades(rows[:cut]), trades(rows[cut:])])
        assert conform(Kind.TRADES, table)["ordinal"].to_pylist() == counted(rows)

    @given(st.lists(st.tuples(st.sampled_from([None, "x", "y"]), st.sampled_from([None, "1", "2"]))))
    def test_by_source_and_only_without_an_id(self, names: list[tuple[str | None, str | None]]) -> None:
        sources = pa.array([source for source, _ in names], pa.string())
        ids = pa.array([id_ for _, id_ in names], pa.string())
        table = conform(Kind.TRADES, trades([("A", 1, 1.0, 1.0)] * len(names), source=sources, id=ids))
        anonymous = [source or "unknown" for source, id_ in names if id_ is None]
        expected = iter(counted([(source,) for source in anonymous]))
        assert table["ordinal"].to_pylist() == [None if id_ else next(expected) for _, id_ in names]

    def test_quotes_count_by_all_four_numbers(self) -> None:
        columns = {"bid": [1.0] * 3, "bid_size": [1.0] * 3, "ask": [2.0] * 3, "ask_size": [1.0, 2.0, 1.0]}
        table = pa.table({"symbol": ["A"] * 3, "timestamp": times(5, 5, 5), **columns})
        assert conform(Kind.QUOTES, table)["ordinal"].to_pylist() == [0, 0, 1]

    def test_a_given_one_is_kept(self) -> None:
        table = trades([("A", 1, 1.0, 1.0)] * 2, ordinal=[7, 3])
        assert conform(Kind.TRADES, table)["ordinal"].to_pylist() == [7, 3]

    @pytest.mark.parametrize("ordinal", [[0, None], [0, -1], [0, 2**31], [0, 0.5]])
    def test_a_bad_one_is_refused(self, ordinal: list[Any]) -> None:
        with pytest.raises(InvalidTable, match="ordinal"):
            conform(Kind.TRADES, trades([("A", 1, 1.0, 1.0)] * 2, ordinal=ordinal))

    def test_one_beside_an_id_is_dropped(self) -> None:
        table = trades([("A", 1, 1.0, 1.0)] * 2, ordinal=[4, 5], id=["x", None])
        assert conform(Kind.TRADES, table)["ordinal"].to_pylist() == [None, 5]


@given(ROWS)
def test_conforming_twice_changes_nothing(rows: list[Any]) -> None:
    once = conform(Kind.TRADES, trades(rows))
    assert conform(Kind.TRADES, once).equals(once)
