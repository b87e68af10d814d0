"""The interval of bars by their steps."""

from __future__ import annotations

import numpy as np
import pytest

from tapehouse.bulk.recognise.steps import interval_of, named_interval
from tapehouse.errors import UnrecognisedFile
from tapehouse.model import DAY_NS, HOUR_NS, MINUTE_NS, Interval


@pytest.mark.parametrize("interval", list(Interval)[:-1])
def test_regular_bars(interval: Interval) -> None:
    step = interval_of(None, np.arange(10) * interval.nanos, None)
    assert step.interval is interval


def test_the_most_common_step_of_each_symbol() -> None:
    times = np.repeat(np.arange(6), 3) * MINUTE_NS
    assert interval_of(["A", "B", "C"] * 6, times, None).interval is Interval.M1


def test_gaps_nights_and_newest_first_do_not_matter() -> None:
    times = np.concatenate([np.arange(50), np.arange(1_000, 1_050), [1_100, 1_109]]) * 5 * MINUTE_NS
    assert interval_of(None, times[::-1], None).interval is Interval.M5


def test_days_over_a_change_of_clocks() -> None:
    times = np.array([0, DAY_NS, 2 * DAY_NS - HOUR_NS, 3 * DAY_NS - HOUR_NS, 4 * DAY_NS])
    assert interval_of(None, times, None).interval is Interval.D1


@pytest.mark.parametrize("minutes", [[0], [0, 0], [0, 1], [0, 7, 14, 21], [0, 1, 4, 9, 16, 25.5]])
def test_what_is_not_clear_is_refused(minutes: list[float]) -> None:
    times = (np.array(minutes) * MINUTE_NS).astype(np.int64)
    with pytest.raises(UnrecognisedFile, match="--interval"):
        interval_of(None, times, None)
    assert interval_of(None, times, Interval.M1).interval is Interval.M1


def test_a_name_that_says_something_finer_is_a_contradiction() -> None:
    with pytest.raises(UnrecognisedFile, match="the name says 1m"):
        interval_of(None, np.arange(9) * HOUR_NS, Interval.M1)


@pytest.mark.parametrize(
    ("stem", "interval"),
    [
        ("AAPL_1m", "1m"),
        ("BTCUSDT-4h-2024-01", "4h"),
        ("EURUSD M15", "15m"),
        ("SPY.daily", "1d"),
        ("1m", None),
        ("D", None),
    ],
)
def test_intervals_in_names(stem: str, interval: str | None) -> None:
    assert named_interval(stem) == interval
