"""When trades and quotes come, of which symbol, and how large they are.

Orders and quotes come as Poisson processes whose rates follow Zipf's law over the symbols. An order is filled by one or
more trades within microseconds (a Neyman-Scott cluster process), all on its side of the book.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tapehouse.sources.sim.universe import Grid, SimInstrument

FILLS_PER_ORDER = 1.4
"""Their mean; how many is geometric."""
FILL_DELAY_NS = 50_000.0
"""The mean time from an order's first fill to each other one; exponential."""
SIZE_SPREAD = 1.0
"""The standard deviation of log sizes."""
ROUNDED = 0.5
"""The share of sizes that are whole round lots."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Events in order of time, arrays of shape (events,).

    `times` are nanoseconds since the first step began, `cells` are step * symbols + symbol, `orders` the number of
    the order that each belongs to.
    """

    times: np.ndarray
    cells: np.ndarray
    orders: np.ndarray

    def where(self, chosen: np.ndarray) -> Arrivals:
        """Those of the mask."""
        return Arrivals(self.times[chosen], self.cells[chosen], self.orders[chosen])


def zipf_shares(count: int, exponent: float) -> np.ndarray:
    """Each symbol's share of all events, by its place in the list: proportional to (place + 1) ** -exponent."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    shares: np.ndarray = weights / weights.sum()
    return shares


def arrive(expected: np.ndarray, step_ns: int, fills: float, rng: np.random.Generator) -> Arrivals:
    """Events of steps, given how many are expected in each cell (steps, symbols) and how many (mean) come together."""
    counts = rng.poisson(expected / fills).ravel()
    cells = np.repeat(np.arange(len(counts)), counts)
    times = cells // expected.shape[1] * step_ns + (rng.random(len(cells)) * step_ns).astype(np.int64)
    orders = np.arange(len(cells))
    if fills > 1:
        cells, times, orders = _fill(cells, times, step_ns, rng.geometric(1 / fills, len(cells)), rng)
    # The place in the key makes keys distinct, so that any way of sorting gives one order, and says where each was.
    bits = max(1, len(times).bit_length())
    keys = times << bits
    keys |= np.arange(len(times))
    keys.sort()
    places = keys & ((1 << bits) - 1)
    return Arrivals(keys >> bits, cells.take(places), orders.take(places))


def _fill(
    cells: np.ndarray, times: np.ndarray, step_ns: int, fills: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The trades that fill orders, the last of them within the order's step."""
    orders = np.repeat(np.arange(len(cells)), fills)
    delays = (rng.standard_exponential(len(orders)) * FILL_DELAY_NS).astype(np.int64)
    delays[np.cumsum(fills) - fills] = 0
    times = times.take(orders)
    return cells.take(orders), np.minimum(times + delays, times - times % step_ns + step_ns - 1), orders


class Sizes:
    """Log-normal sizes in lots, often rounded up to whole round lots."""

    def __init__(self, instruments: Sequence[SimInstrument]) -> None:
        self._lots = Grid.of([instrument.lot for instrument in instruments])
        typical = np.array([instrument.typical_size for instrument in instruments])
        self._typical = typical * self._lots.under / self._lots.over
        self._round = np.array([instrument.round_lot for instrument in instruments], np.float64)

    def trades(self, symbols: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Of a trade in each of the symbols, half of them in round lots."""
        rounding = self._round.take(symbols)
        rounding[rng.random(len(symbols), np.float32) >= ROUNDED] = 1.0
        return self._sizes(symbols, rounding, rng)

    def quotes(self, symbols: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Of a side of the book in each of the symbols, in round lots."""
        return self._sizes(symbols, self._round.take(symbols), rng)

    def _sizes(self, symbols: np.ndarray, rounding: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        lots = np.exp(SIZE_SPREAD * rng.standard_normal(len(symbols)))
        lots *= self._typical.take(symbols)
        np.minimum(lots, self._lots.most.take(symbols), out=lots)
        lots = np.ceil(lots / rounding) * rounding
        return self._lots.values(lots, symbols)
