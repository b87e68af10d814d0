"""Spans: the fixed pieces of time that the archive is cut into.

A span depends on kind and interval, so that a row group (one symbol in one span) holds thousands of rows: a day of
trades, quotes or seconds, a month of minutes, a year of hours, and all of time for days and longer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tapehouse.model import DAY_NS, MAX_TIME_NS, MIN_TIME_NS, Interval, Kind

_INTERVALS = list(Interval)


class Dataset(NamedTuple):
    """All records of one kind and, for bars, one interval."""

    kind: Kind
    interval: Interval | None = None

    @property
    def code(self) -> int:
        """The interval as a small number, 0 for records without one; stored, so the order of `Interval` is fixed."""
        return 0 if self.interval is None else _INTERVALS.index(self.interval) + 1

    @property
    def table(self) -> str:
        """The name of the table with its hot rows."""
        return f"{self.kind}_{self.interval}" if self.interval else str(self.kind)

    @classmethod
    def decode(cls, kind: str, code: int) -> Dataset:
        """The data set of a stored kind and code."""
        return cls(Kind(kind), _INTERVALS[code - 1] if code else None)

    @property
    def unit(self) -> str | None:
        """The NumPy unit of its spans, None where one span holds all of time."""
        if self.interval is None or self.interval.nanos < Interval.M1.nanos:
            return "D"
        if self.interval.nanos < Interval.H1.nanos:
            return "M"
        return "Y" if self.interval.nanos < Interval.D1.nanos else None

    def span_of(self, times: np.ndarray) -> np.ndarray:
        """The span number of each time, int64."""
        if self.unit is None:
            return np.zeros(len(times), "i8")
        # By days of our own: NumPy's conversion of nanoseconds wraps near the ends of int64.
        return self.span_of_day(times // DAY_NS)

    def span_of_day(self, days: np.ndarray) -> np.ndarray:
        """The span number of each day since 1970, int64."""
        if self.unit is None:
            return np.zeros(len(days), "i8")
        return days.view("M8[D]").astype(f"M8[{self.unit}]").view("i8")

    def span_at(self, time: int) -> int:
        """The span number of one time."""
        return int(self.span_of(np.array([time], "i8"))[0])

    def bounds(self, span: int) -> tuple[int, int]:
        """`[start, end)` of a span in nanoseconds, cut off where int64 nanoseconds end."""
        if self.unit is None:
            return MIN_TIME_NS, MAX_TIME_NS
        return self._start(span), self._start(span + 1)

    def _start(self, span: int) -> int:
        # Through seconds, as NumPy wraps silently where nanoseconds overflow.
        seconds = int(np.array([span], f"M8[{self.unit}]").astype("M8[s]").view("i8")[0])
        return min(max(seconds * 1_000_000_000, MIN_TIME_NS), MAX_TIME_NS)

    def folder(self, span: int) -> str:
        """The path of a span's files below the archive's folder."""
        name = "all" if self.unit is None else str(np.array([span], f"M8[{self.unit}]")[0])
        return "/".join([self.kind, self.interval, name] if self.interval else [self.kind, name])
