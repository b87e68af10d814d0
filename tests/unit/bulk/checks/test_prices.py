"""Prices that leave the band are found for what they are, and nothing is found in clean series."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tests.unit.bulk.checks.series import T0, Columns, bars, found, joined, quotes, scale_bars, trades

from tapehouse.bulk.checks.base import Severity
from tapehouse.model import DAY_NS, HOUR_NS, MINUTE_NS, Interval


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_found_in_clean_series(seed: int) -> None:
    assert found(bars(5_000, seed=seed)) == {}
    assert found(trades(seed=seed)) == {}
    assert found(quotes(seed=seed)) == {}


def test_a_bad_print_is_a_spike_and_its_way_back_is_none() -> None:
    rows = bars()
    scale_bars(rows, 500, 1.2)
    (spike,) = found(rows).values()
    assert (spike.rule, spike.severity, spike.count, spike.rows) == ("spike", Severity.WARNING, 1, 1)
    (example,) = spike.examples
    assert example.time == T0 + 500 * MINUTE_NS
    assert example.value.startswith(f"{rows['close'][500]:.10g} after {rows['close'][499]:.10g} (+19.915 %)")
    assert "back after 1" in example.value
    assert "by its neighbours" in example.expected


@pytest.mark.parametrize("rows_away", [2, 3])
def test_a_spike_of_a_few_rows_counts_each_of_them(rows_away: int) -> None:
    rows = bars()
    scale_bars(rows, slice(500, 500 + rows_away), 0.8)
    (spike,) = found(rows).values()
    assert (spike.rule, spike.count, spike.rows) == ("spike", 1, rows_away)


def test_a_price_that_stays_away_is_a_jump() -> None:
    rows = bars()
    scale_bars(rows, slice(500, None), 1.2)
    (jump,) = found(rows).values()
    assert (jump.rule, jump.severity, jump.count) == ("jump", Severity.INFO, 1)


def test_a_decimal_point_that_slipped_is_an_error() -> None:
    rows = bars()
    scale_bars(rows, 500, 0.01)
    (slip,) = found(rows).values()
    assert (slip.rule, slip.severity) == ("decimal-slip", Severity.ERROR)


def test_prices_that_change_their_unit_are_an_error() -> None:
    rows = bars()
    scale_bars(rows, slice(1_000, None), 100)
    (unit,) = found(rows).values()
    assert (unit.rule, unit.severity, unit.count) == ("unit-change", Severity.ERROR, 1)


@pytest.mark.parametrize(
    ("factor", "name"), [(1 / 2, "2:1"), (2 / 3, "3:2"), (1 / 10, "10:1"), (5, "1:5"), (1 / 4, "4:1")]
)
def test_a_jump_by_the_ratio_of_a_split_looks_like_one(factor: float, name: str) -> None:
    rows = bars(step=DAY_NS, start=T0 // DAY_NS * DAY_NS)
    scale_bars(rows, slice(900, None), factor)
    (split,) = found(rows, Interval.D1).values()
    assert (split.rule, split.severity) == ("split-like", Severity.WARNING)
    assert split.examples[0].value.endswith(f"looks like a {name} split")


def test_the_adjusted_close_tells_a_split_from_a_crash() -> None:
    rows = bars(step=DAY_NS, start=T0 // DAY_NS * DAY_NS)
    rows["adj_close"] = rows["close"] / 2
    scale_bars(rows, slice(900, None), 0.5)
    rows["adj_close"][900:] = rows["close"][900:]
    assert list(found(rows, Interval.D1)) == ["split"]
    rows["adj_close"] = rows["close"].copy()
    assert list(found(rows, Interval.D1)) == ["jump"]


def test_a_move_after_a_pause_has_a_wider_band() -> None:
    first, second = bars(1_000), bars(1_000, seed=2, start=T0 + 1_000 * MINUTE_NS + 17 * HOUR_NS)
    scale_bars(second, slice(None), first["close"][-1] / 100 * 1.05)
    assert list(found(joined(first, second))) == ["gap"]
    scale_bars(second, slice(None), 1.5)
    assert set(found(joined(first, second))) == {"gap", "overnight-jump"}


def test_a_wick_far_outside_both_closes_is_found() -> None:
    rows = bars()
    rows["high"][700] *= 1.3
    rows["low"][800] *= 0.5
    (wick,) = found(rows).values()
    assert (wick.rule, wick.count) == ("wick", 2)
    assert wick.examples[0].value.startswith(f"high {rows['high'][700]:.10g}")


def test_a_wilder_time_is_no_row_of_spikes() -> None:
    calm, wild = bars(2_000), bars(2_000, seed=2)
    wild["close"] = np.round(100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.004, 2_000))), 2)
    wild["open"] = wild["high"] = wild["low"] = wild["close"]
    wild["timestamp"] += 2_000 * MINUTE_NS
    scale_bars(wild, slice(None), calm["close"][-1] / 100)
    assert found(joined(calm, wild)) == {}


def test_a_penny_stock_that_moves_by_ticks_is_clean() -> None:
    rows = bars(3_000)
    steps = np.random.default_rng(5).choice([-1, 0, 1], 3_000, p=[0.02, 0.96, 0.02])
    rows["close"] = np.round(0.02 + np.clip(np.cumsum(steps), -100, 100) / 10_000, 4)
    rows["open"] = rows["high"] = rows["low"] = rows["close"]
    rows["open"] = np.concatenate([rows["close"][:1], rows["close"][:-1]])
    rows["high"], rows["low"] = np.maximum(rows["open"], rows["close"]), np.minimum(rows["open"], rows["close"])
    assert found(rows) == {}


def test_a_series_that_never_moves_but_once_is_judged_by_its_mean_deviation() -> None:
    rows = bars(1_000)
    rows["open"] = rows["high"] = rows["low"] = rows["close"] = np.full(1_000, 1.0)
    scale_bars(rows, 400, 1.5)
    assert "spike" in found(rows)


def test_a_few_rows_are_only_remarked_on_when_they_differ_by_much() -> None:
    rows = bars(6)
    scale_bars(rows, 3, 2)
    assert found(rows) == {}
    rows = bars(6)
    scale_bars(rows, 3, 100)
    assert list(found(rows)) == ["decimal-slip"]


def test_prices_of_zero_and_below_are_counted_and_no_jump() -> None:
    rows = bars()
    rows["low"][300] = rows["open"][300] = rows["close"][300] = -1.0
    assert {rule: each.count for rule, each in found(rows).items()} == {"no-positive-price": 1}


@pytest.mark.parametrize("make", [trades, quotes])
def test_ticks_are_held_against_their_band(make: Callable[[], Columns]) -> None:
    rows = make()
    for name in ("price", "bid", "ask"):
        if name in rows:
            rows[name][2_000] *= 1.1
    assert list(found(rows)) == ["spike"]
