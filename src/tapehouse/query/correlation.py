"""Correlation of returns between symbols.

A return is the logarithm of a bucket's close over the close of the bucket before it in which the symbol has rows. Two
symbols have a return in common when theirs begin and end in the same buckets, so that a gap of one is never compared
with a shorter span of the other. Of those, and for each pair of its own (pairwise complete), Pearson's coefficient

    r = sum((x - mean(x)) (y - mean(y))) / sqrt(sum((x - mean(x))^2) sum((y - mean(y))^2))

which is None with fewer than two common returns, and where one of the two never moves. A close that is not above 0 has
no logarithm, and counts as if there were none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from tapehouse.model import NAME

MEASURE = "correlation"
SCHEMA = pa.schema(
    [
        pa.field("symbol", NAME, nullable=False),
        pa.field("other", NAME, nullable=False),
        pa.field(MEASURE, pa.float64()),
        pa.field("returns", pa.int64(), nullable=False),
    ]
)
"""A row per pair, ordered; `symbol` comes before `other`. `returns` is how many they have in common."""

_MOST_CELLS = 4_000_000
"""Of symbols times returns that are held at once: 32 MB."""

_STILL = 1e-12
"""A variance, relative to that of all returns of the symbol, that is nothing but rounding."""

Closes = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By symbol: ascending bucket numbers (int64) and closes (float64; NaN where there is none)."""


def correlations(closes: Closes) -> pa.Table:
    """A row for each pair of the symbols, of which there are at least two."""
    names = sorted(closes)
    sums = _Sums(len(names))
    for block in _blocks([_returns(*closes[name]) for name in names]):
        sums.add(block)
    first, second = np.triu_indices(len(names), 1)
    values, common = sums.correlation()[first, second], sums.common[first, second]
    symbols = pa.array(np.array(names, object), pa.string())
    return pa.table(
        [
            pa.DictionaryArray.from_arrays(pa.array(first.astype(np.int32)), symbols),
            pa.DictionaryArray.from_arrays(pa.array(second.astype(np.int32)), symbols),
            pa.array(values, mask=np.isnan(values)),
            pa.array(common.astype(np.int64)),
        ],
        schema=SCHEMA,
    )


def _returns(buckets: np.ndarray, closes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The buckets in which each return begins and ends, as two columns, and the returns, centred and scaled.

    Neither changes a correlation; both keep its sums exact.
    """
    there = closes > 0
    buckets, logs = buckets[there], np.log(closes[there])
    values = np.diff(logs)
    if len(values):
        values = values - values.mean()
        spread = float(np.sqrt(np.mean(values * values)))
        rounding = 8 * np.finfo(np.float64).eps * max(1.0, float(np.abs(logs).max()))
        values = values / spread if spread > rounding else np.zeros_like(values)
    return np.column_stack([buckets[:-1], buckets[1:]]), values


def _blocks(returns: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    """Symbols by common returns, NaN where a symbol has none, in blocks of some returns."""
    spans = np.concatenate([spans for spans, _ in returns])
    if not len(spans):
        return
    distinct, places = np.unique(spans, axis=0, return_inverse=True)
    places = places.reshape(-1)
    owners = np.repeat(np.arange(len(returns)), [len(values) for _, values in returns])
    values = np.concatenate([values for _, values in returns])
    order = np.argsort(places, kind="stable")
    places, owners, values = places[order], owners[order], values[order]
    width = max(1, _MOST_CELLS // len(returns))
    for start in range(0, len(distinct), width):
        low, high = np.searchsorted(places, [start, start + width])
        block = np.full((len(returns), min(width, len(distinct) - start)), np.nan)
        block[owners[low:high], places[low:high] - start] = values[low:high]
        yield block


class _Sums:
    """For each pair (i, j) over their common returns: their number, and sums of x_i, x_i^2 and x_i x_j."""

    def __init__(self, symbols: int) -> None:
        self.common = np.zeros((symbols, symbols))
        self._first = np.zeros_like(self.common)
        self._squares = np.zeros_like(self.common)
        self._products = np.zeros_like(self.common)

    def add(self, block: np.ndarray) -> None:
        """Count the returns of a block (symbols by returns, NaN where there is none)."""
        there = np.isfinite(block)
        mask, values = there.astype(np.float64), np.where(there, block, 0.0)
        self.common += mask @ mask.T
        self._first += values @ mask.T
        self._squares += (values * values) @ mask.T
        self._products += values @ values.T

    def correlation(self) -> np.ndarray:
        """Of each pair, NaN where there is none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            number = self.common
            covariance = self._products - self._first * self._first.T / number
            variance = self._squares - self._first * self._first / number
            variance[variance <= _STILL * number] = np.nan
            found = covariance / np.sqrt(variance * variance.T)
        found[number < 2] = np.nan
        return np.clip(found, -1.0, 1.0)
