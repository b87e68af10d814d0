"""When a simulated market is open, and how busy it is then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tapehouse.calendars import FIRST_DAY, LAST_DAY, timeline
from tapehouse.errors import InvalidRequest
from tapehouse.model import DAY_NS, SECOND_NS, Instrument

SessionsOf = Callable[[str, int, int], np.ndarray]
"""Calendar, start, end -> spans of trading that meet `[start, end)`: int64 nanoseconds of shape (spans, 2)."""

ALWAYS = "24/7"
"""The calendar that is always open, and about which nobody is asked."""

BUSIER_AT_THE_ENDS = 0.6
"""A of the profile 1 + A (12 (x - 1/2)^2 - 1), whose mean is 1: 2.2 at open and close, 0.4 at noon."""

YEAR_S = 365 * 86_400
SESSIONS_YEAR_S = 252 * 6.5 * 3_600
"""Seconds of trading in a year of sessions; what volatility is of."""

CLOSED_VARIANCE = 0.04
"""Variance of a closed second, in those of an open one: a night then has a tenth of a day's (French and Roll 1986)."""

_PIECE_NS = 32 * DAY_NS
_MARGIN_NS = 8 * DAY_NS
_PIECES_AHEAD = 13
_PIECES_KEPT = 16


def calendar_sessions(calendar: str, start: int, end: int) -> np.ndarray:
    """The spans of `tapehouse.calendars`, a `SessionsOf`; `InvalidRequest` or `MissingExtra` as there."""
    line = timeline(Instrument(pattern="*", calendar=calendar))
    found = line.sessions(max(start // DAY_NS - 3, FIRST_DAY), min(end // DAY_NS + 3, LAST_DAY - 1))
    meet = (found.ends > start) & (found.starts < end)
    return np.column_stack([found.starts[meet], found.ends[meet]])


@dataclass(frozen=True, slots=True)
class Pace:
    """How the steps between some edges are, by calendar: arrays of shape (steps, calendars).

    `busy` multiplies rates (0: closed all the time), `years` is how much of a year's variance a step has, and `partly`
    marks steps that are open for a part only.
    """

    busy: np.ndarray
    years: np.ndarray
    partly: np.ndarray


@dataclass(frozen=True, slots=True)
class _Spans:
    """Spans in order that neither overlap nor touch."""

    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, spans: np.ndarray, calendar: str) -> _Spans:
        if spans.ndim != 2 or spans.shape[1] != 2 or (spans[:, 0] >= spans[:, 1]).any():
            raise InvalidRequest(
                f"sessions of {calendar[:40]!r}: expected spans of shape (n, 2) that end after they start"
            )
        spans = spans[np.argsort(spans[:, 0], kind="stable")].astype(np.int64)
        if not len(spans):
            return cls(spans[:, 0], spans[:, 1])
        reach = np.maximum.accumulate(spans[:, 1])
        apart = np.flatnonzero(spans[1:, 0] > reach[:-1])
        return cls(spans[np.append(0, apart + 1), 0], reach[np.append(apart, len(spans) - 1)])

    def open_before(self, times: np.ndarray) -> np.ndarray:
        """Open nanoseconds before each of the times."""
        before = np.concatenate([[0], np.cumsum(self.ends - self.starts)])
        at = np.searchsorted(self.starts, times, side="right")
        ends = np.concatenate([[0], self.ends])
        opened: np.ndarray = before[at] - np.where(at > 0, np.maximum(0, ends[at] - times), 0)
        return opened

    def holds(self, times: np.ndarray) -> np.ndarray:
        """Which of the times are inside one."""
        at = np.searchsorted(self.ends, times, side="right")
        inside: np.ndarray = np.append(self.starts, np.iinfo(np.int64).max)[at] <= times
        return inside


class Hours:
    """The opening hours of some calendars; the numbers of calendars below are their places among these.

    Without `sessions` all are always open. Spans are asked for some weeks at a time and must be the same each time.
    """

    def __init__(self, calendars: Sequence[str], sessions: SessionsOf | None) -> None:
        self._calendars = calendars
        self._sessions = sessions
        self._known: dict[tuple[int, int], _Spans] = {}

    def pace(self, edges: np.ndarray) -> Pace:
        """How the steps between ascending edges (less than a week in all) are."""
        shape = (len(edges) - 1, len(self._calendars))
        pace = Pace(np.empty(shape), np.empty(shape), np.empty(shape, bool))
        for number in range(len(self._calendars)):
            pace.busy[:, number], pace.years[:, number], pace.partly[:, number] = self._pace_of(number, edges)
        return pace

    def _pace_of(self, number: int, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lengths = np.diff(edges) / SECOND_NS
        if self._is_always(number):
            return np.ones_like(lengths), lengths / YEAR_S, np.zeros(len(lengths), bool)
        spans = self._spans(number, int(edges[0]))
        opened = np.diff(spans.open_before(edges)) / SECOND_NS
        last = max(len(spans.starts) - 1, 0)
        at = np.minimum(np.searchsorted(spans.ends, edges[:-1], side="right"), last)
        starts, ends = (np.append(side, 0)[at] for side in (spans.starts, spans.ends))
        long = ends - starts >= DAY_NS
        where = ((edges[:-1] + edges[1:]) / 2 - starts) / np.maximum(ends - starts, 1)
        busy = np.where(long, 1.0, profile(where))
        years = busy * opened / np.where(long, YEAR_S, SESSIONS_YEAR_S)
        years += CLOSED_VARIANCE * (lengths - opened) / SESSIONS_YEAR_S
        return np.where(opened > 0, busy, 0.0), years, (opened > 0) & (opened < lengths)

    def is_open(self, number: int, times: np.ndarray) -> np.ndarray:
        """Which of the times (ascending, less than a week apart) are inside a session."""
        if self._is_always(number) or not len(times):
            return np.ones(len(times), bool)
        return self._spans(number, int(times[0])).holds(times)

    def opens(self, time: int) -> int | None:
        """The first instant from that time on at which any is open; None when none is for a year."""
        found = [self._opens(number, time) for number in range(len(self._calendars))]
        return min((opens for opens in found if opens is not None), default=None)

    def _opens(self, number: int, time: int) -> int | None:
        if self._is_always(number):
            return time
        for piece in range(_PIECES_AHEAD):
            spans = self._spans(number, time + piece * _PIECE_NS)
            at = int(np.searchsorted(spans.ends, time, side="right"))
            if at < len(spans.ends):
                return max(time, int(spans.starts[at]))
        return None

    def _is_always(self, number: int) -> bool:
        return self._sessions is None or self._calendars[number] == ALWAYS

    def _spans(self, number: int, time: int) -> _Spans:
        """Those around a time, a week and more to either side."""
        assert self._sessions is not None
        piece = time // _PIECE_NS
        if (number, piece) not in self._known:
            if len(self._known) >= _PIECES_KEPT * len(self._calendars):
                del self._known[next(iter(self._known))]
            calendar, start = self._calendars[number], piece * _PIECE_NS
            found = self._sessions(calendar, start - _MARGIN_NS, start + _PIECE_NS + _MARGIN_NS)
            self._known[number, piece] = _Spans.of(np.asarray(found), calendar)
        return self._known[number, piece]


def profile(where: np.ndarray) -> np.ndarray:
    """How busy a session is at shares of it from 0 to 1: a U (Wood, McInish and Ord 1985) whose mean is 1."""
    x = np.clip(where, 0.0, 1.0)
    busy: np.ndarray = 1 + BUSIER_AT_THE_ENDS * (12 * (x - 0.5) ** 2 - 1)
    return busy
