"""Trading calendars: where days, weeks and months begin, and which bars should exist. `docs/design/calendars.md`.

Dates are day numbers here (days since 1970-01-01, int64), instants int64 UTC nanoseconds. Everything is vectorised;
the sessions of real exchanges come from exchange_calendars, an optional extra that is imported when first asked for.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Protocol
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from tapehouse.errors import InvalidRequest, MissingExtra
from tapehouse.model import DAY_NS, MAX_TIME_NS, MIN_TIME_NS, SECOND_NS, Instrument, Interval

FIRST_DAY = -106_751
"""1677-09-22, the first date whose midnight int64 nanoseconds hold; `LAST_DAY` is 2262-04-11."""
LAST_DAY = 106_751

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, and weeks start on Monday


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sessions in order: their dates, when each opens, and the spans `[start, end)` in which there is trading.

    `days` and `opens` have one entry a session, `starts` and `ends` one a span: a lunch break makes two of a session.
    """

    days: np.ndarray
    opens: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def traded(self, times: np.ndarray) -> np.ndarray:
        """Nanoseconds of trading before each of the times."""
        before = np.concatenate([[0], np.cumsum(self.ends - self.starts)])
        at = np.searchsorted(self.starts, times, side="right")
        overshoot = np.maximum(0, self.ends[at - 1] - times) if len(self.ends) else 0
        return before[at] - np.where(at > 0, overshoot, 0)


class Calendar(Protocol):
    """When an exchange trades."""

    def sessions(self, first: int, midnights: np.ndarray) -> Sessions:
        """The sessions of the dates `first`, `first + 1`, ..., given their local midnights and the one after them."""


@dataclass(frozen=True, slots=True)
class RoundTheClock:
    """A session from midnight to midnight on each of the first days of the week."""

    days_a_week: int

    def sessions(self, first: int, midnights: np.ndarray) -> Sessions:
        days = first + np.arange(len(midnights) - 1)
        trades = (days + _EPOCH_WEEKDAY) % 7 < self.days_a_week
        return Sessions(days[trades], midnights[:-1][trades], midnights[:-1][trades], midnights[1:][trades])


_BUILT_IN: dict[str, Calendar] = {"24/7": RoundTheClock(7), "24/5": RoundTheClock(5)}


@dataclass(frozen=True, slots=True)
class _Known:
    """The sessions known since a date; `session_of` says for each span of trading which session it is of."""

    since: int
    sessions: Sessions
    session_of: np.ndarray


class ExchangeCalendar:
    """A calendar of exchange_calendars. Before the first session that it knows and after the last it has none.

    It is built for its default years (20 back, one ahead), and again from 1970 and from 1900 when somebody asks for
    older dates, where its rules allow that.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._older = [date(1900, 1, 1), date(1970, 1, 1)]
        self._known = self._build(_exchange(name))

    def sessions(self, first: int, midnights: np.ndarray) -> Sessions:
        known = self._known
        while first < known.since and self._older:
            known = self._known = self._reach_back(self._older.pop())
        a, b = np.searchsorted(known.sessions.days, [first, first + len(midnights) - 1])
        c, d = np.searchsorted(known.session_of, [a, b])
        every = known.sessions
        return Sessions(every.days[a:b], every.opens[a:b], every.starts[c:d], every.ends[c:d])

    def _reach_back(self, since: date) -> _Known:
        import exchange_calendars

        bound = exchange_calendars.get_calendar(self._name).bound_min()
        if bound is not None and bound.date() > since:
            since = bound.date()
        return self._build(exchange_calendars.get_calendar(self._name, start=since.isoformat()), since)

    @staticmethod
    def _build(exchange: Any, since: date | None = None) -> _Known:
        days = exchange.schedule.index.values.astype("M8[D]").astype(np.int64)
        opens, closes = exchange.opens_nanos, exchange.closes_nanos
        breaks = np.flatnonzero(exchange.break_starts_nanos > MIN_TIME_NS)
        session_of = np.concatenate([np.arange(len(opens)), breaks])
        order = np.argsort(session_of, kind="stable")
        starts = np.concatenate([opens, exchange.break_ends_nanos[breaks]])
        ends = np.concatenate([closes, closes[breaks]])
        ends[breaks] = exchange.break_starts_nanos[breaks]
        first = int(days[0]) if since is None else since.toordinal() - _EPOCH_ORDINAL
        return _Known(first, Sessions(days, opens, starts[order], ends[order]), session_of[order])


def _exchange(name: str) -> Any:
    try:
        import exchange_calendars
    except ImportError as exc:
        raise MissingExtra(
            f"calendar {name!r} needs exchange_calendars: pip install 'tapehouse[calendars]'", extra="calendars"
        ) from exc
    names = [*_BUILT_IN, *exchange_calendars.get_calendar_names()]
    if name not in names:
        raise InvalidRequest(
            f"unknown calendar {name[:40]!r}{_near(name, names)}; there are 24/7, 24/5 and those of exchange_calendars",
            calendar=name[:40],
        )
    return exchange_calendars.get_calendar(name)


def _near(name: str, names: list[str]) -> str:
    lower = {known.lower(): known for known in names}
    near = [lower[found] for found in difflib.get_close_matches(name[:40].lower(), lower, n=5, cutoff=0.5)]
    return f" (near it: {', '.join(near)})" if near else ""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Adjacent buckets of time: bucket i is `[edges[i], edges[i + 1])` and its bar is stamped `stamps[i]`.

    The two differ only where a session opens before midnight of its date. `days` are the first dates of the buckets
    of a calendar interval, and the one after the last, so that they are as many as the edges.
    """

    interval: Interval
    stamps: np.ndarray
    edges: np.ndarray
    days: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.stamps)

    def slice(self, first: int, last: int) -> Buckets:
        """The buckets `[first, last)`."""
        days = None if self.days is None else self.days[first : last + 1]
        return Buckets(self.interval, self.stamps[first:last], self.edges[first : last + 1], days)


@dataclass(frozen=True, slots=True)
class PartEdges:
    """The edges of buckets as parts of one interval see them; `torn[i]`: a part trades on both sides of edge i."""

    edges: np.ndarray
    torn: np.ndarray


class Timetable:
    """The stamps of the bars that should exist, ascending, held as runs so that years of seconds take no room."""

    def __init__(self, first: np.ndarray, counts: np.ndarray, step: int) -> None:
        self._first = first
        self._step = step
        self._counts = counts
        self._before = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return int(self._before[-1])

    def count_before(self, times: np.ndarray) -> np.ndarray:
        """How many stamps are earlier than each of the times."""
        if not len(self._first):
            return np.zeros(len(times), np.int64)
        run = np.maximum(np.searchsorted(self._first, times) - 1, 0)
        into = -((self._first[run] - times) // self._step)
        counted: np.ndarray = self._before[run] + np.clip(into, 0, self._counts[run])
        return counted

    def contains(self, times: np.ndarray) -> np.ndarray:
        """Which of the times are stamps."""
        found: np.ndarray = self.count_before(times + 1) > self.count_before(times)
        return found

    def at(self, index: np.ndarray) -> np.ndarray:
        """The stamps of those numbers, counted from 0."""
        run = np.searchsorted(self._before, index, side="right") - 1
        stamps: np.ndarray = self._first[run] + (index - self._before[run]) * self._step
        return stamps

    def stamps(self) -> np.ndarray:
        """All of them, shape (len,)."""
        return self.at(np.arange(len(self)))


class Timeline:
    """An instrument's calendar in its time zone."""

    def __init__(self, calendar: Calendar, zone: str) -> None:
        self._calendar = calendar
        self._zone = _zone(zone)

    def midnights(self, first: int, last: int) -> np.ndarray:
        """The first instants of the local dates `first` to `last`."""
        return _midnights_between(self._zone, first, last)

    def sessions(self, first: int, last: int) -> Sessions:
        """The sessions of the dates `first` to `last`."""
        return self._calendar.sessions(first, self.midnights(first, last + 1))

    def day_edges(self, first: int, last: int) -> np.ndarray:
        """Where the days `first` to `last` begin: at local midnight, or when their session opens if that is earlier."""
        edges = self.midnights(first, last).copy()
        sessions = self.sessions(first, last)
        at = sessions.days - first
        edges[at] = np.minimum(edges[at], sessions.opens)
        return edges

    def buckets(self, interval: Interval, start: int, end: int) -> Buckets:
        """The buckets whose stamp is in `[start, end)`."""
        if not interval.by_calendar:
            return _clock_buckets(interval, start, end)
        first, last = _days_around(start, end)
        firsts = np.unique(_period(np.arange(first, last + 1), interval))
        stamps = self._midnights_of(firsts)
        inside = (start <= stamps) & (stamps < end)
        if not inside.any():
            return Buckets(interval, stamps[:0], np.empty(1, np.int64), firsts[:1])
        days = np.append(firsts[inside], _next_period(int(firsts[inside][-1]), interval))
        return Buckets(interval, stamps[inside], self.day_edges(days[0], days[-1])[days - days[0]], days)

    def days_of(self, buckets: Buckets) -> Buckets:
        """The days of buckets of a calendar interval."""
        assert buckets.days is not None
        return self._days(int(buckets.days[0]), int(buckets.days[-1]))

    def days_between(self, first: int, last: int) -> Buckets:
        """The days from that of the instant `first` to that of `last`, both included."""
        start, end = _days_around(first, last)
        held = np.searchsorted(self.day_edges(start, end), [first, last], side="right") - 1
        return self._days(start + max(0, int(held[0])), start + int(held[1]) + 1)

    def _days(self, first: int, last: int) -> Buckets:
        """The days `[first, last)`."""
        stamps, edges = self.midnights(first, last)[:-1], self.day_edges(first, last)
        return Buckets(Interval.D1, stamps, edges, np.arange(first, last + 1))

    def part_edges(self, part: Interval | None, buckets: Buckets) -> PartEdges:
        """The edges that put bars of the interval `part` (None: trades) into the right buckets by their stamp.

        A bar that spans an edge belongs where its trading is; with trading on both sides, to the earlier bucket, and
        neither bucket can be whole. Bars of days and longer belong to their date, see `label`.
        """
        whole = np.zeros(len(buckets.edges), bool)
        if part is None or buckets.days is None:
            return PartEdges(buckets.edges, whole)
        if part.by_calendar:
            return PartEdges(np.minimum(buckets.edges, _utc_midnights(buckets.days)), whole)
        below = buckets.edges // part.nanos * part.nanos
        split = np.flatnonzero(below != buckets.edges)
        if not len(split):
            return PartEdges(buckets.edges, whole)
        return self._round(buckets.edges, below, split, part)

    def _round(self, edges: np.ndarray, below: np.ndarray, split: np.ndarray, part: Interval) -> PartEdges:
        sessions = self.sessions(*_days_around(int(edges[0]), int(edges[-1])))
        at, down = edges[split], below[split]
        early = sessions.traded(at) > sessions.traded(down)
        late = sessions.traded(down + part.nanos) > sessions.traded(at)
        rounded, torn = edges.copy(), np.zeros(len(edges), bool)
        rounded[split] = np.where(late & ~early, down, down + part.nanos)
        torn[split] = early & late
        return PartEdges(rounded, torn)

    def label(self, interval: Interval, stamps: np.ndarray) -> np.ndarray:
        """The stamps of the buckets that bars with those (ascending) stamps belong to.

        Vendors stamp a daily bar with midnight in UTC, with local midnight, or with the session's open: each of them
        falls into `[d, d + 1)` where d is the earliest of the three.
        """
        if not interval.by_calendar or not len(stamps):
            floors: np.ndarray = stamps // interval.nanos * interval.nanos
            return floors
        first, last = _days_around(int(stamps[0]), int(stamps[-1]))
        edges = np.minimum(self.day_edges(first, last), _utc_midnights(np.arange(first, last + 1)))
        days = first + np.searchsorted(edges, stamps, side="right") - 1
        return self._midnights_of(_period(days, interval))

    def next_stamp(self, interval: Interval, stamp: int) -> int:
        """The stamp of the bucket after the one with that stamp, which is where its bar ends."""
        if not interval.by_calendar:
            return stamp + interval.nanos
        first, last = _days_around(stamp, stamp)
        day = first + int(np.searchsorted(self.midnights(first, last), stamp, side="right")) - 1
        following = _next_period(day, interval)
        return int(self.midnights(following, following)[0])

    def expected(self, interval: Interval, start: int, end: int) -> Timetable:
        """The stamps in `[start, end)` of the bars that should exist.

        Up to `4h`, those that any trading of a session falls into; one a session for days; weeks and months with any.
        """
        first, last = _days_around(start, end)
        if interval.by_calendar:
            reach = interval.nanos // DAY_NS + 1
            days = self.sessions(max(first - reach, FIRST_DAY), min(last + reach, LAST_DAY)).days
            stamps = self._midnights_of(np.unique(_period(days, interval)))
            stamps = stamps[(start <= stamps) & (stamps < end)]
            return Timetable(stamps, np.ones(len(stamps), np.int64), 1)
        return _grid(self.sessions(first, last), interval.nanos, start, end)

    def _midnights_of(self, days: np.ndarray) -> np.ndarray:
        if not len(days):
            return days
        first = int(days.min())
        midnights: np.ndarray = self.midnights(first, int(days.max()))[days - first]
        return midnights


@lru_cache(maxsize=1_024)
def _timeline(calendar: str, zone: str) -> Timeline:
    return Timeline(_BUILT_IN.get(calendar) or ExchangeCalendar(calendar), zone)


def timeline(instrument: Instrument) -> Timeline:
    """The instrument's timeline, built once; `InvalidRequest` for a calendar or a time zone that is not known."""
    return _timeline(instrument.calendar, instrument.timezone)


def midnight(day: date, zone: str) -> int:
    """The first instant of a date in that zone, which needs no calendar."""
    return _midnight(_zone(zone), day.toordinal())


def at_midnight(times: np.ndarray, zone: str) -> np.ndarray:
    """Which of the instants are the first of a date in that zone, which needs no calendar."""
    if zone == "UTC" or not len(times):
        of_day: np.ndarray = times % DAY_NS == 0
        return of_day
    first, last = _days_around(int(times.min()), int(times.max()))
    midnights = _midnights_between(_zone(zone), first, last)
    # A local midnight is at most a day away from that of UTC.
    near = np.clip(times // DAY_NS - first, 1, len(midnights) - 2)
    at: np.ndarray = (midnights[near - 1] == times) | (midnights[near] == times) | (midnights[near + 1] == times)
    return at


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        near = _near(name, sorted(available_timezones()))
        raise InvalidRequest(
            f"unknown time zone {name[:40]!r}{near}; expected an IANA name like America/New_York", timezone=name[:40]
        ) from exc


def _date(day: int) -> date:
    return date.fromordinal(day + _EPOCH_ORDINAL)


def _midnights_between(zone: ZoneInfo, first: int, last: int) -> np.ndarray:
    years = range(_date(first).year, _date(last).year + 1)
    start = date(years[0], 1, 1).toordinal() - _EPOCH_ORDINAL
    return np.concatenate([_midnights(zone, year) for year in years])[first - start : last + 1 - start]


@lru_cache(maxsize=4_096)
def _midnights(zone: ZoneInfo, year: int) -> np.ndarray:
    """The first instants of the dates of a year; a midnight that clocks skip is when they skip it."""
    first = date(year, 1, 1).toordinal()
    days = range(first, date(year + 1, 1, 1).toordinal())
    return np.array([_midnight(zone, day) for day in days], np.int64)


def _midnight(zone: ZoneInfo, ordinal: int) -> int:
    # With fold=0 a midnight that is skipped gets the offset before, which makes it the moment of the skip, and of a
    # midnight that comes twice it is the first.
    offset = datetime.fromordinal(ordinal).replace(tzinfo=zone).utcoffset()
    assert offset is not None
    seconds = 86_400 * (ordinal - _EPOCH_ORDINAL - offset.days) - offset.seconds
    return min(max(seconds * SECOND_NS, MIN_TIME_NS), MAX_TIME_NS)


def _utc_midnights(days: np.ndarray) -> np.ndarray:
    return np.where(days > LAST_DAY, MAX_TIME_NS, np.minimum(days, LAST_DAY) * DAY_NS)


def _days_around(start: int, end: int) -> tuple[int, int]:
    """Dates that surely hold all buckets and sessions of `[start, end)`, whatever the zone."""
    return max(start // DAY_NS - 3, FIRST_DAY), min(end // DAY_NS + 3, LAST_DAY)


def _period(days: np.ndarray, interval: Interval) -> np.ndarray:
    """The first date of the day, week or month that each of the dates is in."""
    firsts: np.ndarray = days
    if interval is Interval.W1:
        firsts = days - (days + _EPOCH_WEEKDAY) % 7
    if interval is Interval.MO1:
        firsts = days.astype("M8[D]").astype("M8[M]").astype("M8[D]").astype(np.int64)
    return firsts


def _next_period(first: int, interval: Interval) -> int:
    if interval is Interval.MO1:
        return int(_period(np.array([first + 31]), interval)[0])
    return first + interval.nanos // DAY_NS


def _clock_buckets(interval: Interval, start: int, end: int) -> Buckets:
    first, last = -(-start // interval.nanos), -(-end // interval.nanos)
    stamps = np.arange(first, max(first, last), dtype=np.int64) * interval.nanos
    return Buckets(interval, stamps, np.append(stamps, min(max(first, last) * interval.nanos, MAX_TIME_NS)))


def _grid(sessions: Sessions, step: int, start: int, end: int) -> Timetable:
    """The multiples of `step` in `[start, end)` whose span has any trading."""
    first, last = sessions.starts // step, -(-sessions.ends // step)
    # Two spans of trading can meet in one slot: the later one leaves it to the earlier.
    first[1:] = np.maximum(first[1:], np.maximum.accumulate(last)[:-1])
    first, last = np.maximum(first, -(-start // step)), np.minimum(last, -(-end // step))
    some = last > first
    return Timetable(first[some] * step, (last - first)[some], step)
