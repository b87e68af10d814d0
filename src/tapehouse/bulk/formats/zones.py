"""Wall-clock times of a zone as UTC and back, by the column. No I/O but the zone database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from tapehouse.errors import InvalidTime
from tapehouse.model import HOUR_NS, SECOND_NS

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d\d))?$")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_YEAR, _LAST_YEAR = 1677, 2262


class Localised(NamedTuple):
    """UTC nanoseconds; which of the wall-clock times never were, and which were twice (None: none of them)."""

    utc: np.ndarray
    skipped: np.ndarray | None
    repeated: np.ndarray | None


class Twice(NamedTuple):
    """For each row the instant of the change that made its wall-clock time come twice (0: it came once), and its second
    instant."""

    changes: np.ndarray
    second: np.ndarray


ONCE, FIRST, SECOND, GUESSED, UNCLEAR = range(5)
"""Which instant a time is. `GUESSED`: nothing tells, and it is the first; `UNCLEAR`: so, and another row has it too, or
the rows around are in no order."""
SLACK_NS = 60 * SECOND_NS
"""Trades and quotes come that much out of order without a change of the clocks."""
AROUND_ROWS = 16
"""So many rows of a symbol before and after such an hour have to be in order, or its order tells nothing."""


class Zone:
    """A named zone or a fixed offset. `InvalidTime` for a name that is neither."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._zone: ZoneInfo | None = None
        self._fixed = 0
        if found := _OFFSET.match(name.strip()):
            sign, hours, minutes = found.groups()
            self._fixed = (int(hours) * 60 + int(minutes or 0)) * 60 * SECOND_NS * (1 if sign == "+" else -1)
        elif name.upper() not in ("UTC", "Z", "GMT"):
            self._zone = _zone(name)

    def to_utc(self, local: np.ndarray) -> Localised:
        """Times of the zone's clocks (int64 nanoseconds) as UTC; of two instants with one such time, the first."""
        times, offsets = self._changes(local)
        if len(times) == 0:
            return Localised(local - offsets[0] if offsets[0] else local, None, None)
        place = np.searchsorted(times + offsets[:-1], local, side="right")
        utc = local - offsets[place]
        skipped = (place > 0) & (utc < times[np.maximum(place - 1, 0)])
        later = np.minimum(place, len(times) - 1)
        repeated = (place < len(times)) & (local - offsets[later + 1] >= times[later])
        return Localised(utc, skipped if skipped.any() else None, repeated if repeated.any() else None)

    @property
    def changes(self) -> bool:
        """Whether its offset is another at other times."""
        return self._zone is not None

    def twice(self, local: np.ndarray) -> Twice:
        """Which of those times the zone's clocks showed twice."""
        times, offsets = self._changes(local)
        if len(times) == 0:
            return Twice(np.zeros(len(local), np.int64), local)
        place = np.searchsorted(times + offsets[:-1], local, side="right")
        later = np.minimum(place, len(times) - 1)
        second = local - offsets[later + 1]
        return Twice(np.where((place < len(times)) & (second >= times[later]), times[later], 0), second)

    def to_local(self, utc: np.ndarray) -> np.ndarray:
        """UTC nanoseconds as what the zone's clocks show."""
        times, offsets = self._changes(utc)
        if len(times) == 0:
            return np.asarray(utc + offsets[0])
        return np.asarray(utc + offsets[np.searchsorted(times, utc, side="right")])

    def starts_of_days(self, local_midnights: np.ndarray) -> np.ndarray:
        """The first instant of each local day; where clocks skip midnight, that is when they do."""
        utc, skipped, _ = self.to_utc(local_midnights)
        if skipped is None:
            return utc
        times, offsets = self._changes(local_midnights)
        place = np.searchsorted(times + offsets[:-1], local_midnights, side="right")
        return np.where(skipped, times[np.maximum(place - 1, 0)], utc)

    def _changes(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """When the offset changes around those times, and the offsets before, between and after."""
        if self._zone is None or len(times) == 0:
            return np.empty(0, np.int64), np.array([self._fixed])
        years = np.array([times.min(), times.max()]).view("M8[ns]").astype("M8[Y]").astype(int) + 1970
        first, last = max(int(years[0]) - 1, _FIRST_YEAR), min(int(years[1]) + 1, _LAST_YEAR)
        changes = [change for year in range(first, last + 1) for change in _changes_of(self._zone, year)]
        before = _offset(self._zone, _seconds(first))
        instants = np.array([instant for instant, _ in changes], np.int64)
        offsets = np.array([before, *(after for _, after in changes)], np.int64)
        return instants * SECOND_NS, offsets * SECOND_NS


def told_apart(
    symbols: np.ndarray,
    local: np.ndarray,
    changes: np.ndarray,
    good: np.ndarray,
    *,
    step: int | None,
    newest_first: bool,
) -> np.ndarray:
    """Which instant each time is (`ONCE`, `FIRST` ...), by the order of the rows of each symbol.

    `changes` are as in `Twice`. Rows that are not `good` are as if they were not there.

    Where the clock goes back between neighbours the second hour begins (newest first: where it goes forward, the
    first). `step` is that of bars, which have one row a time: one as long as the hour shows both as equal times, and
    when the order does not tell, times that occur more than once are `UNCLEAR`. None: trades and quotes. So are times
    in or beside rows that are in no order: see `_in_no_order`.
    """
    order = np.argsort(symbols, kind="stable")
    order, found = order[good[order]], np.full(len(order), ONCE, np.int8)
    symbols, local, changes = symbols[order], local[order], changes[order]
    begins = np.ones(len(order), bool)
    begins[1:] = (symbols[1:] != symbols[:-1]) | (changes[1:] != changes[:-1])
    forward = np.zeros(len(order), np.int64)
    forward[1:] = np.diff(local) * (-1 if newest_first else 1)
    back = ~begins & (changes != 0) & (forward < (-SLACK_NS if step is None else int(step >= HOUR_NS)))
    run, passed = np.cumsum(begins) - 1, np.cumsum(back)
    passed -= passed[np.flatnonzero(begins)][run]
    second = (passed == 1) ^ newest_first
    backs = np.bincount(run, back)[run]
    decided = np.where(backs == 1, np.where(second, SECOND, FIRST), GUESSED)
    if step is not None:
        decided[_repeated(symbols, local) & (decided == GUESSED)] = UNCLEAR
    wrong = ~back & (forward < (-SLACK_NS if step is None else 0))
    decided[(backs > 1) | _in_no_order(symbols, run, wrong)] = UNCLEAR
    if len(order) < AROUND_ROWS and changes.all():
        decided[backs == 1] = UNCLEAR  # one step is no order
    decided[changes == 0] = ONCE
    found[order] = decided
    return found


def _in_no_order(symbols: np.ndarray, run: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Which rows, in the order of their symbols, are of a run in or beside which a step goes the `wrong` way."""
    places = np.arange(len(run))
    first, last = (np.searchsorted(symbols, symbols, side=side) for side in ("left", "right"))
    begin, end = (np.searchsorted(run, run, side=side) for side in ("left", "right"))
    steps = np.append(0, np.cumsum(wrong & (places > first)))
    return np.asarray(steps[np.minimum(end + AROUND_ROWS, last)] > steps[np.maximum(begin - AROUND_ROWS, first)])


def _repeated(symbols: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Which rows have a symbol and time that another has too."""
    order = np.lexsort((local, symbols))
    same = (np.diff(symbols[order]) == 0) & (np.diff(local[order]) == 0)
    found = np.zeros(len(order), bool)
    found[order] = np.append(same, False) | np.insert(same, 0, False)
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise InvalidTime(
            f"unknown time zone {name[:40]!r}; expected a name such as America/New_York or an offset such as +05:30",
            timezone=name[:40],
        ) from exc


def _seconds(year: int) -> int:
    return int((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = (_EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


@lru_cache(maxsize=4096)
def _changes_of(zone: ZoneInfo, year: int) -> tuple[tuple[int, int], ...]:
    """The instants (UTC seconds) of a year from which on another offset holds, and that offset."""
    changes = []
    first, end = _seconds(year), _seconds(year + 1)
    before = _offset(zone, first)
    for low in range(first, end, 86_400):
        after = _offset(zone, low + 86_400)
        if after != before:
            changes.append((_bisect(zone, low, low + 86_400), after))
        before = after
    return tuple(changes)


def _bisect(zone: ZoneInfo, low: int, high: int) -> int:
    """The second from which on the offset is that of `high`."""
    after = _offset(zone, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(zone, middle) == after else (middle, high)
    return high
