"""What is traded: the instruments of a simulated market, and a default choice of any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import msgspec
import numpy as np

from tapehouse.errors import InvalidRequest
from tapehouse.model import check_symbol

CRYPTO = "crypto"
_SECTORS = ("technology", "finance", "energy", "health", "consumer", "industry", "utilities", "materials")
_GOLDEN = (5**0.5 - 1) / 2


class SimInstrument(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument of a simulated market.

    `price` is where it begins, `tick` and `lot` the steps of price and size; `round_lot` is a number of lots that sizes
    are often rounded up to. `volatility` is annual (0.3: 30 %), `spread` a share of the price (0.0002: 2 basis points),
    `typical_size` the median size of a trade. Instruments of one `sector` move together more than others; `calendar`
    says when it trades.
    """

    symbol: str
    price: float
    tick: float = 0.01
    lot: float = 1.0
    round_lot: int = 100
    volatility: float = 0.3
    spread: float = 0.0002
    typical_size: float = 80.0
    sector: str = "technology"
    calendar: str = "XNYS"

    def check(self) -> Self:
        """Itself; `InvalidRequest` (`InvalidSymbol`) when it cannot be traded."""
        check_symbol(self.symbol)
        for name in ("price", "tick", "lot", "typical_size"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InvalidRequest(f"{self.symbol}: {name} must be more than 0, not {getattr(self, name)}")
        for name in ("volatility", "spread"):
            if not 0 <= getattr(self, name) <= 10:
                raise InvalidRequest(f"{self.symbol}: {name} must be between 0 and 10, not {getattr(self, name)}")
        if self.round_lot < 1:
            raise InvalidRequest(f"{self.symbol}: round_lot must be at least 1, not {self.round_lot}")
        return self


@dataclass(frozen=True, slots=True)
class Grid:
    """Steps of prices or sizes as fractions, arrays of shape (symbols,): a value is `steps * over / under`.

    Both are whole, so a value is the float nearest to the decimal: 10123 steps of 0.01 are 10123 / 100.0, not
    10123 * 0.01.
    """

    over: np.ndarray
    under: np.ndarray

    @classmethod
    def of(cls, steps: Sequence[float]) -> Self:
        """The grid of those steps, each taken as the decimal that it is written as."""
        exact = [Fraction(str(step)) for step in steps]
        return cls(
            np.array([step.numerator for step in exact], np.float64),
            np.array([step.denominator for step in exact], np.float64),
        )

    def values(self, steps: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Whole numbers of steps (float64) of those symbols as prices or sizes, correctly rounded."""
        value: np.ndarray = steps * self.over.take(symbols) / self.under.take(symbols)
        return value

    @property
    def most(self) -> np.ndarray:
        """Of each symbol a number of steps up to which the product above is exact, with room for a spread."""
        limit: np.ndarray = np.floor(2.0**50 / self.over)
        return limit


_KNOWN = [
    SimInstrument(symbol="AAPL", price=228.5, volatility=0.24, typical_size=90),
    SimInstrument(symbol="MSFT", price=431.2, volatility=0.22, typical_size=60),
    SimInstrument(symbol="NVDA", price=126.4, volatility=0.45, typical_size=150),
    SimInstrument(symbol="AMZN", price=187.9, volatility=0.3, typical_size=80, sector="consumer"),
    SimInstrument(
        symbol="BTC-USDT",
        price=64_250.0,
        lot=1e-8,
        round_lot=1,
        volatility=0.55,
        spread=1e-5,
        typical_size=0.012,
        sector=CRYPTO,
        calendar="24/7",
    ),
    SimInstrument(symbol="SPY", price=561.3, volatility=0.14, spread=2e-5, sector="market"),
    SimInstrument(symbol="TSLA", price=219.4, volatility=0.52, typical_size=90, sector="consumer"),
    SimInstrument(
        symbol="ETH-USDT",
        price=3_120.0,
        lot=1e-8,
        round_lot=1,
        volatility=0.68,
        spread=1e-5,
        typical_size=0.2,
        sector=CRYPTO,
        calendar="24/7",
    ),
    SimInstrument(symbol="GOOGL", price=164.7, volatility=0.27),
    SimInstrument(symbol="META", price=521.8, volatility=0.35, typical_size=50),
    SimInstrument(symbol="QQQ", price=476.1, volatility=0.18, spread=2e-5, sector="market"),
    SimInstrument(symbol="JPM", price=211.3, volatility=0.21, sector="finance"),
    SimInstrument(symbol="XOM", price=117.6, volatility=0.24, sector="energy"),
    SimInstrument(symbol="UNH", price=577.2, volatility=0.25, typical_size=40, sector="health"),
    SimInstrument(symbol="BRK.B", price=456.9, volatility=0.16, typical_size=40, sector="finance"),
    SimInstrument(
        symbol="SOL-USDT",
        price=147.3,
        lot=0.001,
        round_lot=1,
        volatility=0.85,
        spread=7e-5,
        typical_size=5.0,
        sector=CRYPTO,
        calendar="24/7",
    ),
    SimInstrument(symbol="AMD", price=152.2, volatility=0.48, typical_size=100),
    SimInstrument(symbol="INTC", price=21.4, volatility=0.42, typical_size=250),
    SimInstrument(symbol="KO", price=69.8, volatility=0.14, typical_size=120, sector="consumer"),
    SimInstrument(symbol="CAT", price=352.4, volatility=0.27, typical_size=30, sector="industry"),
    SimInstrument(
        symbol="DOGE-USDT",
        price=0.10452,
        tick=0.00001,
        round_lot=1,
        volatility=0.9,
        spread=1e-4,
        typical_size=900.0,
        sector=CRYPTO,
        calendar="24/7",
    ),
    SimInstrument(symbol="NEE", price=79.3, volatility=0.25, sector="utilities"),
    SimInstrument(symbol="FCX", price=43.9, volatility=0.38, sector="materials"),
]


def default_symbols(count: int) -> list[SimInstrument]:
    """So many instruments, no two alike: well-known names at prices they once had, then `SIM00001` and so on.

    A longer choice begins with the shorter one. Raises `InvalidRequest` for less than one.
    """
    if count < 1:
        raise InvalidRequest(f"a market has at least one symbol, not {count}")
    return _KNOWN[:count] + [_made_up(number) for number in range(1, count - len(_KNOWN) + 1)]


def _made_up(number: int) -> SimInstrument:
    """A stock of 4 to 400 with more volatility and a wider spread the smaller it is (in rank)."""
    even, other = (number * _GOLDEN) % 1, (number * 2**0.5) % 1
    price = round(4 * 100**even, 2)
    return SimInstrument(
        symbol=f"SIM{number:05d}",
        price=price,
        volatility=round(0.18 + 0.4 * other, 3),
        spread=round(0.0002 + 0.001 * other, 5),
        typical_size=round(20 + 6_000 / (price + 20)),
        sector=_SECTORS[number % len(_SECTORS)],
    )
