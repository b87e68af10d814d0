"""Runs that are longer than chance: prices that stand still, volumes that stay zero; and volumes far too large. No I/O.

Where a share `q` of n steps are of some sort, the longest run of them is about log(n) / log(1/q) (Erdos and Renyi
1970). A run counts when it is twice as long as the one that comes by chance once in a thousand such series; twice,
since real steps are not independent.
"""

from __future__ import annotations

import numpy as np

from tapehouse.bulk.checks.piece import Ledger, Memory, Piece, duration
from tapehouse.model import DAY_NS, MINUTE_NS, Interval, Kind

CHANCE = 1e-3
DEPENDENCE = 2.0
LEAST_RUN = 3
LEAST_SHARE, MOST_SHARE = 0.001, 0.98
TICK_RUN_NS = 30 * MINUTE_NS
"""Trades and quotes stand still for that long at least before it is remarked on."""

LEAST_SPACING_NS = {Interval.D1: DAY_NS // 2, Interval.W1: 5 * DAY_NS, Interval.MO1: 25 * DAY_NS}
"""A week that begins with another day than the one before is one or two days shorter."""

VOLUME_RATIO = {Kind.BARS: 100.0, Kind.TRADES: 10_000.0}
VOLUME_BAND = 8.0
STANDS_OUT = 8.0
"""A volume that many times the mean of its block is looked at closer."""


def longest(count: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The longest run that chance explains where `count` of `steps` steps are of the sort."""
    share = np.clip(count / np.maximum(steps, 1), LEAST_SHARE, MOST_SHARE)
    return np.asarray(LEAST_RUN + DEPENDENCE * np.log(np.maximum(steps, 2) / CHANCE) / -np.log(share))


def check_stuck(piece: Piece, memory: Memory, ledger: Ledger) -> None:
    """Rows that repeat the prices of the row above, in runs."""
    same = piece.linked.copy()
    for name in {Kind.BARS: ("open", "high", "low", "close"), Kind.TRADES: ("price",)}.get(piece.kind, ("bid", "ask")):
        values = piece.columns[name]
        same[1:] &= values[1:] == values[:-1]
    found = _Runs(piece, memory, "stuck", same)
    least = 0 if piece.kind is Kind.BARS else TICK_RUN_NS
    at = np.flatnonzero((found.lengths > found.most) & (found.ends - found.starts >= least))

    def describe(i: int) -> tuple[str, str]:
        run = int(at[i])
        price, span = piece.price[found.rows[run]], found.ends[run] - found.starts[run]
        value = f"{price:.10g} in {found.lengths[run] + 1:,} rows, for {duration(span)}"
        return value, f"no more than {found.most[run]:,.0f} without a change"

    ledger.add("stuck", piece, found.rows[at], describe, rows=found.lengths[at], times=found.starts[at])


def check_spacing(piece: Piece, memory: Memory, ledger: Ledger) -> None:
    """Bars of the calendar that are too close together to be of their interval; those of the clock are on a grid."""
    least = None if piece.interval is None else LEAST_SPACING_NS.get(piece.interval)
    if least is None:
        return
    steps = np.diff(piece.times, prepend=piece.times[:1])
    at = np.flatnonzero(piece.linked & piece.fresh & (steps > 0) & (steps < least))

    def describe(i: int) -> tuple[str, str]:
        return f"{duration(int(steps[at[i]]))} after the one above", f"no less than {duration(least)}"

    ledger.add("too-close", piece, at, describe)


def check_zero_volume(piece: Piece, memory: Memory, ledger: Ledger) -> None:
    """Bars without volume: long runs of them, and prices that moved in them."""
    volume = piece.columns["volume"]
    zero = volume == 0
    positive = memory.counts("positive")
    positive[piece.ids] += piece.per_series(piece.fresh & ~zero)
    if not zero.any():
        _forget(memory, "zero", piece)
        return
    found = _Runs(piece, memory, "zero", zero)
    at = np.flatnonzero((found.lengths > found.most) & (positive[piece.series[found.rows]] > 0))

    def describe(i: int) -> tuple[str, str]:
        run = int(at[i])
        span = found.ends[run] - found.starts[run]
        value = f"no volume in {found.lengths[run]:,} bars, for {duration(span)}"
        return value, f"no more than {found.most[run]:,.0f} in a row"

    ledger.add("zero-volume", piece, found.rows[at], describe, rows=found.lengths[at], times=found.starts[at])
    _moved(piece, zero, ledger)


def _moved(piece: Piece, zero: np.ndarray, ledger: Ledger) -> None:
    """Bars without volume whose prices differ, in series where most bars have some."""
    usual = np.repeat(piece.per_series(zero) * 2 < piece.sizes, piece.sizes)
    high, low = piece.columns["high"], piece.columns["low"]
    at = np.flatnonzero(zero & piece.fresh & usual & (high > low))
    ledger.add(
        "moved-without-volume",
        piece,
        at,
        lambda i: (f"{low[at[i]]:.10g} to {high[at[i]]:.10g} with volume 0", "a volume, or one price"),
    )


def check_volume(piece: Piece, memory: Memory, ledger: Ledger) -> None:
    """Volumes beyond a band of logarithms around the median of their block, and many times that median."""
    volume, blocks = piece.size, piece.blocks
    with np.errstate(over="ignore"):
        at = np.flatnonzero(piece.fresh & (volume > STANDS_OUT * blocks.usual(volume)))
    holding = blocks.holding(at)
    which = np.union1d(holding, blocks.last)
    some, rows = blocks.some(which)
    with np.errstate(divide="ignore"):
        logs = np.log(volume[rows])
    logs[~np.isfinite(logs)] = np.nan
    center, scale = (np.full(len(blocks.starts), np.nan) for _ in range(2))
    center[which], scale[which] = some.band(logs)
    known = memory.of("volume", np.nan)
    before = np.repeat(known[piece.ids], blocks.last - blocks.first + 1)
    known[piece.ids] = blocks.newest(center, known[piece.ids])
    usual = np.fmax(center, before)[holding]
    limit = np.maximum(np.log(VOLUME_RATIO[piece.kind]), VOLUME_BAND * np.nan_to_num(scale[holding]))
    beyond = np.log(volume[at]) - usual > limit
    at, usual = at[beyond], np.exp(usual[beyond])
    ledger.add(
        "volume-spike",
        piece,
        at,
        lambda i: (f"{volume[at[i]]:,.10g}", f"about {usual[i]:,.6g}, as its neighbours have"),
    )


class _Runs:
    """The runs of rows that are of a sort and that ended, also those that began in an earlier piece.

    `rows` are their last rows in the piece, `lengths` how many rows they have, `starts` and `ends` the times of the
    first and the last, `most` the longest that chance explains in the series as far as it is known.
    """

    def __init__(self, piece: Piece, memory: Memory, name: str, sort: np.ndarray) -> None:
        open_length, open_start = memory.counts(f"{name} length"), memory.counts(f"{name} start")
        count, steps = memory.counts(f"{name} count"), memory.counts(f"{name} steps")
        count[piece.ids] += piece.per_series(sort & piece.fresh)
        steps[piece.ids] += piece.per_series(piece.fresh)
        firsts, ids = piece.firsts, piece.ids
        carried = ~piece.fresh[firsts] & (open_length[ids] > 0)
        sort = sort & piece.fresh
        sort[firsts[carried]] = True
        begins = sort & ~np.concatenate([[False], sort[:-1]])
        begins[firsts] = sort[firsts]
        stops = sort & ~np.concatenate([sort[1:], [False]])
        last = firsts + piece.sizes - 1
        stops[last] = sort[last]
        first, self.rows = np.flatnonzero(begins), np.flatnonzero(stops)
        series = piece.series[first]
        self.lengths, self.starts = self.rows - first + 1, piece.times[first]
        self.ends = piece.times[self.rows]
        goes_on = np.isin(first, firsts[carried])
        self.lengths = self.lengths + np.where(goes_on, open_length[series] - 1, 0)
        self.starts = np.where(goes_on, open_start[series], self.starts)
        open_length[ids] = 0
        if not piece.final:
            judged = np.maximum.reduceat(np.where(piece.fresh, np.arange(len(piece)), -1), firsts)
            unfinished = np.isin(self.rows, np.maximum(judged, firsts))
            open_length[series[unfinished]] = self.lengths[unfinished]
            open_start[series[unfinished]] = self.starts[unfinished]
            for field in ("rows", "lengths", "starts", "ends"):
                setattr(self, field, getattr(self, field)[~unfinished])
            series = series[~unfinished]
        self.most = longest(count[series], steps[series])


def _forget(memory: Memory, name: str, piece: Piece) -> None:
    memory.counts(f"{name} length")[piece.ids] = 0
    memory.counts(f"{name} steps")[piece.ids] += piece.per_series(piece.fresh)


def no_volume(memory: Memory, series: int) -> bool:
    """Whether no bar of a series that was looked at had any volume."""
    return not memory.counts("positive")[series]
