"""Correlated prices and the book around them.

Log prices are geometric Brownian motion without a trend of the price (Black and Scholes 1973), whose shocks have a
market's, a sector's and an own part (Sharpe 1963, King 1966):

    dx_i = sigma_i sqrt(dt) (sqrt(m) M + sqrt(s) S_sector(i) + sqrt(1 - m - s) E_i) - sigma_i^2 dt / 2

so that returns correlate by m, and by m + s within a sector. Bid and ask stand around the price plus a noise that
reverts to 0 (Ornstein and Uhlenbeck 1930), and trades happen at either (Roll 1984).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from tapehouse.errors import InvalidRequest
from tapehouse.model import SECOND_NS
from tapehouse.sources.sim.universe import Grid, SimInstrument

NOISE_S = 5.0
"""In so many seconds the noise falls to 1/e."""
NOISE_SPREADS = 0.5
"""The standard deviation of the noise, in spreads."""
SPREAD_VARIES = 0.5
"""A spread is between its mean less and more that share of it, as long as that is more than a tick."""


class Correlation(msgspec.Struct, frozen=True):
    """How returns correlate: `market` between any two symbols, `market + sector` within a sector."""

    market: float = 0.25
    sector: float = 0.2

    def check(self) -> None:
        """`InvalidRequest` unless both are at least 0 and together at most 1."""
        if not (self.market >= 0 and self.sector >= 0 and self.market + self.sector <= 1):
            raise InvalidRequest(
                f"correlations are at least 0 and together at most 1, not {self.market}, {self.sector}"
            )


@dataclass(frozen=True, slots=True)
class Standing:
    """Where prices stand: log prices and noise, both of shape (symbols,); the noise in its standard deviations."""

    log_price: np.ndarray
    noise: np.ndarray


class Sides(NamedTuple):
    """The best bid and ask, in ticks (whole, float64, at least 1)."""

    bid: np.ndarray
    ask: np.ndarray


@dataclass(frozen=True, slots=True)
class Path:
    """Prices at the edges of steps, shape (steps + 1, symbols), and the spread of each step, in ticks."""

    mids: np.ndarray
    spreads: np.ndarray

    def sides(self, cells: np.ndarray, shares: np.ndarray) -> Sides:
        """Bid and ask in cells (step * symbols + symbol) when a share from 0 to 1 of the step has passed."""
        before, after = (self.mids.ravel().take(cells + skip) for skip in (0, self.mids.shape[1]))
        spread = self.spreads.ravel().take(cells)
        bid = np.floor(before + (after - before) * shares - (spread - 1) / 2)
        np.maximum(bid, 1.0, out=bid)
        return Sides(bid, bid + spread)


class Walk:
    """How the prices of some instruments move; it keeps nothing."""

    def __init__(self, instruments: Sequence[SimInstrument], correlation: Correlation, groups: np.ndarray) -> None:
        """`groups` are the numbers of the instruments' calendars."""
        correlation.check()
        self._groups = groups
        sectors = sorted({instrument.sector for instrument in instruments})
        numbers = {sector: number for number, sector in enumerate(sectors)}
        self._sector = np.array([numbers[instrument.sector] for instrument in instruments])
        self._sectors = len(sectors)
        self._loads = [math.sqrt(part) for part in (correlation.market, correlation.sector)]
        self._own = math.sqrt(max(0.0, 1 - correlation.market - correlation.sector))
        self._volatility = np.array([instrument.volatility for instrument in instruments])
        self._spread = np.array([instrument.spread for instrument in instruments])
        self._start = np.log([instrument.price for instrument in instruments])
        self._ticks = Grid.of([instrument.tick for instrument in instruments])

    def start(self) -> Standing:
        """Where the instruments' own prices are."""
        return Standing(self._start, np.zeros(len(self._start)))

    def across(self, at: Standing, years: np.ndarray, rng: np.random.Generator) -> Standing:
        """Where prices are after one pause, given how much of a year's variance it has, by calendar."""
        return Standing(at.log_price + self._returns(years[None], rng)[0], at.noise)

    def along(self, at: Standing, years: np.ndarray, step_ns: int, rng: np.random.Generator) -> tuple[Path, Standing]:
        """The path over steps, whose variance `years` are of shape (steps, calendars), and where it ends."""
        moves = np.cumsum(np.vstack([at.log_price, self._returns(years, rng)]), axis=0)
        noise = self._noise(at.noise, len(years), step_ns, rng)
        mids = np.exp(moves + noise * (NOISE_SPREADS * self._spread))
        mids *= self._ticks.under / self._ticks.over
        np.minimum(mids, self._ticks.most, out=mids)
        varied = 1 + SPREAD_VARIES * (2 * rng.random((len(years), len(self._spread)), np.float32) - 1)
        spreads = np.maximum(np.rint(mids[:-1] * self._spread * varied), 1.0)
        return Path(mids, spreads), Standing(moves[-1], noise[-1])

    def _returns(self, years: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Log returns of shape (steps, symbols)."""
        shocks = rng.standard_normal((len(years), len(self._groups)))
        shocks *= self._own
        shocks += self._loads[0] * rng.standard_normal((len(years), 1))
        shocks += (self._loads[1] * rng.standard_normal((len(years), self._sectors)))[:, self._sector]
        deviation = np.sqrt(years)[:, self._groups] * self._volatility
        shocks *= deviation
        shocks -= deviation**2 / 2
        return shocks

    def _noise(self, before: np.ndarray, steps: int, step_ns: int, rng: np.random.Generator) -> np.ndarray:
        """The noise at the edges of steps, exact at any length of them; its variance is 1 in the long run."""
        left = math.exp(-step_ns / SECOND_NS / NOISE_S)
        noise = np.empty((steps + 1, len(before)))
        noise[0] = before
        noise[1:] = rng.standard_normal((steps, len(before)))
        noise[1:] *= math.sqrt(1 - left**2)
        for step in range(steps):
            noise[step + 1] += left * noise[step]
        return noise
