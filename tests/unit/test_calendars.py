"""Days, weeks and months by calendar and zone; which bars should exist. One nanosecond either side of each boundary."""

from __future__ import annotations

import sys
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.calendars import FIRST_DAY, LAST_DAY, ExchangeCalendar, Timeline, Timetable, timeline
from tapehouse.errors import InvalidRequest, MissingExtra
from tapehouse.model import DAY_NS, HOUR_NS, MAX_TIME_NS, MIN_TIME_NS, MINUTE_NS, Instrument, Interval
from tapehouse.resample import Rows, resample
from tapehouse.times import format_time, parse_bound

NEW_YORK = Instrument(pattern="*", calendar="XNYS", timezone="America/New_York")
LONDON = Instrument(pattern="*", calendar="XLON", timezone="Europe/London")
TOKYO = Instrument(pattern="*", calendar="XTKS", timezone="Asia/Tokyo")
HONG_KONG = Instrument(pattern="*", calendar="XHKG", timezone="Asia/Hong_Kong")
CHICAGO = Instrument(pattern="*", calendar="CMES", timezone="America/Chicago")
CRYPTO = Instrument(pattern="*")
ZONES = ["UTC", "America/New_York", "Europe/London", "Asia/Tokyo", "Asia/Kolkata", "Pacific/Auckland", "America/Havana"]


def at(text: str) -> int:
    bound = parse_bound(text, "time")
    assert isinstance(bound, int)
    return bound


def shown(times: np.ndarray) -> list[str]:
    return [format_time(time) for time in times.tolist()]


def buckets(instrument: Instrument, interval: Interval, start: str, end: str) -> tuple[list[str], list[str]]:
    found = timeline(instrument).buckets(interval, at(start), at(end))
    return shown(found.stamps), shown(found.edges)


@pytest.mark.parametrize(
    ("instrument", "start", "hours"),
    [
        (NEW_YORK, "2024-03-10T05:00:00Z", 23),
        (NEW_YORK, "2024-11-03T04:00:00Z", 25),
        (NEW_YORK, "2024-07-01T04:00:00Z", 24),
        (LONDON, "2024-03-31T00:00:00Z", 23),
        (LONDON, "2024-10-26T23:00:00Z", 25),
        (TOKYO, "2024-03-30T15:00:00Z", 24),
        (TOKYO, "2024-10-26T15:00:00Z", 24),
    ],
)
def test_days_where_clocks_change(instrument: Instrument, start: str, hours: int) -> None:
    line, stamp = timeline(instrument), at(start)
    found = line.buckets(Interval.D1, stamp, stamp + 1)
    assert shown(found.stamps) == [start]
    assert found.edges.tolist() == [stamp, stamp + hours * HOUR_NS]
    assert line.next_stamp(Interval.D1, stamp) == stamp + hours * HOUR_NS
    assert len(line.buckets(Interval.D1, stamp + 1, stamp + hours * HOUR_NS)) == 0
    assert len(line.buckets(Interval.D1, stamp - hours * HOUR_NS // 2, stamp)) == 0
    price = np.ones(4)
    around = np.array([stamp - 1, stamp, stamp + hours * HOUR_NS - 1, stamp + hours * HOUR_NS])
    days = line.buckets(Interval.D1, stamp - 26 * HOUR_NS, stamp + 26 * HOUR_NS)
    bars = resample(Rows.of_trades(around, price, price), days.edges)
    assert bars.parts.tolist() == [1, 2, 1]
    assert days.stamps[bars.buckets[1]] == stamp


@given(zone=st.sampled_from(ZONES), day=st.dates(date(1971, 1, 1), date(2037, 12, 31)))
def test_a_local_midnight_is_the_first_instant_of_its_date(zone: str, day: date) -> None:
    number = (day - date(1970, 1, 1)).days
    midnight = int(timeline(Instrument(pattern="*", timezone=zone)).midnights(number, number)[0])
    assert midnight % 1_000_000_000 == 0
    epoch = datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))
    moment = epoch + timedelta(seconds=midnight // 1_000_000_000)
    assert moment.astimezone(ZoneInfo(zone)).date() == day
    assert (moment - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).date() == day - timedelta(days=1)


def test_a_midnight_that_clocks_skip_is_the_moment_of_the_skip() -> None:
    brazil = Instrument(pattern="*", timezone="America/Sao_Paulo")
    assert buckets(brazil, Interval.D1, "2018-11-04T03:00:00Z", "2018-11-04T03:00:00.000000001Z") == (
        ["2018-11-04T03:00:00Z"],
        ["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"],
    )


def test_a_session_that_opens_the_evening_before_belongs_to_its_date() -> None:
    stamps, edges = buckets(CHICAGO, Interval.D1, "2024-01-08T00:00:00Z", "2024-01-11T00:00:00Z")
    assert stamps == ["2024-01-08T06:00:00Z", "2024-01-09T06:00:00Z", "2024-01-10T06:00:00Z"]
    assert edges == [f"2024-01-{day}T23:00:00Z" for day in ("07", "08", "09", "10")]


def test_weeks_start_on_monday_and_months_on_the_first() -> None:
    assert buckets(NEW_YORK, Interval.W1, "2024-03-03T00:00:00Z", "2024-03-18T00:00:00Z") == (
        ["2024-03-04T05:00:00Z", "2024-03-11T04:00:00Z"],
        ["2024-03-04T05:00:00Z", "2024-03-11T04:00:00Z", "2024-03-18T04:00:00Z"],
    )
    assert buckets(NEW_YORK, Interval.MO1, "2024-02-01T05:00:00Z", "2024-04-01T04:00:00Z") == (
        ["2024-02-01T05:00:00Z", "2024-03-01T05:00:00Z"],
        ["2024-02-01T05:00:00Z", "2024-03-01T05:00:00Z", "2024-04-01T04:00:00Z"],
    )
    # The week of a session that opens on Sunday evening begins then.
    assert buckets(CHICAGO, Interval.W1, "2024-01-08T00:00:00Z", "2024-01-09T00:00:00Z")[1][0] == "2024-01-07T23:00:00Z"


@pytest.mark.parametrize("instrument", [CRYPTO, NEW_YORK, CHICAGO, TOKYO])
@given(
    interval=st.sampled_from(list(Interval)),
    start=st.integers(0, 2 * 10**18),
    span=st.integers(0, 40 * DAY_NS),
    cut=st.floats(0, 1),
)
def test_buckets_of_a_cut_range_are_those_of_the_whole(
    instrument: Instrument, interval: Interval, start: int, span: int, cut: float
) -> None:
    if interval.nanos < MINUTE_NS:
        span //= 1_000
    line, middle = timeline(instrument), start + int(span * cut)
    whole = line.buckets(interval, start, start + span)
    left, right = line.buckets(interval, start, middle), line.buckets(interval, middle, start + span)
    assert [*left.stamps, *right.stamps] == whole.stamps.tolist()
    assert len(whole.edges) == len(whole) + 1
    assert (np.diff(whole.edges) > 0).all()
    if len(left) and len(right):
        assert left.edges[-1] == right.edges[0]


def test_clock_intervals_are_floors_of_the_epoch() -> None:
    found = timeline(NEW_YORK).buckets(Interval.H4, -1, 4 * HOUR_NS + 1)
    assert found.stamps.tolist() == [0, 4 * HOUR_NS]
    assert found.edges.tolist() == [0, 4 * HOUR_NS, 8 * HOUR_NS]


@pytest.mark.parametrize("interval", [Interval.H4, Interval.D1, Interval.W1, Interval.MO1])
@pytest.mark.parametrize("instrument", [CRYPTO, NEW_YORK, TOKYO])
def test_the_ends_of_time_do_not_overflow(instrument: Instrument, interval: Interval) -> None:
    line = timeline(instrument)
    for start, end in ((MIN_TIME_NS, MIN_TIME_NS + 90 * DAY_NS), (MAX_TIME_NS - 90 * DAY_NS, MAX_TIME_NS)):
        found = line.buckets(interval, start, end)
        assert len(found) > 0
        assert (np.diff(found.edges) > 0).all()
        assert (np.diff(found.stamps) > 0).all()
        inside = np.array([start + DAY_NS, end - DAY_NS - 1])
        assert (line.label(interval, inside) <= inside + DAY_NS).all()
        assert (np.diff(line.part_edges(Interval.D1, found).edges) > 0).all()
    assert len(line.midnights(FIRST_DAY, LAST_DAY)) == LAST_DAY - FIRST_DAY + 1


@pytest.mark.parametrize(
    ("instrument", "stamp"),
    [
        (NEW_YORK, "2024-01-09T00:00:00Z"),  # midnight UTC, the evening before in New York
        (NEW_YORK, "2024-01-09T05:00:00Z"),  # local midnight
        (NEW_YORK, "2024-01-09T14:30:00Z"),  # the open
        (TOKYO, "2024-01-08T15:00:00Z"),
        (TOKYO, "2024-01-09T00:00:00Z"),
        (CHICAGO, "2024-01-08T23:00:00Z"),  # the open, the evening before
        (CHICAGO, "2024-01-09T00:00:00Z"),
        (CHICAGO, "2024-01-09T06:00:00Z"),
        (CRYPTO, "2024-01-09T00:00:00Z"),
    ],
)
def test_a_daily_bar_belongs_to_its_date_however_the_vendor_stamps_it(instrument: Instrument, stamp: str) -> None:
    line = timeline(instrument)
    midnight = int(line.midnights(19_731, 19_731)[0])  # 2024-01-09, a Tuesday
    monday = int(line.midnights(19_730, 19_730)[0])
    first = int(line.midnights(19_723, 19_723)[0])
    stamps = np.array([at(stamp)])
    assert line.label(Interval.D1, stamps).tolist() == [midnight]
    assert line.label(Interval.W1, stamps).tolist() == [monday]
    assert line.label(Interval.MO1, stamps).tolist() == [first]
    week = line.buckets(Interval.W1, monday, monday + 1)
    days = line.buckets(Interval.D1, midnight, midnight + 1)
    for found in (week, days):
        edges = line.part_edges(Interval.D1, found).edges
        assert edges[0] <= stamps[0] < edges[1]


def test_labels_of_no_stamps_and_of_clock_intervals() -> None:
    assert timeline(NEW_YORK).label(Interval.D1, np.empty(0, np.int64)).tolist() == []
    assert timeline(NEW_YORK).label(Interval.H1, np.array([-1, HOUR_NS])).tolist() == [-HOUR_NS, HOUR_NS]


@pytest.mark.parametrize(
    ("instrument", "interval", "start", "end", "expected"),
    [
        # A regular session, a holiday (2024-01-01), and an early close (2024-07-03 at 13:00).
        (NEW_YORK, Interval.M1, "2024-01-02", "2024-01-03", 390),
        (NEW_YORK, Interval.M1, "2024-01-01", "2024-01-02", 0),
        (NEW_YORK, Interval.M1, "2024-07-03", "2024-07-04", 210),
        (NEW_YORK, Interval.H1, "2024-01-02", "2024-01-03", 7),
        (NEW_YORK, Interval.H4, "2024-01-02", "2024-01-03", 3),
        (NEW_YORK, Interval.D1, "2024-01-01", "2024-01-13", 9),
        (NEW_YORK, Interval.W1, "2024-01-01", "2024-01-30", 5),
        (NEW_YORK, Interval.MO1, "2024-01-02", "2025-01-02", 12),
        # Lunch: 9:30 to 12:00 and 13:00 to 16:00; the slot of 12:00 is not expected, that of 4h over it once.
        (HONG_KONG, Interval.M1, "2024-01-03", "2024-01-04", 330),
        (HONG_KONG, Interval.H1, "2024-01-03", "2024-01-04", 6),
        (HONG_KONG, Interval.H4, "2024-01-03", "2024-01-04", 2),
        (CHICAGO, Interval.M1, "2024-01-07", "2024-01-08", 60),
        (CRYPTO, Interval.M1, "2024-01-06", "2024-01-07", 1_440),
        (CRYPTO, Interval.D1, "2024-01-06", "2024-01-08", 2),
        (Instrument(pattern="*", calendar="24/5"), Interval.D1, "2024-01-06", "2024-01-09", 1),
        (Instrument(pattern="*", calendar="24/5"), Interval.H1, "2024-01-06", "2024-01-09", 24),
    ],
)
def test_expected_bars(instrument: Instrument, interval: Interval, start: str, end: str, expected: int) -> None:
    table = timeline(instrument).expected(interval, at(f"{start}T00:00:00Z"), at(f"{end}T00:00:00Z"))
    assert len(table) == expected
    assert len(table.stamps()) == expected


def test_expected_minutes_are_those_of_the_session() -> None:
    table = timeline(NEW_YORK).expected(Interval.M1, at("2024-01-02T00:00:00Z"), at("2024-01-03T00:00:00Z"))
    opens, closes = at("2024-01-02T14:30:00Z"), at("2024-01-02T21:00:00Z")
    assert table.stamps().tolist() == list(range(opens, closes, MINUTE_NS))
    assert table.contains(np.array([opens - 1, opens, opens + 1, closes - MINUTE_NS, closes])).tolist() == [
        *(False, True, False, True, False)
    ]


@pytest.mark.parametrize("instrument", [CRYPTO, NEW_YORK, HONG_KONG, CHICAGO])
@given(
    interval=st.sampled_from([i for i in Interval if i.nanos >= MINUTE_NS]),
    start=st.integers(10**18, 2 * 10**18),
    span=st.integers(0, 30 * DAY_NS),
    cut=st.floats(0, 1),
)
def test_expected_bars_of_a_cut_range_are_those_of_the_whole(
    instrument: Instrument, interval: Interval, start: int, span: int, cut: float
) -> None:
    line, middle = timeline(instrument), start + int(span * cut)
    whole = line.expected(interval, start, start + span).stamps()
    left, right = line.expected(interval, start, middle), line.expected(interval, middle, start + span)
    assert [*left.stamps(), *right.stamps()] == whole.tolist()
    assert (np.diff(whole) > 0).all()
    assert set(whole.tolist()) <= set(line.buckets(interval, start, start + span).stamps.tolist())


@given(
    runs=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 20)), max_size=10),
    step=st.integers(1, 5),
    times=st.lists(st.integers(-10, 2_000), max_size=20),
)
def test_a_timetable_counts_as_its_stamps_do(runs: list[tuple[int, int]], step: int, times: list[int]) -> None:
    stamps, firsts, now = [], [], 0
    for gap, count in runs:
        now += gap * step
        firsts.append(now)
        stamps += [now + i * step for i in range(count)]
        now += count * step
    table = Timetable(np.array(firsts, np.int64), np.array([count for _, count in runs], np.int64), step)
    asked = np.array(times, np.int64)
    assert table.stamps().tolist() == stamps
    assert table.count_before(asked).tolist() == [sum(stamp < time for stamp in stamps) for time in times]
    assert table.contains(asked).tolist() == [time in stamps for time in times]


def test_parts_that_span_an_edge_go_where_their_trading_is() -> None:
    # In winter Chicago's Monday session opens at 23:00 UTC on Sunday, inside the 4h bar of 20:00.
    chicago = timeline(CHICAGO)
    monday = chicago.buckets(Interval.D1, at("2024-01-08T06:00:00Z"), at("2024-01-08T06:00:00.000000001Z"))
    edges = chicago.part_edges(Interval.H4, monday)
    assert shown(edges.edges) == ["2024-01-07T20:00:00Z", "2024-01-09T00:00:00Z"]
    # The next edge, Monday 23:00, tears the bar of 20:00: one session ends as the next opens.
    assert edges.torn.tolist() == [False, True]
    assert not chicago.part_edges(Interval.M1, monday).torn.any()
    assert chicago.part_edges(None, monday).edges.tolist() == monday.edges.tolist()


def test_a_part_that_nobody_trades_in_stays_with_its_stamp() -> None:
    line = timeline(NEW_YORK)  # midnight is 05:00 UTC, inside the 4h bar of 04:00, long after the close
    day = line.buckets(Interval.D1, at("2024-01-09T05:00:00Z"), at("2024-01-09T05:00:00.000000001Z"))
    edges = line.part_edges(Interval.H4, day)
    assert shown(edges.edges) == ["2024-01-09T08:00:00Z", "2024-01-10T08:00:00Z"]
    assert not edges.torn.any()


def test_always_open_tears_what_spans_midnight() -> None:
    india = timeline(Instrument(pattern="*", timezone="Asia/Kolkata"))
    day = india.buckets(Interval.D1, at("2024-01-08T18:30:00Z"), at("2024-01-08T18:30:00.000000001Z"))
    assert india.part_edges(Interval.H1, day).torn.tolist() == [True, True]
    assert not india.part_edges(Interval.M30, day).torn.any()


def test_old_dates_extend_the_calendar() -> None:
    calendar = ExchangeCalendar("XNYS")
    line = Timeline(calendar, "America/New_York")
    recent = len(line.expected(Interval.D1, at("2024-01-01T00:00:00Z"), at("2025-01-01T00:00:00Z")))
    assert recent == 252
    assert len(line.expected(Interval.D1, at("1980-01-01T00:00:00Z"), at("1981-01-01T00:00:00Z"))) == 253
    assert len(line.expected(Interval.D1, at("1962-01-02T00:00:00Z"), at("1962-02-01T00:00:00Z"))) == 22
    assert len(line.expected(Interval.D1, at("1800-01-01T00:00:00Z"), at("1801-01-01T00:00:00Z"))) == 0
    assert len(line.expected(Interval.D1, at("2024-01-01T00:00:00Z"), at("2025-01-01T00:00:00Z"))) == recent


def test_a_calendar_with_a_bound_has_no_sessions_before_it() -> None:
    line = Timeline(ExchangeCalendar("XTKS"), "Asia/Tokyo")
    assert len(line.expected(Interval.D1, at("1980-01-01T00:00:00Z"), at("1981-01-01T00:00:00Z"))) == 0
    assert len(line.expected(Interval.D1, at("1998-01-01T00:00:00Z"), at("1999-01-01T00:00:00Z"))) > 240


@pytest.mark.parametrize(
    ("calendar", "message"),
    [("XNYSE", r"unknown calendar 'XNYSE' \(near it: XNYS"), ("nyse", "near it: NYSE"), ("?", "unknown calendar")],
)
def test_unknown_calendars_are_named_with_what_is_near(calendar: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        timeline(Instrument(pattern="*", calendar=calendar))


@pytest.mark.parametrize("zone", ["America/NewYork", "../../etc/passwd", "", "EDT5", "America"])
def test_unknown_zones_are_named(zone: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown time zone"):
        timeline(Instrument(pattern="*", timezone=zone))


def test_without_the_extra_an_exchange_is_missing_and_the_built_in_calendars_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tapehouse\[calendars\]'"):
        ExchangeCalendar("XNYS")
    assert len(timeline(CRYPTO).expected(Interval.D1, 0, 10 * DAY_NS)) == 10
