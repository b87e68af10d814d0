"""Measures per symbol or group and time bucket, against the slowest and plainest way to compute them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tests.contract.stores import T0, M, bar, bars, trade, trades, tuples, write

from tapehouse.errors import InvalidRequest
from tapehouse.model import TIMESTAMP, Interval, Kind, OnConflict
from tapehouse.store.base import Aggregation, Selection

MEASURES = ("open", "high", "low", "close", "volume", "vwap", "count", "trades", "return", "volatility")
FIVE_MINUTES = np.arange(T0, T0 + 100 * M, 5 * M)

Row = dict[str, Any]


def random_bars(seed: int, symbols: str = "ABC", minutes: int = 60) -> list[Row]:
    """Bars with prices that move, holes, and columns that some rows lack."""
    random, rows = np.random.default_rng(seed), []
    for symbol in symbols:
        for n in range(minutes):
            if random.random() < 0.3:
                continue
            low, open_, close, high = sorted(random.uniform(1, 100, 4))
            row = {"symbol": symbol, "timestamp": T0 + n * M, "open": open_, "high": high, "low": low, "close": close}
            row |= {"volume": float(random.integers(0, 5)), "vwap": close if random.random() < 0.8 else None}
            rows.append(row | {"trades": int(random.integers(0, 9)) if random.random() < 0.9 else None})
    return rows


def plain(rows: Sequence[Row], edges: Sequence[int], measures: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of an aggregate of bars, by definition."""
    result = []
    for symbol in sorted({row["symbol"] for row in rows}):
        before = None
        for start, end in pairwise(edges):
            inside = [row for row in rows if row["symbol"] == symbol and start <= row["timestamp"] < end]
            if inside:
                inside.sort(key=lambda row: row["timestamp"])
                values = plain_measures(inside, before)
                before = values["close"]
                result.append((symbol, start, *(values[name] for name in measures)))
    return result


def plain_measures(rows: Sequence[Row], before: float | None) -> dict[str, Any]:
    closes = [rows[0]["open"], *(row["close"] for row in rows)]
    volume = sum(row["volume"] for row in rows)
    prices = [row["close"] if row["vwap"] is None else row["vwap"] for row in rows]
    turnover = sum(price * row["volume"] for price, row in zip(prices, rows, strict=True))
    trades = [row["trades"] for row in rows]
    return {
        "open": rows[0]["open"],
        "high": max(row["high"] for row in rows),
        "low": min(row["low"] for row in rows),
        "close": rows[-1]["close"],
        "volume": volume,
        "vwap": turnover / volume if volume else None,
        "count": len(rows),
        "trades": None if None in trades else sum(trades),
        "return": None if before is None else rows[-1]["close"] / before - 1,
        "volatility": math.sqrt(sum(math.log(b / a) ** 2 for a, b in pairwise(closes))),
    }


def about(rows: list[tuple[Any, ...]]) -> Any:
    """The rows with numbers that need not agree in their last bits, since sums may be taken in any order."""
    return [tuple(pytest.approx(v, rel=1e-12) if isinstance(v, float) else v for v in row) for row in rows]


def aggregate(
    store: Any, edges: Any = FIVE_MINUTES, measures: Any = MEASURES, groups: Any = None, **selection: Any
) -> list[tuple[Any, ...]]:
    if selection.setdefault("kind", Kind.BARS) is Kind.BARS:
        selection.setdefault("interval", Interval.M1)
    by_symbol = edges if callable(edges) else lambda symbol: edges
    return tuples(store.aggregate(Selection(**selection), by_symbol, Aggregation(measures=measures, groups=groups)))


@pytest.mark.parametrize("seed", range(3))
def test_every_measure_is_what_its_definition_says(store: Any, seed: int) -> None:
    rows = random_bars(seed)
    store.write(Kind.BARS, bars(*rows), interval=Interval.M1)
    assert aggregate(store) == about(plain(rows, FIVE_MINUTES.tolist(), MEASURES))


@pytest.mark.parametrize("measure", MEASURES)
def test_each_measure_stands_alone(store: Any, measure: str) -> None:
    rows = random_bars(7, symbols="A")
    store.write(Kind.BARS, bars(*rows), interval=Interval.M1)
    assert aggregate(store, measures=(measure,)) == about(plain(rows, FIVE_MINUTES.tolist(), (measure,)))


def test_the_columns_have_names_and_types(store: Any) -> None:
    for rows in ([], [bar("A", T0, 1)]):
        write(store, *rows)
        for groups, name in ((None, "symbol"), ({"g": ["A"]}, "group")):
            measures = ("volume", "count", "trades", "return")
            table = store.aggregate(
                Selection(interval=Interval.M1), lambda _: FIVE_MINUTES, Aggregation(measures=measures, groups=groups)
            )
            assert table.column_names == [name, "timestamp", *measures]
            assert table.schema.field("timestamp").type == TIMESTAMP
            assert [str(table.schema.field(m).type) for m in measures] == ["double", "int64", "int64", "double"]
            assert table.num_rows == len(rows)


def test_buckets_end_where_the_next_one_starts_to_the_nanosecond(store: Any) -> None:
    write(store, *(bar("A", T0 + n * M, n + 2) for n in (-1, 0, 1)))
    edges = np.array([T0 - M, T0, T0 + 1, T0 + M + 1])
    assert aggregate(store, edges, ("close", "count")) == [("A", T0 - M, 1, 1), ("A", T0, 2, 1), ("A", T0 + 1, 3, 1)]


def test_buckets_may_differ_from_symbol_to_symbol(store: Any) -> None:
    write(store, *(bar(symbol, T0 + n * M, n) for symbol in "AB" for n in range(4)))
    edges = {"A": np.array([T0, T0 + 4 * M]), "B": np.array([T0, T0 + M, T0 + 4 * M])}
    assert aggregate(store, edges.__getitem__, ("close",)) == [("A", T0, 3), ("B", T0, 0), ("B", T0 + M, 3)]


def test_only_the_rows_of_the_selection_count(store: Any) -> None:
    write(store, *(bar(symbol, T0 + n * M, n + 1) for symbol in "AB" for n in range(5)), source="x")
    write(store, bar("A", T0, 50), source="y", on_conflict=OnConflict.KEEP)
    write(store, bar("A", T0, 70), source="x")
    edges, measures = np.array([T0, T0 + 10 * M]), ("open", "count")
    assert aggregate(store, edges, measures, symbols=("A",)) == [("A", T0, 70, 5)]
    assert aggregate(store, edges, measures, symbols=("A",), as_of=2) == [("A", T0, 1, 5)]
    assert aggregate(store, edges, measures, source="y") == [("A", T0, 50, 1)]
    span = {"start": T0 + M, "end": T0 + 3 * M}
    assert aggregate(store, edges, measures, **span) == [("A", T0, 2, 2), ("B", T0, 2, 2)]
    assert aggregate(store, edges, measures, symbols=("nobody",)) == []


def test_limit_order_and_columns_do_not_matter(store: Any) -> None:
    write(store, *(bar("A", T0 + n * M, n) for n in range(5)))
    found = aggregate(store, measures=("open", "close"), limit=2, newest_first=True, columns=("volume",))
    assert found == [("A", T0, 0, 4)]


def test_trades_are_aggregated_too(store: Any) -> None:
    rows = [trade("A", T0 + n * M // 2, price, size) for n, (price, size) in enumerate([(10, 1), (30, 3), (20, 2)])]
    store.write(Kind.TRADES, trades(*rows))
    found = aggregate(store, np.array([T0, T0 + M, T0 + 2 * M]), kind=Kind.TRADES)
    volatility = pytest.approx(math.log(3))
    assert found == [
        ("A", T0, 10, 30, 10, 30, 4, 25, 2, 2, None, volatility),
        ("A", T0 + M, 20, 20, 20, 20, 2, 20, 1, 1, pytest.approx(-1 / 3), 0),
    ]


class TestGroups:
    def test_a_group_adds_up_its_members_that_are_there(self, store: Any) -> None:
        rows = [bar(s, T0 + n * M, p + n, volume=v) for s, p, v in (("A", 10, 1), ("B", 20, 3)) for n in range(10)]
        write(store, *rows, bar("C", T0, 1))
        measures = ("volume", "vwap", "count", "return")
        found = aggregate(store, groups={"pair": ["B", "A", "nobody", "A"], "none": ["nobody"]}, measures=measures)
        mean_return = ((19 / 14 - 1) + (29 / 24 - 1)) / 2
        assert found == [
            ("pair", T0, 20, pytest.approx((12 + 3 * 22) / 4), 10, None),
            ("pair", T0 + 5 * M, 20, pytest.approx((17 + 3 * 27) / 4), 10, pytest.approx(mean_return)),
        ]

    def test_a_symbol_may_be_in_two_and_the_selection_narrows_them(self, store: Any) -> None:
        write(store, *(bar(s, T0, 1, volume=v) for s, v in (("A", 1.0), ("B", 2.0), ("C", 4.0))))
        groups = {"y": ["A", "B"], "x": ["B", "C"]}
        assert aggregate(store, groups=groups, measures=("volume",)) == [("x", T0, 6), ("y", T0, 3)]
        narrow = aggregate(store, groups=groups, measures=("volume",), symbols=("A", "B"))
        assert narrow == [("x", T0, 2), ("y", T0, 3)]

    def test_a_group_has_no_price(self, store: Any) -> None:
        with pytest.raises(InvalidRequest):
            aggregate(store, groups={"g": ["A"]}, measures=("open",))


@pytest.mark.parametrize(
    "wrong",
    [
        {"measures": ("nothing",)},
        {"measures": ()},
        {"kind": Kind.QUOTES},
        {"interval": None},
        {"kind": Kind.TRADES, "interval": Interval.M1},
    ],
)
def test_what_cannot_be_computed_is_refused(store: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        aggregate(store, **wrong)
