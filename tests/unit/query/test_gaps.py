"""Coverage: what a calendar expects that is not stored, against a plain loop over expected stamps."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.query.tables import Written, at, times

from tapehouse.calendars import timeline
from tapehouse.errors import NotFound
from tapehouse.model import DAY_NS, HOUR_NS, MINUTE_NS, Instrument, Interval, Kind
from tapehouse.query.base import Coverage, Missing

NEW_YORK = Instrument(pattern="*", calendar="XNYS", timezone="America/New_York")


def only(found: list[Coverage]) -> Coverage:
    (one,) = found
    return one


def test_a_whole_series_misses_nothing(written: Written) -> None:
    written.bars("A", "1m", [i * MINUTE_NS for i in range(100)])
    found = only(written.history.coverage())
    assert (found.symbol, found.kind, found.interval, found.calendar) == ("A", Kind.BARS, Interval.M1, "24/7")
    assert (found.first, found.last, found.rows, found.expected) == (0, 99 * MINUTE_NS, 100, 100)
    assert (found.missing_bars, found.missing_spans, found.missing) == (0, 0, [])


def test_nights_and_holidays_are_not_missing_and_minutes_of_a_session_are(written: Written) -> None:
    written.store.put_instruments([NEW_YORK])
    expected = timeline(NEW_YORK).expected(Interval.M1, at("2024-01-12T00:00:00Z"), at("2024-01-18T00:00:00Z")).stamps()
    gone = {at("2024-01-16T15:00:00Z"), at("2024-01-16T15:01:00Z"), at("2024-01-17T20:59:00Z")}
    written.bars("A", "1m", [stamp for stamp in expected.tolist() if stamp not in gone] + [at("2024-01-17T21:30:00Z")])
    found = only(written.history.coverage(symbols=["A"]))
    assert (found.expected, found.missing_bars, found.missing_spans) == (3 * 390, 3, 2)
    assert found.missing == [
        Missing(start=at("2024-01-17T20:59:00Z"), end=at("2024-01-17T21:00:00Z"), bars=1),
        Missing(start=at("2024-01-16T15:00:00Z"), end=at("2024-01-16T15:02:00Z"), bars=2),
    ]


def test_missing_days(written: Written) -> None:
    written.store.put_instruments([NEW_YORK])
    written.bars("A", "1d", [at(f"2024-01-{day:02}T05:00:00Z") for day in (2, 3, 9, 12, 16)])
    found = only(written.history.coverage())
    # The 15th is a holiday.
    assert (found.expected, found.missing_bars, found.missing_spans) == (10, 5, 2)
    assert found.missing == [
        Missing(start=at("2024-01-10T05:00:00Z"), end=at("2024-01-12T05:00:00Z"), bars=2),
        Missing(start=at("2024-01-04T05:00:00Z"), end=at("2024-01-09T05:00:00Z"), bars=3),
    ]


def test_only_the_newest_spans_are_listed_and_all_are_counted(written: Written) -> None:
    written.bars("A", "1m", [i * 2 * MINUTE_NS for i in range(50)])
    found = only(written.history.coverage(spans=3))
    assert (found.missing_bars, found.missing_spans, len(found.missing)) == (49, 49, 3)
    assert [gap.start // MINUTE_NS for gap in found.missing] == [97, 95, 93]
    assert only(written.history.coverage(spans=0)).missing == []


def test_a_hole_of_centuries_is_counted_and_not_walked(written: Written) -> None:
    written.bars("A", "1s", [at("1700-01-01T00:00:00Z"), at("2200-01-01T00:00:00Z")])
    found = only(written.history.coverage())
    assert found.missing_bars == (at("2200-01-01T00:00:00Z") - at("1700-01-01T00:00:00Z")) // 10**9 - 1
    assert found.missing_spans == 1


def test_series_are_chosen_by_symbol_kind_and_interval(written: Written) -> None:
    written.bars("A", "1m", [0])
    written.bars("A", "1d", [0])
    written.trades("B", [0])
    assert len(written.history.coverage()) == 3
    assert [c.interval for c in written.history.coverage(symbols=["A"], interval=Interval.D1)] == [Interval.D1]
    assert [c.symbol for c in written.history.coverage(kind=Kind.TRADES)] == ["B"]
    with pytest.raises(NotFound):
        written.history.coverage(symbols=["C"])


@given(
    minutes=st.sets(st.integers(0, 3 * 1_440), min_size=1, max_size=40),
    interval=st.sampled_from([Interval.M1, Interval.M5, Interval.H1, Interval.H4, Interval.D1]),
    calendar=st.sampled_from([("XNYS", "America/New_York"), ("XHKG", "Asia/Hong_Kong"), ("24/7", "UTC")]),
)
def test_coverage_agrees_with_a_plain_loop(minutes: set[int], interval: Interval, calendar: tuple[str, str]) -> None:
    instrument = Instrument(pattern="*", calendar=calendar[0], timezone=calendar[1])
    written = Written()
    written.store.put_instruments([instrument])
    start = at("2024-01-11T22:00:00Z")
    if interval.by_calendar:
        days = timeline(instrument).expected(interval, start, start + 20 * DAY_NS).stamps().tolist()
        stamps = sorted({days[minute % len(days)] for minute in minutes})
    else:
        stamps = sorted({(start + minute * MINUTE_NS) // interval.nanos * interval.nanos for minute in minutes})
    written.bars("A", str(interval), stamps)
    expected = timeline(instrument).expected(interval, stamps[0], stamps[-1] + 1).stamps().tolist()
    missing = [stamp for stamp in expected if stamp not in stamps]
    spans = {sum(stamp < gone for stamp in stamps) for gone in missing}
    found = only(written.history.coverage())
    assert (found.expected, found.missing_bars, found.missing_spans) == (len(expected), len(missing), len(spans))
    listed = [stamp for gap in found.missing for stamp in expected if gap.start <= stamp < gap.end]
    assert sorted(listed) == missing


def quotes(symbol: str, stamps: list[int]) -> pa.Table:
    n = len(stamps)
    columns: dict[str, Any] = {name: [1.0] * n for name in ("bid", "bid_size", "ask_size")}
    return pa.table({"symbol": [symbol] * n, "timestamp": times(stamps), **columns, "ask": [2.0] * n})


@pytest.mark.parametrize("kind", [Kind.TRADES, Kind.QUOTES])
def test_sessions_without_a_trade_or_quote_are_missing(written: Written, kind: Kind) -> None:
    written.store.put_instruments([NEW_YORK])
    # Friday the 12th, an evening, Sunday, and Thursday the 18th; the 15th is a holiday.
    stamps = [at(f"2024-01-{moment}:00Z") for moment in ("11T15:00", "12T20:59", "13T01:00", "14T15:00", "18T15:00")]
    if kind is Kind.TRADES:
        written.trades("A", stamps)
    else:
        written.store.write(kind, quotes("A", stamps), source="test")
    found = only(written.history.coverage())
    assert (found.interval, found.rows, found.expected) == (None, 5, 5)
    assert (found.missing_bars, found.missing_spans) == (2, 1)
    assert found.missing == [Missing(start=at("2024-01-16T05:00:00Z"), end=at("2024-01-18T05:00:00Z"), bars=2)]


@given(hours=st.sets(st.integers(0, 24 * 20), min_size=1, max_size=12), calendar=st.sampled_from(["24/7", "24/5"]))
def test_sessions_without_trades_agree_with_a_plain_loop(hours: set[int], calendar: str) -> None:
    written = Written()
    written.store.put_instruments([Instrument(pattern="*", calendar=calendar)])
    written.trades("A", [hour * HOUR_NS for hour in sorted(hours)])
    days = range(min(hours) // 24, max(hours) // 24 + 1)
    sessions = [day for day in days if calendar == "24/7" or (day + 3) % 7 < 5]
    empty = [day for day in sessions if not any(hour // 24 == day for hour in hours)]
    found = only(written.history.coverage())
    assert (found.expected, found.missing_bars) == (len(sessions), len(empty))
    covered = [day for gap in found.missing for day in sessions if gap.start <= day * DAY_NS < gap.end]
    assert sorted(covered) == empty
    assert sum(gap.bars for gap in found.missing) == len(empty)
