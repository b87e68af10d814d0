"""The pace of a load."""

from __future__ import annotations

import pytest

from tapehouse.bulk.progress import WINDOW_S, Pace


def test_nothing_is_known_at_the_beginning() -> None:
    pace = Pace(5.0, 1_000)
    assert (pace.rows_per_s, pace.eta_s) == (0.0, None)
    pace.mark(5.0, 0, 0)
    assert pace.eta_s is None


def test_rate_and_time_left() -> None:
    pace = Pace(0.0, 1_000)
    pace.mark(2.0, 250, 500)
    assert pace.rows_per_s == 250.0
    assert pace.eta_s == 6.0


def test_only_the_last_seconds_count() -> None:
    pace = Pace(0.0, 10_000)
    for second in range(1, 31):
        pace.mark(float(second), 10 * second if second <= 15 else 150 + 100 * (second - 15), 0)
    assert pace.eta_s == pytest.approx((10_000 - 1_650) / 100)
    assert WINDOW_S == 10.0


def test_never_less_than_nothing_is_left() -> None:
    pace = Pace(0.0, 100)
    pace.mark(1.0, 200, 1)
    assert pace.eta_s == 0.0
