"""The bars of one interval that trades are still coming in for, of all symbols at once. Pure.

A bar is kept in one of a few slots of its symbol; a newer bar takes the slot of the oldest. It is the bar of its trades
sorted by time, those of one time in the order in which they came, to the last bit, in whichever order they did come.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from tapehouse import sums

EMPTY = -(2**63)
UNPUBLISHED = -1
_FIRST_CAPACITY = 1_024


class Trades(NamedTuple):
    """Trades of many symbols, in the order in which they came; arrays of shape (n,). `starts` and `ends` are the edges
    of the bucket that each is in, `stamps` what the bar of that bucket is stamped with."""

    symbols: np.ndarray
    times: np.ndarray
    prices: np.ndarray
    sizes: np.ndarray
    stamps: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class Bars(NamedTuple):
    """Bars, as arrays of shape (n,); `symbols` are numbers, `vwap` is NaN without volume."""

    symbols: np.ndarray
    stamps: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    vwap: np.ndarray
    trades: np.ndarray
    revisions: np.ndarray


class Cells(msgspec.Struct):
    """The slots: arrays of shape (slots, symbols); `volume` and `turnover` are limbs, (LIMBS, slots, symbols)."""

    stamp: np.ndarray
    end: np.ndarray
    first: np.ndarray
    last: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    trades: np.ndarray
    revision: np.ndarray
    moved: np.ndarray
    """Whether it has changed since it was published as a bar that is forming."""
    changed: np.ndarray
    """Whether it has changed since it was published as a bar that is over, or never was."""
    volume: np.ndarray
    turnover: np.ndarray

    @classmethod
    def empty(cls, slots: int, symbols: int) -> Cells:
        """So many, without a bar."""
        shape = slots, symbols
        whole, real = np.zeros(shape, np.int64), np.zeros(shape)
        return cls(
            np.full(shape, EMPTY), whole, whole.copy(), whole.copy(), real, real.copy(), real.copy(), real.copy(),
            whole.copy(), np.full(shape, UNPUBLISHED), np.zeros(shape, bool), np.zeros(shape, bool),
            np.zeros((sums.LIMBS, *shape), np.int64), np.zeros((sums.LIMBS, *shape), np.int64),
        )  # fmt: skip

    def grown(self, symbols: int) -> Cells:
        """The same for more symbols."""
        larger = Cells.empty(len(self.stamp), symbols)
        for name in self.__struct_fields__:
            getattr(larger, name)[..., : self.stamp.shape[1]] = getattr(self, name)
        return larger


class Book:
    """The open bars of one interval."""

    def __init__(self, slots: int) -> None:
        self.cells = Cells.empty(slots, _FIRST_CAPACITY)

    def add(self, trades: Trades) -> tuple[np.ndarray, Bars]:
        """Add trades. Returns which of them came too late for any slot, as positions, and the bars that had to leave
        theirs before they were published."""
        if not len(trades.symbols):
            return np.empty(0, np.int64), self._bars(np.empty(0, np.int64), np.empty(0, np.int64))
        most = int(trades.symbols.max()) + 1
        if most > self.cells.stamp.shape[1]:
            self.cells = self.cells.grown(max(most, 2 * self.cells.stamp.shape[1]))
        groups = _Groups.of(trades)
        late: list[np.ndarray] = []
        left: list[Bars] = []
        for round_ in groups.rounds():
            slots, placed = self._place(groups, round_, left)
            self._merge(groups, round_[placed], slots[placed])
            late += [groups.rows(group) for group in round_[~placed]]
        return np.concatenate([np.empty(0, np.int64), *late]), _joined(left, self)

    def _place(self, groups: _Groups, round_: np.ndarray, left: list[Bars]) -> tuple[np.ndarray, np.ndarray]:
        """The slot of each group of a round, of which each symbol has one at most, and whether it has one."""
        cells, symbols, stamps = self.cells, groups.symbols[round_], groups.stamps[round_]
        held = cells.stamp[:, symbols]
        known = held == stamps
        slots = np.where(known.any(axis=0), known.argmax(axis=0), held.argmin(axis=0))
        oldest = held[slots, np.arange(len(slots))]
        new = ~known.any(axis=0)
        placed = ~new | (stamps > oldest)
        taken = new & placed
        gone = taken & (oldest != EMPTY) & cells.changed[slots, symbols]
        if gone.any():
            left.append(self._published(slots[gone], symbols[gone]))
        self._clear(slots[taken], symbols[taken], stamps[taken], groups.ends[round_][taken])
        return slots, placed

    def _clear(self, slots: np.ndarray, symbols: np.ndarray, stamps: np.ndarray, ends: np.ndarray) -> None:
        cells, at = self.cells, (slots, symbols)
        cells.stamp[at], cells.end[at] = stamps, ends
        cells.first[at], cells.last[at] = 2**63 - 1, EMPTY
        cells.high[at], cells.low[at] = -np.inf, np.inf
        cells.trades[at], cells.revision[at] = 0, UNPUBLISHED
        cells.volume[:, slots, symbols] = 0
        cells.turnover[:, slots, symbols] = 0

    def _merge(self, groups: _Groups, which: np.ndarray, slots: np.ndarray) -> None:
        cells, symbols = self.cells, groups.symbols[which]
        at = slots, symbols
        earlier = groups.first[which] < cells.first[at]
        later = groups.last[which] >= cells.last[at]
        cells.open[at] = np.where(earlier, groups.open[which], cells.open[at])
        cells.close[at] = np.where(later, groups.close[which], cells.close[at])
        cells.first[at] = np.where(earlier, groups.first[which], cells.first[at])
        cells.last[at] = np.where(later, groups.last[which], cells.last[at])
        cells.high[at] = np.maximum(cells.high[at], groups.high[which])
        cells.low[at] = np.minimum(cells.low[at], groups.low[which])
        cells.trades[at] += groups.trades[which]
        for limbs, added in ((cells.volume, groups.volume), (cells.turnover, groups.turnover)):
            limbs[:, slots, symbols] = sums.carry(limbs[:, slots, symbols] + added[:, which])
        cells.moved[at] = cells.changed[at] = True

    def over(self, watermark: int) -> Bars:
        """The bars whose time is over by then and that were not published so, or have changed since."""
        cells = self.cells
        due = np.nonzero(cells.changed & (cells.end <= watermark) & (cells.stamp != EMPTY))
        return self._published(*due)

    def forming(self) -> Bars:
        """The bars that have changed and whose time is not over: as they are now."""
        cells = self.cells
        found = np.nonzero(cells.moved & (cells.revision == UNPUBLISHED))
        cells.moved[found] = False
        return self._bars(*found)

    def _published(self, slots: np.ndarray, symbols: np.ndarray) -> Bars:
        self.cells.revision[slots, symbols] += 1
        self.cells.changed[slots, symbols] = self.cells.moved[slots, symbols] = False
        return self._bars(slots, symbols)

    def note(self, said: Bars) -> None:
        """Take note of bars that were published before this process began: what was said is not said again."""
        cells = self.cells
        known = said.symbols < cells.stamp.shape[1]
        said = Bars(*(column[known] for column in said))
        held = cells.stamp[:, said.symbols] == said.stamps
        found = held.any(axis=0)
        said = Bars(*(column[found] for column in said))
        at = held.argmax(axis=0)[found], said.symbols
        cells.revision[at] = said.revisions
        cells.changed[at] = cells.moved[at] = _differ(self._bars(*at), said)

    def _bars(self, slots: np.ndarray, symbols: np.ndarray) -> Bars:
        cells, at = self.cells, (slots, symbols)
        volume, turnover = (sums.total(limbs[:, slots, symbols]) for limbs in (cells.volume, cells.turnover))
        vwap = np.divide(turnover, volume, out=np.full(len(volume), np.nan), where=volume != 0)
        return Bars(
            symbols, cells.stamp[at], cells.open[at], cells.high[at], cells.low[at], cells.close[at], volume, vwap,
            cells.trades[at], cells.revision[at],
        )  # fmt: skip


class _Groups(NamedTuple):
    """Trades of one symbol and bucket together, ordered by symbol and bucket; arrays of shape (groups,)."""

    symbols: np.ndarray
    stamps: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    last: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    trades: np.ndarray
    volume: np.ndarray
    turnover: np.ndarray
    order: np.ndarray
    bounds: np.ndarray

    @classmethod
    def of(cls, trades: Trades) -> _Groups:
        order = np.lexsort((trades.times, trades.stamps, trades.symbols))
        symbols, stamps = trades.symbols[order], trades.stamps[order]
        new = np.ones(len(order), bool)
        new[1:] = (symbols[1:] != symbols[:-1]) | (stamps[1:] != stamps[:-1])
        starts = np.flatnonzero(new)
        ends = np.append(starts[1:], len(order))
        times, prices, sizes = trades.times[order], trades.prices[order], trades.sizes[order]
        return cls(
            symbols[starts], stamps[starts], trades.ends[order][starts], times[starts], times[ends - 1],
            prices[starts], np.maximum.reduceat(prices, starts), np.minimum.reduceat(prices, starts), prices[ends - 1],
            ends - starts, sums.reduce_limbs(sizes, starts), sums.reduce_limbs(prices * sizes, starts),
            order, np.append(starts, len(order)),
        )  # fmt: skip

    def rounds(self) -> list[np.ndarray]:
        """The groups in rounds, of which each has a symbol once at most, its buckets one after the other."""
        new = np.ones(len(self.symbols), bool)
        new[1:] = self.symbols[1:] != self.symbols[:-1]
        places = np.arange(len(new))
        turn = places - np.maximum.accumulate(np.where(new, places, 0))
        return [np.flatnonzero(turn == number) for number in range(int(turn.max(initial=-1)) + 1)]

    def rows(self, group: int) -> np.ndarray:
        """The positions of its trades."""
        return self.order[self.bounds[group] : self.bounds[group + 1]]


def _differ(one: Bars, other: Bars) -> np.ndarray:
    """Which bars differ in any value."""
    names = ("open", "high", "low", "close", "volume", "vwap", "trades")
    columns = [(getattr(one, name), getattr(other, name)) for name in names]
    differ: np.ndarray = np.any([(a != b) & ~(np.isnan(a) & np.isnan(b)) for a, b in columns], axis=0)
    return differ


def _joined(parts: list[Bars], book: Book) -> Bars:
    none = np.empty(0, np.int64)
    columns = zip(book._bars(none, none), *parts, strict=True)
    return Bars(*(np.concatenate(column) for column in columns))
