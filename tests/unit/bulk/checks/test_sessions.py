"""Rows against calendars: what is missing, what should not be there, and what a series' own activity explains."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.bulk.checks.series import (
    ALL_DAY,
    NEW_YORK,
    T0,
    Columns,
    bars,
    found,
    kind_of,
    look,
    table,
    trades,
    without,
)

from tapehouse.calendars import timeline
from tapehouse.model import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS, Interval
from tapehouse.query.gaps import coverage_of
from tapehouse.store.base import Reading, Selection, Series


def at(times: np.ndarray, seed: int = 1) -> Columns:
    """Bars at those times."""
    return bars(len(times), seed=seed) | {"timestamp": times}


def sessions(interval: Interval, days: int = 60) -> np.ndarray:
    """The stamps of New York's bars."""
    return timeline(NEW_YORK).expected(interval, T0, T0 + days * DAY_NS).stamps()


@pytest.mark.parametrize("interval", [Interval.M1, Interval.M30, Interval.H1, Interval.D1, Interval.W1, Interval.MO1])
def test_bars_by_the_calendar_are_clean(interval: Interval) -> None:
    rows = at(sessions(interval, 120 if interval.nanos >= DAY_NS else 12))
    (one,) = look(rows, interval, instruments=[NEW_YORK])
    assert [each.rule for each in one.findings] == []
    assert (one.tally.expected, one.tally.missing, one.tally.holes) == (one.tally.rows, 0, 0)


def test_a_missing_session_is_said_with_its_bars() -> None:
    times = sessions(Interval.M1, 12)
    rows = without(at(times), slice(390, 780))
    (one,) = look(rows, instruments=[NEW_YORK])
    (missing,) = one.findings
    assert (missing.rule, missing.count, missing.rows) == ("missing-session", 1, 390)
    assert missing.examples[0].value == "1 sessions without a row, until 2024-01-04T14:30:00Z"
    assert missing.examples[0].expected == "all of XNYS"
    assert (one.tally.missing, one.tally.holes, one.tally.expected) == (390, 390, len(times))
    assert one.tally.warnings == 0


def test_a_single_missing_day_counts() -> None:
    (missing,) = found(without(at(sessions(Interval.D1)), slice(20, 21)), Interval.D1, instruments=[NEW_YORK]).values()
    assert (missing.rule, missing.count, missing.rows) == ("missing-session", 1, 1)


def test_a_gap_within_a_session_is_found() -> None:
    rows = without(at(sessions(Interval.M1, 12)), slice(400, 460))
    (gap,) = found(rows, instruments=[NEW_YORK]).values()
    assert (gap.rule, gap.count, gap.rows) == ("gap", 1, 60)
    assert gap.examples[0].value.startswith("60 bars missing in 1.0 hours, until 2024-01-03T")


def test_minutes_in_which_nothing_was_traded_are_missing_but_no_hole() -> None:
    times = sessions(Interval.M1, 30)
    thin = np.random.default_rng(1).random(len(times)) < 0.6
    thin[[0, -1]] = False
    (one,) = look(without(at(times), thin), instruments=[NEW_YORK])
    assert one.tally.missing == thin.sum()
    assert one.tally.holes == 0
    assert [each.rule for each in one.findings] == []


def test_missing_bars_are_those_that_coverage_counts() -> None:
    times = sessions(Interval.M1, 30)
    gone = np.random.default_rng(2).random(len(times)) < 0.2
    gone[3_000:3_500] = True
    gone[[0, -1]] = False
    rows = without(at(times), gone)
    (one,) = look(rows, instruments=[NEW_YORK])
    whole = table(rows).select(["timestamp"])

    def read(_: Selection) -> Reading:
        return Reading(whole.schema, 1, iter(whole.to_batches()))

    series = Series(
        symbol="A", kind=kind_of(rows), interval=Interval.M1, first=one.first, last=one.last, rows=whole.num_rows
    )
    coverage = coverage_of(read, series, NEW_YORK, 1, 10)
    assert (one.tally.expected, one.tally.missing) == (coverage.expected, coverage.missing_bars)


def test_bars_on_a_closed_date_and_outside_hours_are_told_apart() -> None:
    times = sessions(Interval.M1, 12)
    saturday = np.array([T0 + 4 * DAY_NS + n * MINUTE_NS for n in range(5)])
    early = np.array([T0 + 1 * DAY_NS - HOUR_NS + n * MINUTE_NS for n in range(3)])
    seen = found(at(np.sort(np.concatenate([times, saturday, early]))), instruments=[NEW_YORK])
    assert {rule: each.count for rule, each in seen.items()} == {"no-session": 5, "outside-hours": 3}
    assert seen["no-session"].examples[0].expected == "no row: XNYS has no session that day"


@pytest.mark.parametrize("stamp", [0, 5 * HOUR_NS, 14 * HOUR_NS + 30 * MINUTE_NS])
def test_daily_bars_on_holidays_are_found_however_they_are_stamped(stamp: int) -> None:
    christmas = 19_716 * DAY_NS  # 2023-12-25, a Monday
    days = np.arange(19_700, 19_730)
    trading = (timeline(NEW_YORK).sessions(19_700, 19_729)).days
    times = np.sort(np.append(days[np.isin(days, trading)] * DAY_NS, christmas)) + stamp
    (closed,) = found(at(times), Interval.D1, instruments=[NEW_YORK]).values()
    assert (closed.rule, closed.count, closed.examples[0].time) == ("no-session", 1, christmas + stamp)


def test_around_the_clock_every_bar_is_expected() -> None:
    rows = without(bars(5_000), slice(2_000, 2_060))
    (gap,) = found(rows, instruments=[ALL_DAY]).values()
    assert (gap.rule, gap.rows) == ("gap", 60)


def test_without_a_calendar_nothing_is_said_of_nights_and_weekends() -> None:
    for interval in (Interval.M1, Interval.D1):
        (one,) = look(at(sessions(interval)), interval, instruments=[])
        assert [each.rule for each in one.findings] == ["no-calendar"]
        assert (one.tally.expected, one.tally.missing, one.tally.holes) == (0, 0, 0)


def test_without_a_calendar_a_hole_of_months_is_found() -> None:
    rows = without(at(sessions(Interval.D1, 700)), slice(100, 250))
    assert set(found(rows, Interval.D1, instruments=[])) == {"no-calendar", "missing-session"}


def test_what_trades_at_weekends_counts_as_trading_around_the_clock() -> None:
    (one,) = look(without(bars(20_000), slice(500, 505)), instruments=[])
    assert (one.tally.expected, one.tally.missing) == (20_000, 5)


def test_each_symbol_goes_by_its_own_calendar() -> None:
    stock = at(sessions(Interval.M1, 12))
    coin = bars(12 * 1_440, symbol="BTC-USD")
    both = {name: np.concatenate([stock[name], coin[name]]) for name in stock}
    instruments = [NEW_YORK, type(ALL_DAY)(pattern="BTC-*", calendar="24/7")]
    assert [(one.symbol, one.findings) for one in look(both, instruments=instruments)] == [("A", ()), ("BTC-USD", ())]


def test_trades_when_the_exchange_is_closed_and_sessions_without_any() -> None:
    rows = trades(4_000)
    rows["timestamp"] = T0 + np.sort(np.random.default_rng(1).integers(0, 6 * HOUR_NS, 4_000))
    rows["timestamp"][1_000:2_000] += DAY_NS
    rows["timestamp"][2_000:3_000] += 4 * DAY_NS
    rows["timestamp"][3_000:] += 9 * DAY_NS
    (one,) = look(rows, instruments=[NEW_YORK])
    assert (one.tally.expected, one.tally.missing, one.tally.holes) == (8, 5, 5)
    seen = {each.rule: each for each in one.findings}
    assert seen["no-session"].count == 1_000
    assert seen["missing-session"].count == 5
    rows["timestamp"][0] = T0 - SECOND_NS
    assert found(rows, instruments=[NEW_YORK])["outside-hours"].count == 1
