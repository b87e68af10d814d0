"""Quotes whose sides do not fit, and trades beside quotes and bars."""

from __future__ import annotations

import numpy as np
from tests.unit.bulk.checks.series import found, quotes

from tapehouse.bulk.checks.base import Severity
from tapehouse.bulk.checks.quotes import outside_bars, outside_quotes


def test_crossed_and_locked_quotes_are_told_apart() -> None:
    rows = quotes()
    rows["ask"][100:110] = rows["bid"][100:110]
    rows["ask"][200:203] = rows["bid"][200:203] - 0.01
    seen = found(rows)
    assert {rule: (each.count, each.severity) for rule, each in seen.items()} == {
        "crossed": (3, Severity.WARNING),
        "locked": (10, Severity.INFO),
    }
    assert seen["crossed"].examples[0].value == f"bid {rows['bid'][200]:.10g}, ask {rows['ask'][200]:.10g}"


def test_a_quote_with_one_side_has_no_spread() -> None:
    rows = quotes()
    rows["bid"][100] = 0
    rows["ask"][100] = 2 * rows["ask"][100]
    assert not {"crossed", "locked", "wide-spread"} & set(found(rows))


def test_a_spread_far_above_the_usual_one_is_said() -> None:
    rows = quotes()
    rows["ask"][300] *= 1.2
    assert "wide-spread" in found(rows)


def test_trades_are_held_against_the_newest_quote() -> None:
    stamps, bid, ask = np.array([10, 20, 30]), np.array([9.99, 19.99, 0.0]), np.array([10.01, 20.01, 30.0])
    times = np.array([5, 10, 15, 20, 25, 35])
    prices = np.array([1.0, 10.05, 20.0, 20.0, 10.0, 5.0])
    assert outside_quotes(times, prices, stamps, bid, ask).tolist() == [False, False, True, False, True, False]
    assert not outside_quotes(times, prices, stamps[:0], bid[:0], ask[:0]).any()


def test_trades_are_held_against_the_bar_that_they_are_in() -> None:
    stamps, low, high = np.array([0, 10, 30]), np.array([9.0, 19.0, 29.0]), np.array([11.0, 21.0, 31.0])
    times = np.array([-1, 0, 9, 10, 25, 39, 40])
    prices = np.array([50.0, 10.0, 20.0, 20.0, 50.0, 25.0, 50.0])
    assert outside_bars(times, prices, stamps, low, high, 10).tolist() == [0, 0, 1, 0, 0, 1, 0]
    assert not outside_bars(times, prices, stamps[:0], low[:0], high[:0], 10).any()
