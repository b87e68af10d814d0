"""Rows against the exchange's calendar: bars and sessions that are missing, rows when it is closed. No I/O.

Missing bars are those that `query.gaps` counts too. They are a hole, and count in the grade, when the series' own
activity does not explain them: minutes in which nothing was traded are no fault of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tapehouse.bulk.checks.piece import Ledger, Memory, Piece, duration
from tapehouse.calendars import Timeline, Timetable, timeline
from tapehouse.model import DAY_NS, HOUR_NS, Instrument, Interval, wildcard
from tapehouse.times import format_time

CHANCE = 1e-3
SEVERAL = 4
"""Fewer holes than that say nothing of how long holes usually are."""
PAUSE_NS = 5 * DAY_NS
"""No exchange is closed for longer, or hardly ever: a long weekend at most."""
SATURDAY = 2
"""1970-01-03 was one."""

ROUND_THE_CLOCK = Instrument(pattern="*")
"""What is taken of a symbol of which nobody said anything."""


class Calendars:
    """Which calendar each series has, as far as somebody said so; the others are taken to trade around the clock."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._exact = {known.pattern: known for known in instruments if "*" not in known.pattern}
        wild = [known for known in instruments if "*" in known.pattern]
        self._wild = sorted(wild, key=lambda known: (-len(known.pattern), known.pattern))
        self._numbers: dict[tuple[str, str, bool], int] = {}
        self.instruments: list[Instrument] = []

    def known(self, symbol: str) -> Instrument | None:
        """What somebody said of the symbol."""
        if exact := self._exact.get(symbol):
            return exact
        return next((known for known in self._wild if wildcard(known.pattern).fullmatch(symbol)), None)

    def number(self, instrument: Instrument) -> int:
        """A number for its calendar and zone, the place of one like it in `instruments`."""
        key = (instrument.calendar, instrument.timezone, instrument is ROUND_THE_CLOCK)
        if key not in self._numbers:
            self._numbers[key] = len(self.instruments)
            self.instruments.append(instrument)
        return self._numbers[key]


Check = Callable[[Piece, Memory, Ledger], None]


def session_check(calendars: Calendars) -> Check:
    """A check of pieces whose series have the calendar `memory.of("calendar")`."""

    def check(piece: Piece, memory: Memory, ledger: Ledger) -> None:
        numbers = memory.counts("calendar")[piece.ids]
        for number in np.unique(numbers):
            mine = np.repeat(numbers == number, piece.sizes)
            one = _Calendared(piece, mine, calendars.instruments[number])
            one.check_gaps(memory, ledger)
            one.check_closed(memory, ledger)
        unknown = np.flatnonzero(piece.fresh & np.repeat(~memory.of("known", 0, np.bool_)[piece.ids], piece.sizes))
        weekend = piece.series[unknown[piece.times[unknown] // DAY_NS % 7 == SATURDAY]]
        memory.of("weekend", 0, np.bool_)[weekend] = True

    return check


@dataclass(frozen=True)
class _Stretch:
    """What is expected around the rows of a piece: bars, and dates with a session."""

    line: Timeline
    bars: Timetable | None
    days: Timetable
    first: int
    last: int

    def label(self, interval: Interval, times: np.ndarray) -> np.ndarray:
        """The stamps of the buckets of times between the first and the last, in any order."""
        ends = np.array([self.first]), np.array([self.last])
        return np.asarray(self.line.label(interval, np.concatenate([ends[0], times, ends[1]]))[1:-1])


class _Calendared:
    """The rows of a piece that have one calendar."""

    def __init__(self, piece: Piece, mine: np.ndarray, instrument: Instrument) -> None:
        self.piece, self.instrument = piece, instrument
        self.mine = mine
        times = piece.times[mine]
        first, last = int(times.min()), int(times.max())
        line, reach = timeline(instrument), 2 * DAY_NS
        days = line.expected(Interval.D1, first - reach, last + reach)
        interval = piece.interval
        bars = None if interval is None else line.expected(interval, *self._around(line, interval, first, last))
        self.stretch = _Stretch(line, bars, days, first, last)

    @staticmethod
    def _around(line: Timeline, interval: Interval, first: int, last: int) -> tuple[int, int]:
        low, high = line.label(interval, np.array([first, last])).tolist()
        return low, high + 1

    def check_gaps(self, memory: Memory, ledger: Ledger) -> None:
        """Bars (of trades and quotes: sessions) between rows and those above them."""
        piece, interval = self.piece, self.piece.interval
        if interval is None:
            self._check_sessions(memory, ledger)
            return
        pairs = self.mine & piece.pairs
        if not interval.by_calendar:
            pairs = pairs & (piece.elapsed != interval.nanos)
        at = np.flatnonzero(pairs)
        missing = self._bars_between(at, interval)
        self._count_expected(at, missing, memory)
        at, missing = at[missing > 0], missing[missing > 0]
        hole = missing > self._explained(at, missing)
        at, missing = at[hole], missing[hole]
        sessions = self._sessions_between(at)
        whole = sessions > 0
        self._tell_sessions(at[whole], sessions[whole], missing[whole], ledger)
        self._tell_gaps(at[~whole], missing[~whole], ledger)

    def _check_sessions(self, memory: Memory, ledger: Ledger) -> None:
        """Sessions without a trade or quote; expected are those that have one, and the missing ones."""
        piece = self.piece
        at = np.flatnonzero(self.mine & piece.pairs & (piece.elapsed >= HOUR_NS))
        sessions = self._sessions_between(at)
        days = self.stretch.label(Interval.D1, piece.times[at])
        entered = (days != self.stretch.label(Interval.D1, piece.times[at - 1])) & self.stretch.days.contains(days)
        begun = np.flatnonzero(self.mine & piece.fresh & ~piece.linked)
        expected = memory.counts("expected")
        np.add.at(expected, piece.series[at], sessions + entered)
        np.add.at(expected, piece.series[begun], 1)
        at, sessions = at[sessions > 0], sessions[sessions > 0]
        np.add.at(memory.counts("missing"), piece.series[at], sessions)
        self._tell_sessions(at, sessions, sessions, ledger)

    def _bars_between(self, at: np.ndarray, interval: Interval) -> np.ndarray:
        """How many bars are expected between each row and the one above it."""
        bars = self.stretch.bars
        assert bars is not None
        earlier = self.stretch.label(interval, self.piece.times[at - 1])
        until = bars.count_before(self.stretch.label(interval, self.piece.times[at]))
        return np.asarray(np.maximum(0, until - bars.count_before(earlier + 1)))

    def _count_expected(self, at: np.ndarray, missing: np.ndarray, memory: Memory) -> None:
        """Expected are the rows that are there on time, and the missing ones."""
        series = self.piece.series
        np.add.at(memory.counts("missing"), series[at], missing)
        there = np.flatnonzero(self.mine & self.piece.fresh)
        np.add.at(memory.counts("expected"), series[at], missing)
        np.add.at(memory.counts("expected"), series[there], 1)

    def _explained(self, at: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """How many missing bars in a row the activity of each row's series explains.

        Holes are as long as if each bar were missing with the chance c after one that is missing: c from the median
        length of several, or the share of rows after a hole when that is larger. Days and longer are always expected,
        and where nobody said when there is trading, no hole below `PAUSE_NS` is one.
        """
        piece, interval = self.piece, self.piece.interval
        assert interval is not None
        unknown = self.instrument is ROUND_THE_CLOCK
        if not len(at) or (interval.by_calendar and not unknown):
            return np.zeros(len(at))
        series = piece.series[at]
        order = np.lexsort((missing, series))
        starts = np.flatnonzero(np.concatenate([[True], np.diff(series) != 0]))
        counts = np.diff(np.append(starts, len(series)))
        median = missing[order][starts + counts // 2]
        rows = piece.sizes[np.searchsorted(piece.ids, series[starts])]
        several = (counts >= SEVERAL) & (median > 1)
        chance = np.maximum(counts / rows, np.where(several, 1 - 1 / (1.5 * median), 0))
        chance = np.clip(chance, 1e-9, 1 - 1e-9)
        limit = 1 + np.log(CHANCE / counts) / np.log(chance)
        return np.repeat(np.maximum(limit, PAUSE_NS / interval.nanos if unknown else 0), counts)

    def _sessions_between(self, at: np.ndarray) -> np.ndarray:
        """How many whole sessions lie between each row and the one above it."""
        days, times = self.stretch.days, self.piece.times
        earlier = self.stretch.label(Interval.D1, times[at - 1])
        until = days.count_before(self.stretch.label(Interval.D1, times[at]))
        return np.asarray(np.maximum(0, until - days.count_before(earlier + 1)))

    def _tell_sessions(self, at: np.ndarray, sessions: np.ndarray, rows: np.ndarray, ledger: Ledger) -> None:
        def describe(i: int) -> tuple[str, str]:
            return f"{sessions[i]:,} sessions without a row, until {self._until(at[i])}", self._expected()

        times = self.piece.times[at - 1]
        ledger.add("missing-session", self.piece, at, describe, rows=rows, counts=sessions, times=times)

    def _tell_gaps(self, at: np.ndarray, missing: np.ndarray, ledger: Ledger) -> None:
        def describe(i: int) -> tuple[str, str]:
            span = duration(self.piece.elapsed[at[i]])
            return f"{missing[i]:,} bars missing in {span}, until {self._until(at[i])}", self._expected()

        ledger.add("gap", self.piece, at, describe, rows=missing, times=self.piece.times[at - 1])

    def _until(self, row: int) -> str:
        return format_time(int(self.piece.times[row]))

    def _expected(self) -> str:
        return f"all of {self.instrument.calendar}"

    def check_closed(self, memory: Memory, ledger: Ledger) -> None:
        """Rows when the exchange is closed: on a date without a session, or outside its hours."""
        interval = self.piece.interval
        if self.instrument.calendar == "24/7" or interval in (Interval.W1, Interval.MO1):
            return
        closed = self._closed(np.flatnonzero(self.mine & self.piece.fresh))
        if interval is not None:
            np.subtract.at(memory.counts("expected"), self.piece.series[closed], 1)
        traded = self.stretch.days.contains(self.stretch.label(Interval.D1, self.piece.times[closed]))
        calendar = self.instrument.calendar
        for rule, at, expected in (
            ("no-session", closed[~traded], f"no row: {calendar} has no session that day"),
            ("outside-hours", closed[traded], f"the hours of {calendar}"),
        ):
            ledger.add(rule, self.piece, at, lambda i, at=at, expected=expected: (self._until(at[i]), expected))  # type: ignore[misc]

    def _closed(self, at: np.ndarray) -> np.ndarray:
        """The rows in whose span there is no trading."""
        times, interval, bars = self.piece.times[at], self.piece.interval, self.stretch.bars
        if bars is not None and interval is not None:
            return np.asarray(at[~bars.contains(self.stretch.label(interval, times))])
        line, reach = self.stretch.line, 3
        sessions = line.sessions(self.stretch.first // DAY_NS - reach, self.stretch.last // DAY_NS + reach)
        span = np.searchsorted(sessions.starts, times, side="right") - 1
        open_now = (span >= 0) & (times <= sessions.ends[span]) if len(sessions.ends) else np.zeros(len(at), bool)
        return np.asarray(at[~open_now])
