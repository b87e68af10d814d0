"""Which bar a trade belongs to: the buckets of history, found for many trades at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tapehouse.calendars import Buckets, timeline
from tapehouse.model import DAY_NS, Instrument, Instruments, Interval

_AROUND_NS = 40 * DAY_NS
"""Days are looked up so far around the trades that were asked for."""


class _Days:
    """The buckets of days of one calendar and zone, as far as they were needed."""

    def __init__(self, instrument: Instrument, interval: Interval) -> None:
        self._line, self._interval = timeline(instrument), interval
        self._buckets: Buckets | None = None

    def of(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stamp, start and end of the bucket of each time."""
        low, high = int(times.min()), int(times.max())
        held = self._buckets
        if held is None or low < held.edges[0] or high >= held.edges[-1]:
            held = self._buckets = self._line.buckets(self._interval, low - _AROUND_NS, high + _AROUND_NS)
        at = np.searchsorted(held.edges, times, side="right") - 1
        return held.stamps[at], held.edges[at], held.edges[at + 1]


class Clock:
    """Buckets of one interval. `instruments` gives those that are known now; symbols are told by their numbers."""

    def __init__(self, interval: Interval, names: Sequence[str], instruments: Callable[[], Instruments]) -> None:
        self.interval = interval
        self._names, self._instruments = names, instruments
        self._days: dict[tuple[str, str], _Days] = {}
        self._of_symbol: dict[int, _Days] = {}

    def of(self, symbols: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stamp, start and end of the bucket of each trade, arrays of the shape of `times`."""
        if not self.interval.by_calendar:
            width = self.interval.nanos
            starts = times // width * width
            return starts, starts, starts + width
        stamps, starts, ends = np.empty_like(times), np.empty_like(times), np.empty_like(times)
        distinct, codes = np.unique(symbols, return_inverse=True)
        days = [self._days_of(int(symbol)) for symbol in distinct]
        different = list(dict.fromkeys(days))
        places = np.array([different.index(each) for each in days])[codes]
        for place, each in enumerate(different):
            where = places == place
            stamps[where], starts[where], ends[where] = each.of(times[where])
        return stamps, starts, ends

    def _days_of(self, symbol: int) -> _Days:
        known = self._of_symbol.get(symbol)
        if known is None:
            instrument = self._instruments().of(self._names[symbol])
            key = instrument.calendar, instrument.timezone
            if key not in self._days:
                self._days[key] = _Days(instrument, self.interval)
            known = self._of_symbol[symbol] = self._days[key]
        return known

    def forget(self) -> None:
        """Ask again which calendar each symbol has."""
        self._of_symbol.clear()
