"""Prices that stand still and volumes that are none, for longer than the series' own activity explains."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.bulk.checks.series import T0, bars, found, freeze, look, trades

from tapehouse.bulk.checks.base import Severity
from tapehouse.bulk.checks.runs import longest
from tapehouse.model import DAY_NS, MINUTE_NS, SECOND_NS, Interval


def test_a_feed_that_stood_still_is_found_with_its_length() -> None:
    rows = bars()
    freeze(rows, 600, 700)
    (stuck,) = found(rows).values()
    assert (stuck.rule, stuck.severity, stuck.count, stuck.rows) == ("stuck", Severity.WARNING, 1, 99)
    (example,) = stuck.examples
    assert example.time == T0 + 601 * MINUTE_NS
    assert "in 100 rows, for 1.6 hours" in example.value
    assert example.expected.startswith("no more than ")


def test_bars_that_are_repeated_whole_are_stuck_too() -> None:
    rows = bars()
    for name in ("open", "high", "low", "close"):
        rows[name][600:700] = rows[name][600]
    assert "stuck" in found(rows)


def test_what_hardly_ever_moves_is_not_stuck() -> None:
    rows = bars(5_000)
    moves = np.random.default_rng(1).random(5_000) < 0.05
    price = np.round(10 + np.cumsum(np.where(moves, np.random.default_rng(2).choice([-0.01, 0.01], 5_000), 0)), 2)
    for name in ("open", "high", "low", "close"):
        rows[name] = price
    assert "stuck" not in found(rows)


@pytest.mark.parametrize("pieces", [1, 2, 7, 40])
def test_a_run_is_found_whole_across_pieces(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapehouse.bulk.checks.inspection.PIECE_ROWS", 1)
    rows = bars(2_000)
    freeze(rows, 500, 900)
    rows["volume"][1_200:1_500] = 0
    rows["high"][1_200:1_500] = rows["low"][1_200:1_500] = rows["close"][1_200:1_500]
    (one,) = look(rows, pieces=pieces)
    runs = {each.rule: (each.count, each.rows, each.examples[0].time) for each in one.findings}
    assert runs["stuck"] == (1, 399, T0 + 501 * MINUTE_NS)
    assert runs["zero-volume"] == (1, 300, T0 + 1_200 * MINUTE_NS)


def test_a_run_that_the_end_cuts_off_counts() -> None:
    rows = bars()
    freeze(rows, 1_900, 2_000)
    assert found(rows)["stuck"].rows == 99


def test_trades_at_one_price_are_stuck_only_for_long() -> None:
    rows = trades()
    rows["price"][1_000:1_600] = rows["price"][1_000]
    assert found(rows) == {}
    rows["timestamp"][1_300:] += 3_600 * SECOND_NS
    assert "stuck" in found(rows)


def test_the_longest_run_grows_with_the_share_and_the_number() -> None:
    some = longest(np.array([10, 500, 900, 900, 1_000]), np.array([1_000, 1_000, 1_000, 1_000_000, 1_000]))
    assert (np.diff(some[[0, 1, 2, 4]]) > 0).all()
    assert some[3] < some[2]
    assert np.isfinite(some).all()


def test_days_are_no_weeks() -> None:
    rows = bars(200)
    rows["timestamp"] = np.concatenate([T0 + 7 * DAY_NS * np.arange(40), T0 + DAY_NS * (274 + np.arange(160))])
    close = found(rows, interval=Interval.W1)["too-close"]
    assert (close.severity, close.count) == (Severity.ERROR, 160)
    assert close.examples[0].time == T0 + 274 * DAY_NS
    assert "too-close" not in found(rows, interval=Interval.D1)


def test_bars_without_volume_are_found_where_others_have_some() -> None:
    rows = bars()
    rows["volume"][100:200] = 0
    seen = found(rows)
    assert set(seen) == {"zero-volume", "moved-without-volume"}
    assert seen["zero-volume"].rows == 100
    assert seen["moved-without-volume"].severity is Severity.WARNING


def test_a_series_without_any_volume_is_no_fault_but_is_said() -> None:
    rows = bars()
    rows["volume"][:] = 0
    (none,) = found(rows).values()
    assert (none.rule, none.severity, none.rows) == ("no-volume", Severity.INFO, 2_000)


def test_a_volume_far_above_its_neighbours_is_said() -> None:
    rows = bars()
    rows["volume"][777] = 3_000_000
    (spike,) = found(rows).values()
    assert (spike.rule, spike.severity, spike.count) == ("volume-spike", Severity.INFO, 1)
    assert spike.examples[0].value == "3,000,000"


def test_volumes_that_grow_for_good_are_no_row_of_spikes() -> None:
    rows = bars(4_000)
    rows["volume"][2_000:] *= 1_000
    seen = found(rows)
    assert sum(each.count for each in seen.values()) < 100
