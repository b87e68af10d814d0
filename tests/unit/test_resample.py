"""Resampling and measures, against a plain loop over rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import InvalidRequest
from tapehouse.model import HOUR_NS, MINUTE_NS, SECOND_NS, Interval
from tapehouse.resample import MEASURES, Measured, Rows, choose, combine, measure, member_measures, resample

FIXED = [interval for interval in Interval if not interval.by_calendar]


@st.composite
def rows(draw: st.DrawFn, *, step: int = SECOND_NS, span: int = 2 * HOUR_NS) -> Rows:
    """Bars at distinct multiples of `step`; whole volumes and prices in quarters, so that sums are exact."""
    slots = sorted(draw(st.sets(st.integers(-span // step, span // step), max_size=60)))
    n = len(slots)
    column = st.lists(st.integers(1, 4_000), min_size=n, max_size=n)
    prices = np.sort(np.array([draw(column) for _ in range(4)], np.float64).reshape(4, n) / 4, axis=0)
    return Rows(
        times=np.array(slots, np.int64) * step,
        open=prices[1],
        high=prices[3],
        low=prices[0],
        close=prices[2],
        volume=np.array(draw(st.lists(st.integers(0, 1_000), min_size=n, max_size=n)), np.float64),
        vwap=prices[1],
        trades=np.array(draw(st.lists(st.integers(-1, 50), min_size=n, max_size=n)), np.int64),
        adj_close=prices[0],
    )


def edges_of(interval: Interval, span: int = 2 * HOUR_NS) -> np.ndarray:
    count = span // interval.nanos + 1
    return np.arange(-count, count + 1, dtype=np.int64) * interval.nanos


def assert_same(left: Rows, right: Rows) -> None:
    for name in ("times", "open", "high", "low", "close", "volume", "trades", "adj_close"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    np.testing.assert_allclose(left.vwap, right.vwap, rtol=1e-12)


@given(rows=rows(), interval=st.sampled_from(FIXED))
def test_resample_agrees_with_a_plain_loop(rows: Rows, interval: Interval) -> None:
    edges = edges_of(interval)
    bars = resample(rows, edges)
    buckets: dict[int, list[int]] = {}
    for i, time in enumerate(rows.times.tolist()):
        buckets.setdefault(time // interval.nanos * interval.nanos, []).append(i)
    assert bars.rows.times.tolist() == sorted(buckets)
    assert edges[bars.buckets].tolist() == sorted(buckets)
    for at, (_, members) in enumerate(sorted(buckets.items())):
        volume = [float(rows.volume[i]) for i in members]
        turnover = sum(float(rows.vwap[i]) * float(rows.volume[i]) for i in members)  # type: ignore[index]
        assert bars.parts[at] == len(members)
        assert bars.rows.open[at] == rows.open[members[0]]
        assert bars.rows.high[at] == max(rows.high[i] for i in members)
        assert bars.rows.low[at] == min(rows.low[i] for i in members)
        assert bars.rows.close[at] == rows.close[members[-1]]
        assert bars.rows.volume[at] == sum(volume)
        expected = turnover / sum(volume) if sum(volume) else math.nan
        assert bars.rows.vwap[at] == pytest.approx(expected, nan_ok=True)  # type: ignore[index]


@given(
    rows=rows(),
    pair=st.sampled_from([(a, b) for a in FIXED for b in FIXED if a.divides(b)]),
)
def test_resampling_twice_is_resampling_once(rows: Rows, pair: tuple[Interval, Interval]) -> None:
    fine, coarse = pair
    once = resample(rows, edges_of(coarse)).rows
    twice = resample(resample(rows, edges_of(fine)).rows, edges_of(coarse)).rows
    assert_same(twice, once)


@given(rows=rows(), cut=st.integers(-2 * HOUR_NS // MINUTE_NS, 2 * HOUR_NS // MINUTE_NS))
def test_cutting_the_edges_anywhere_changes_no_bar(rows: Rows, cut: int) -> None:
    edges = edges_of(Interval.M1)
    at = cut + (len(edges) - 1) // 2
    whole = resample(rows, edges).rows
    halves = Rows.concat([resample(rows, edges[: at + 1]).rows, resample(rows, edges[at:]).rows])
    assert_same(halves, whole)


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_a_nanosecond_decides_the_bucket(offset: int) -> None:
    edges = np.array([0, MINUTE_NS, 2 * MINUTE_NS], np.int64)
    one = np.ones(1)
    bars = resample(Rows.of_trades(np.array([MINUTE_NS + offset]), one, one), edges)
    assert bars.buckets.tolist() == [0 if offset < 0 else 1]


def test_rows_outside_the_edges_are_left_out() -> None:
    times = np.array([-1, 0, 9, 10], np.int64)
    price = np.array([100.0, 2.0, 3.0, 200.0])
    bars = resample(Rows.of_trades(times, price, np.ones(4)), np.array([0, 10], np.int64))
    assert (bars.rows.open[0], bars.rows.high[0], bars.rows.low[0], bars.rows.close[0]) == (2, 3, 2, 3)
    assert bars.parts.tolist() == [2]


def test_no_rows_give_no_bars() -> None:
    none = Rows.of_trades(np.empty(0, np.int64), np.empty(0), np.empty(0))
    assert len(resample(none, np.array([0, 10], np.int64)).rows) == 0
    assert measure(none, np.array([0, 10], np.int64), MEASURES).values["volatility"].tolist() == []


def test_trades_of_a_bar_are_unknown_when_a_part_does_not_know_its_own() -> None:
    times = np.arange(4, dtype=np.int64)
    ones = np.ones(4)
    rows = Rows(times, ones, ones, ones, ones, ones, trades=np.array([3, 4, 5, -1]))
    bars = resample(rows, np.array([0, 2, 4], np.int64))
    assert bars.rows.trades.tolist() == [7, -1]  # type: ignore[union-attr]


def test_a_part_without_a_vwap_makes_the_bar_without_one_unless_it_has_no_volume() -> None:
    times = np.arange(4, dtype=np.int64)
    ones = np.ones(4)
    vwap = np.array([2.0, np.nan, 2.0, np.nan])
    rows = Rows(times, ones, ones, ones, ones, np.array([1.0, 1.0, 1.0, 0.0]), vwap=vwap)
    bars = resample(rows, np.array([0, 2, 4], np.int64))
    np.testing.assert_array_equal(bars.rows.vwap, [np.nan, 2.0])


def test_concat_fills_a_column_that_one_part_lacks() -> None:
    one = np.ones(1)
    bare = Rows(np.zeros(1, np.int64), one, one, one, one, one)
    both = Rows.concat([bare, Rows.of_trades(np.ones(1, np.int64), one, one)])
    np.testing.assert_array_equal(both.vwap, [np.nan, 1.0])
    assert both.trades.tolist() == [-1, 1]  # type: ignore[union-attr]
    assert both.adj_close is None


def test_choose_takes_the_best_coverage_and_the_coarser_of_equals() -> None:
    coverage = np.array([[0.5, 1.0, 0.0, 0.0], [0.6, 1.0, 0.1, 0.0]])
    assert choose(coverage).tolist() == [1, 0, 1, -1]
    assert choose(np.empty((0, 2))).tolist() == [-1, -1]


def test_measures_of_bars() -> None:
    rows = Rows(
        times=np.array([0, 5, 10, 20], np.int64),
        open=np.array([10.0, 11.0, 12.0, 5.0]),
        high=np.array([12.0, 13.0, 12.0, 6.0]),
        low=np.array([9.0, 10.0, 11.0, 4.0]),
        close=np.array([11.0, 12.0, 9.0, 6.0]),
        volume=np.array([1.0, 3.0, 2.0, 0.0]),
        trades=np.array([2, 3, 4, 5]),
    )
    measured = measure(rows, np.array([0, 10, 20, 30, 40], np.int64), MEASURES)
    assert measured.buckets.tolist() == [0, 1, 2]
    expected = {
        "open": [10, 12, 5],
        "high": [13, 12, 6],
        "low": [9, 11, 4],
        "close": [12, 9, 6],
        "volume": [4, 2, 0],
        "vwap": [(11 + 36) / 4, 9, math.nan],
        "count": [2, 1, 1],
        "trades": [5, 4, 5],
        "return": [math.nan, 9 / 12 - 1, 6 / 9 - 1],
        "volatility": [
            math.hypot(math.log(11 / 10), math.log(12 / 11)),
            abs(math.log(9 / 12)),
            abs(math.log(6 / 5)),
        ],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(measured.values[name], values, err_msg=name)


def test_prices_that_are_not_positive_have_no_volatility_and_zero_no_return_after_it() -> None:
    price = np.array([-1.0, 0.0, 2.0])
    rows = Rows.of_trades(np.array([0, 10, 20], np.int64), price, np.ones(3))
    measured = measure(rows, np.array([0, 10, 20, 30], np.int64), ["return", "volatility"])
    np.testing.assert_array_equal(measured.values["return"], [np.nan, -1.0, np.nan])
    np.testing.assert_array_equal(measured.values["volatility"], [np.nan, np.nan, 0.0])


def test_a_group_sums_volume_and_averages_returns() -> None:
    edges = np.array([0, 10, 20], np.int64)
    one = Rows.of_trades(np.array([0, 10], np.int64), np.array([10.0, 11.0]), np.array([1.0, 2.0]))
    two = Rows.of_trades(np.array([10], np.int64), np.array([20.0]), np.array([2.0]))
    measures = ["vwap", "volume", "count", "trades", "return"]
    measured = combine([measure(rows, edges, member_measures(measures)) for rows in (one, two)], measures)
    assert measured.buckets.tolist() == [0, 1]
    np.testing.assert_allclose(measured.values["volume"], [1, 4])
    np.testing.assert_allclose(measured.values["vwap"], [10, 15.5])
    np.testing.assert_allclose(measured.values["count"], [1, 2])
    np.testing.assert_allclose(measured.values["trades"], [1, 2])
    np.testing.assert_allclose(measured.values["return"], [np.nan, 0.1])


def test_a_group_without_members_is_empty() -> None:
    assert combine([], ["volume"]).values["volume"].tolist() == []


def test_a_member_is_measured_for_what_its_group_needs() -> None:
    assert member_measures(["return"]) == ("return",)
    assert member_measures(["vwap", "count"]) == ("vwap", "count", "volume")


def test_the_mean_is_over_the_members_that_have_a_value() -> None:
    one = Measured(np.array([0, 1]), {"volatility": np.array([np.nan, 0.25])})
    two = Measured(np.array([1]), {"volatility": np.array([0.75])})
    np.testing.assert_array_equal(combine([one, two], ["volatility"]).values["volatility"], [np.nan, 0.5])


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_group_has_no_price(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"a group has no {name}"):
        member_measures([name])


@pytest.mark.parametrize(("measures", "message"), [(["sharpe"], "unknown measure 'sharpe'"), ([], "no measures")])
def test_measures_that_are_not_there(measures: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        measure(Rows.of_trades(np.empty(0, np.int64), np.empty(0), np.empty(0)), np.zeros(1, np.int64), measures)
