"""Rows of several series as sorted arrays, and what a check needs of them: blocks, robust bands, runs. No I/O.

All of it is linear in the rows (up to sorting within blocks), whatever the number of series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tapehouse.bulk.checks.base import Example
from tapehouse.model import Interval, Kind

LOOK_AHEAD = 3
"""Rows after one that have to be known before it is judged: whether a price comes back."""

BLOCK_ROWS = 128
MIN_BLOCK_ROWS = 8
"""Fewer values than that have no band of their own."""

NORMAL_MAD = 1.4826
"""Standard deviations in a median absolute deviation of a normal distribution; 1.2533 in a mean one."""
NORMAL_MEAN_AD = 1.2533

MAX_EXAMPLES = 5


class Memory:
    """What is remembered of every series between pieces: one entry a series in each array."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self.size = 0

    def grow(self, size: int) -> None:
        """Make room for series `0` to `size - 1`."""
        self.size = max(self.size, size)

    def of(self, name: str, default: float = 0, dtype: type = np.float64) -> np.ndarray:
        """The array of that name; what was never set is the default."""
        known = self._arrays.get(name, np.empty(0, dtype))
        if len(known) < self.size:
            grown: np.ndarray = np.full(max(self.size, 2 * len(known)), default, dtype)
            grown[: len(known)] = known
            self._arrays[name] = known = grown
        return known[: self.size]

    def counts(self, name: str) -> np.ndarray:
        """The same for whole numbers that start at 0."""
        return self.of(name, 0, np.int64)


class Ledger:
    """What was found: counts and rows of each rule and series, and the first examples."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.examples: dict[tuple[str, int], list[Example]] = {}
        self.rules: list[str] = []

    def add(
        self,
        rule: str,
        piece: Piece,
        at: np.ndarray,
        describe: Callable[[int], tuple[str, str]],
        *,
        rows: np.ndarray | None = None,
        counts: np.ndarray | None = None,
        times: np.ndarray | None = None,
    ) -> None:
        """Count places: row `at[i]`, concerning `rows[i]` rows; `describe(i)` gives its value and what was expected."""
        if not len(at):
            return
        if rule not in self.rules:
            self.rules.append(rule)
        self.memory.grow(int(piece.series[-1]) + 1)
        series = piece.series[at]
        np.add.at(self.memory.counts(f"{rule} count"), series, 1 if counts is None else counts)
        np.add.at(self.memory.counts(f"{rule} rows"), series, 1 if rows is None else rows)
        stamps = piece.times[at] if times is None else times
        for first, last in _spans(series):
            kept = self.examples.setdefault((rule, int(series[first])), [])
            for i in range(first, min(last, first + MAX_EXAMPLES - len(kept))):
                kept.append(Example(int(stamps[i]), *describe(i)))

    def found(self, series: int) -> list[tuple[str, int, int, list[Example]]]:
        """Rule, count, rows and examples of each rule that found something in the series."""
        if series >= self.memory.size:
            return []
        counts = [(rule, int(self.memory.counts(f"{rule} count")[series])) for rule in self.rules]
        return [
            (rule, count, int(self.memory.counts(f"{rule} rows")[series]), self.examples.get((rule, series), []))
            for rule, count in counts
            if count
        ]


def _spans(series: np.ndarray) -> list[tuple[int, int]]:
    """Where each series starts and ends in ascending ids."""
    edges = np.flatnonzero(np.diff(series)) + 1
    return list(zip([0, *edges.tolist()], [*edges.tolist(), len(series)], strict=True))


@dataclass(frozen=True)
class Piece:
    """Rows ordered by series and time; all arrays have shape (n,), n > 0.

    `series` are the numbers of the series, `linked` rows directly follow the one above them in their series. Of the
    rows of a series the first was judged before when `context`, and the last few are judged later unless `final`:
    `fresh` ones are judged now.
    """

    kind: Kind
    interval: Interval | None
    series: np.ndarray
    times: np.ndarray
    columns: Mapping[str, np.ndarray]
    linked: np.ndarray
    fresh: np.ndarray
    final: bool

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def firsts(self) -> np.ndarray:
        """The first row of each series, shape (series,)."""
        return np.flatnonzero(np.concatenate([[True], self.series[1:] != self.series[:-1]]))

    @cached_property
    def ids(self) -> np.ndarray:
        """The number of each series, shape (series,)."""
        return np.asarray(self.series[self.firsts])

    @cached_property
    def sizes(self) -> np.ndarray:
        """The rows of each series, shape (series,)."""
        return np.diff(np.append(self.firsts, len(self)))

    @cached_property
    def last_fresh(self) -> np.ndarray:
        """The last fresh row of each series; its first row where none is fresh. Shape (series,)."""
        ends = np.cumsum(self.fresh)[self.firsts + self.sizes - 1]
        places = np.flatnonzero(self.fresh)
        last = places[np.maximum(ends - 1, 0)] if len(places) else self.firsts
        return np.asarray(np.maximum(last, self.firsts))

    @cached_property
    def pairs(self) -> np.ndarray:
        """Fresh rows that follow one directly: what a change can be judged at."""
        return np.asarray(self.linked & self.fresh)

    @cached_property
    def elapsed(self) -> np.ndarray:
        """Nanoseconds since the row above, int64; 0 for the first row of all."""
        return np.diff(self.times, prepend=self.times[:1])

    @cached_property
    def price(self) -> np.ndarray:
        """Close, price of the trade, or middle of the quote."""
        if self.kind is Kind.QUOTES:
            return np.asarray(self.columns["bid"] / 2 + self.columns["ask"] / 2)
        return self.columns["close" if self.kind is Kind.BARS else "price"]

    @cached_property
    def size(self) -> np.ndarray:
        """Volume of the bar or size of the trade."""
        return self.columns["volume" if self.kind is Kind.BARS else "size"]

    @cached_property
    def blocks(self) -> Blocks:
        """Stretches in which rows are compared."""
        return Blocks.of(self.firsts, self.sizes)

    def per_series(self, mask: np.ndarray) -> np.ndarray:
        """How often the mask is true in each series, shape (series,)."""
        return np.add.reduceat(mask, self.firsts, dtype=np.int64)


@dataclass(frozen=True)
class Blocks:
    """Stretches of about `BLOCK_ROWS` rows, each within one series.

    `starts` and `lengths` have an entry a block; `first` and `last` are the first and the last block of each series.
    """

    starts: np.ndarray
    lengths: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, firsts: np.ndarray, sizes: np.ndarray) -> Blocks:
        counts = np.maximum(1, (sizes + BLOCK_ROWS // 2) // BLOCK_ROWS)
        last = np.cumsum(counts) - 1
        first = last - counts + 1
        nth = np.arange(last[-1] + 1) - np.repeat(first, counts)
        starts = np.repeat(firsts, counts) + nth * np.repeat(sizes, counts) // np.repeat(counts, counts)
        return cls(starts, np.diff(np.append(starts, firsts[-1] + sizes[-1])), first, last)

    def usual(self, sizes: np.ndarray) -> np.ndarray:
        """The mean of each block, a value a row, to see what stands out; 0 in blocks too short for one value not to
        make the mean."""
        with np.errstate(over="ignore"):
            means = self.sum(sizes) / self.lengths
        return self.spread(np.where(self.lengths < BLOCK_ROWS // 2, 0, means))

    def holding(self, rows: np.ndarray) -> np.ndarray:
        """The block of each of the rows."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def some(self, which: np.ndarray) -> tuple[Blocks, np.ndarray]:
        """Some of the blocks, as if there were no others, and their rows."""
        lengths = self.lengths[which]
        starts = np.cumsum(lengths) - lengths
        rows = np.arange(lengths.sum()) + np.repeat(self.starts[which] - starts, lengths)
        return Blocks(starts, lengths, which[:0], which[:0]), rows

    def beside(self, which: np.ndarray) -> np.ndarray:
        """These blocks, their neighbours, and the last of each series."""
        around = np.concatenate([which - 1, which, which + 1, self.last])
        return np.unique(np.clip(around, 0, len(self.starts) - 1))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """A value a block as a value a row."""
        return np.repeat(values, self.lengths)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of each block."""
        return np.asarray(np.add.reduceat(values, self.starts, dtype=np.float64))

    def ordered(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values in ascending order within each block, NaN last, and where each block starts in them."""
        width = int(self.lengths.max())
        if width * len(self.starts) > 4 * len(values):  # few rows in most blocks: a rectangle would be mostly empty
            order = np.lexsort((values, self.spread(np.arange(len(self.starts)))))
            return values[order], self.starts
        corners = np.arange(len(self.starts)) * width
        matrix = np.full((len(self.starts), width), np.nan, values.dtype)
        matrix.ravel()[np.arange(len(values)) + self.spread(corners - self.starts)] = values
        matrix.sort(axis=1)
        return matrix.ravel(), corners

    def medians(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The median of each block, of which `counts` values are not NaN; NaN for an empty one."""
        flat, starts = self.ordered(values)
        return _middle(flat, starts, counts)

    def band(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The median and a robust scale (in standard deviations) of each block; NaN with fewer than 8 values.

        The scale is 1.4826 MAD. Where more than half of the values are equal, MAD is 0: then it is 1.2533 times the
        mean absolute deviation (Iglewicz and Hoaglin 1993), and at least the third smallest deviation that is not 0,
        which is a tick (the granularity of Brownlees and Gallo 2006).
        """
        counts = self.sum(np.isfinite(values)).astype(np.int64)
        center = self.medians(values, counts)
        deviations = np.abs(values - self.spread(center))
        flat, starts = self.ordered(deviations)
        scale = NORMAL_MAD * _middle(flat, starts, counts).astype(np.float64)
        still = np.flatnonzero(scale == 0)
        if len(still):
            mean = self.sum(np.nan_to_num(deviations))[still] / np.maximum(counts[still], 1)
            third = starts[still] + self.sum(deviations == 0)[still].astype(np.int64) + 2
            tick = np.where(third < starts[still] + counts[still], flat[np.minimum(third, len(flat) - 1)], 0)
            scale[still] = np.maximum(NORMAL_MEAN_AD * mean, tick)
        scale[counts < MIN_BLOCK_ROWS] = np.nan
        return center.astype(np.float64), scale

    def widest(self, scale: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The largest of each block's scale and its neighbours' in the series; `before` the first of each series."""
        earlier: np.ndarray = np.concatenate([[np.nan], scale[:-1]])
        earlier[self.first] = before
        later = np.concatenate([scale[1:], [np.nan]])
        later[self.last] = np.nan
        return np.asarray(np.fmax(np.fmax(earlier, scale), later))

    def newest(self, scale: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The last scale of each series, or what was known before where it has none."""
        return np.asarray(np.where(np.isfinite(scale[self.last]), scale[self.last], before))


def _middle(flat: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    low = starts + np.maximum(counts - 1, 0) // 2
    high = np.minimum(starts + counts // 2, len(flat) - 1)
    return np.asarray((flat[low] + flat[high]) / 2)


def duration(nanos: float) -> str:
    """About how long, for people: `3.0 days`."""
    seconds = nanos / 1e9
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} s"


def change(log_return: float) -> str:
    """A log return as a change in percent: `-51.9 %`."""
    return f"{math.expm1(min(log_return, 700.0)):+.3%}".replace("%", " %")
