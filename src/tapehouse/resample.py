"""Bars from finer bars or trades, and measures per time bucket: plain numpy over sorted arrays, no I/O, no calendars.

Rows are sorted by time. Bucket i is `[edges[i], edges[i + 1])`; buckets without rows are absent from every result. A
value that is not known is NaN (for counts of trades: -1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from tapehouse import sums
from tapehouse.errors import InvalidRequest

UNKNOWN_TRADES = -1

MEASURES = ("open", "high", "low", "close", "volume", "vwap", "count", "trades", "return", "volatility")
GROUP_MEASURES = ("volume", "vwap", "count", "trades", "return", "volatility")
DEFAULT_MEASURES = ("open", "high", "low", "close", "volume", "count")
DEFAULT_GROUP_MEASURES = ("volume", "count")
"""A group has no prices of its own."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Bars or trades of one symbol, ascending by time; all arrays have shape (n,).

    `times` is int64 nanoseconds. `vwap` and `adj_close` are float64 with NaN where a row has none, `trades` is int64
    with -1 where unknown; None when no row has them.
    """

    times: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    vwap: np.ndarray | None = None
    trades: np.ndarray | None = None
    adj_close: np.ndarray | None = None

    @classmethod
    def of_trades(cls, times: np.ndarray, price: np.ndarray, size: np.ndarray) -> Rows:
        """Trades as bars of one trade each."""
        return cls(times, price, price, price, price, size, vwap=price, trades=np.ones(len(times), np.int64))

    def __len__(self) -> int:
        return len(self.times)

    def take(self, where: slice | np.ndarray) -> Rows:
        """The rows at a slice, a mask or positions."""
        columns: list[Any] = [None if column is None else column[where] for column in self._columns()]
        return Rows(*columns)

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """One after the other; a column stays None only when it is None in all."""
        if len(parts) == 1:
            return parts[0]
        return cls(*[_concat(field.name, parts) for field in fields(cls)])

    def _columns(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]


def _concat(name: str, parts: Sequence[Rows]) -> Any:
    columns = [getattr(part, name) for part in parts]
    if all(column is None for column in columns):
        return None
    unknown = UNKNOWN_TRADES if name == "trades" else np.nan
    return np.concatenate(
        [np.full(len(p), unknown) if c is None else c for c, p in zip(columns, parts, strict=True)]
    ).astype(np.int64 if name in ("times", "trades") else np.float64, copy=False)


@dataclass(frozen=True, slots=True)
class Bars:
    """Resampled bars: `buckets` are the indices of the buckets that have rows, `parts` how many rows each has.

    `rows.times` are the starts of the buckets; `rows.vwap` and `rows.trades` are NaN or -1 where any part lacks them.
    """

    buckets: np.ndarray
    parts: np.ndarray
    rows: Rows


@dataclass(frozen=True, slots=True)
class _Runs:
    """Where the rows of each bucket start and end (`end` is exclusive), for the buckets that have any.

    `first` are the runs that are the first of their symbol.
    """

    buckets: np.ndarray
    start: np.ndarray
    end: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, times: np.ndarray, edges: np.ndarray) -> _Runs:
        at = np.searchsorted(times, edges)
        filled = np.flatnonzero(at[1:] > at[:-1])
        return cls(filled, at[filled], at[filled + 1], np.arange(min(1, len(filled))))

    @classmethod
    def of_each(cls, times: np.ndarray, bounds: Sequence[int], edges: np.ndarray) -> _Runs:
        """The same for symbols whose rows follow one another, symbol i from `bounds[i]` to `bounds[i + 1]`."""
        pairs = list(pairwise(bounds))
        at = np.stack([low + np.searchsorted(times[low:high], edges) for low, high in pairs])
        symbol, bucket = np.nonzero(at[:, 1:] > at[:, :-1])
        first = np.searchsorted(symbol, np.unique(symbol))
        return cls(bucket, at[symbol, bucket], at[symbol, bucket + 1], first)

    def sum(self, column: np.ndarray) -> np.ndarray:
        """The sum of each bucket's values, whatever their order (`sums`)."""
        return sums.reduce(column[: self.end[-1]], self.start) if len(self.start) else column[:0]

    def reduce(self, ufunc: np.ufunc, column: np.ndarray) -> np.ndarray:
        """`ufunc` over each bucket's values; the buckets with rows are adjacent, so that reduceat sees no others."""
        if not len(self.start):
            return column[:0]
        reduced: np.ndarray = ufunc.reduceat(column[: self.end[-1]], self.start)
        return reduced


def resample(rows: Rows, edges: np.ndarray) -> Bars:
    """Open first, high max, low min, close last, volume and trades sum, vwap weighted by volume, adj_close last."""
    runs = _Runs.of(rows.times, edges)
    volume = runs.sum(rows.volume)
    made = Rows(
        times=edges[runs.buckets],
        open=rows.open[runs.start],
        high=runs.reduce(np.maximum, rows.high),
        low=runs.reduce(np.minimum, rows.low),
        close=rows.close[runs.end - 1],
        volume=volume,
        vwap=None if rows.vwap is None else _vwap(runs, rows.vwap, rows.volume, volume),
        trades=None if rows.trades is None else _trades(runs, rows.trades),
        adj_close=None if rows.adj_close is None else rows.adj_close[runs.end - 1],
    )
    return Bars(runs.buckets, runs.end - runs.start, made)


def _vwap(runs: _Runs, price: np.ndarray, volume: np.ndarray, total: np.ndarray) -> np.ndarray:
    # A part without volume has no say in the price, whether or not it knows its own.
    turnover = runs.sum(np.where(volume == 0, 0.0, price * volume))
    return _ratio(turnover, total)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN where bottom is 0."""
    quotient: np.ndarray = np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom != 0)
    return quotient


def _trades(runs: _Runs, trades: np.ndarray) -> np.ndarray:
    known = runs.reduce(np.minimum, trades) >= 0
    return np.where(known, runs.reduce(np.add, trades), UNKNOWN_TRADES)


def choose(coverage: np.ndarray) -> np.ndarray:
    """The candidate that covers each bucket best: shape (candidates, buckets) -> (buckets,), -1 where none has rows.

    `coverage` is the share of the expected parts that a candidate has, 0 for none at all. Candidates are ordered from
    coarse to fine, and a tie goes to the coarser, which its source made and not we.
    """
    if not len(coverage):
        return np.full(coverage.shape[1], -1)
    return np.where(coverage.max(axis=0) > 0, coverage.argmax(axis=0), -1)


@dataclass(frozen=True, slots=True)
class Measured:
    """Measures of one symbol or group: per bucket that has rows, its index and float64 values (NaN: not known)."""

    buckets: np.ndarray
    values: Mapping[str, np.ndarray]


def measure(rows: Rows, edges: np.ndarray, measures: Sequence[str]) -> Measured:
    """Measures of one symbol's rows per bucket.

    - `vwap`: the rows' vwap, or close where a row has none, weighted by volume.
    - `count`: source rows; `trades`: the number of trades, unknown when a row does not know its own.
    - `return`: close / close of the previous bucket that has rows - 1; not known for the first.
    - `volatility`: realised volatility, the square root of the sum of squared log returns (Andersen and Bollerslev,
      1998). A bucket stands by itself: its first row counts ln(close / open), the others ln(close / previous close),
      so the move from the bucket before is not in it. Not known when a price is not positive.

    Raises `InvalidRequest` for a measure that is not there.
    """
    check_measures(measures, MEASURES)
    runs = _Runs.of(rows.times, edges)
    return Measured(runs.buckets, {name: _MEASURES[name](rows, runs) for name in measures})


def measure_each(rows: Rows, bounds: Sequence[int], edges: np.ndarray, measures: Sequence[str]) -> list[Measured]:
    """`measure` of several symbols with the same edges, which cover all their rows; much faster than one by one.

    The rows of symbol i stand from `bounds[i]` to `bounds[i + 1]`.
    """
    check_measures(measures, MEASURES)
    runs = _Runs.of_each(rows.times, bounds, edges)
    if not np.array_equal(runs.end[:-1], runs.start[1:]):
        return [measure(rows.take(slice(low, high)), edges, measures) for low, high in pairwise(bounds)]
    cuts = np.searchsorted(runs.start, np.asarray(bounds[1:-1], np.int64))
    values = {name: np.split(_MEASURES[name](rows, runs), cuts) for name in measures}
    buckets = np.split(runs.buckets, cuts)
    return [Measured(held, {name: values[name][i] for name in measures}) for i, held in enumerate(buckets)]


def check_measures(measures: Sequence[str], known: Sequence[str]) -> None:
    """Raises `InvalidRequest` for a measure that is not known, says why a group has no price, or for none at all."""
    if not measures:
        raise InvalidRequest(f"no measures asked for; there are {', '.join(known)}", measures=[])
    for name in measures:
        if name not in known and name in MEASURES:
            raise InvalidRequest(f"a group has no {name}: prices of different symbols do not add up", measure=name)
        if name not in known:
            raise InvalidRequest(f"unknown measure {name[:40]!r}; there are {', '.join(known)}", measure=name)


def _measure_vwap(rows: Rows, runs: _Runs) -> np.ndarray:
    price = rows.close if rows.vwap is None else np.where(np.isnan(rows.vwap), rows.close, rows.vwap)
    return _vwap(runs, price, rows.volume, runs.sum(rows.volume))


def _measure_trades(rows: Rows, runs: _Runs) -> np.ndarray:
    if rows.trades is None:
        return np.full(len(runs.start), np.nan)
    trades = _trades(runs, rows.trades)
    return np.where(trades == UNKNOWN_TRADES, np.nan, trades)


def _measure_return(rows: Rows, runs: _Runs) -> np.ndarray:
    close = rows.close[runs.end - 1]
    returns = np.full(len(close), np.nan)
    returns[1:] = _ratio(close[1:], close[:-1]) - 1
    returns[runs.first] = np.nan
    return returns


def _measure_volatility(rows: Rows, runs: _Runs) -> np.ndarray:
    before = np.full(len(rows), np.nan)
    before[1:] = rows.close[:-1]
    before[runs.start] = rows.open[runs.start]
    positive = (before > 0) & (rows.close > 0)
    squares = np.square(np.log(_ratio(rows.close, np.where(positive, before, 0.0)), where=positive, out=before))
    realised: np.ndarray = np.sqrt(runs.reduce(np.add, np.where(positive, squares, np.nan)))
    return realised


_MEASURES: dict[str, Callable[[Rows, _Runs], np.ndarray]] = {
    "open": lambda rows, runs: rows.open[runs.start],
    "high": lambda rows, runs: runs.reduce(np.maximum, rows.high),
    "low": lambda rows, runs: runs.reduce(np.minimum, rows.low),
    "close": lambda rows, runs: rows.close[runs.end - 1],
    "volume": lambda rows, runs: runs.sum(rows.volume),
    "vwap": _measure_vwap,
    "count": lambda rows, runs: (runs.end - runs.start).astype(np.float64),
    "trades": _measure_trades,
    "return": _measure_return,
    "volatility": _measure_volatility,
}


def member_measures(measures: Sequence[str]) -> tuple[str, ...]:
    """What to measure of each member of a group so that `combine` can give the measures of the group.

    Raises `InvalidRequest` for open, high, low and close: a group has no price.
    """
    check_measures(measures, GROUP_MEASURES)
    return tuple(dict.fromkeys([*measures, *(("volume",) if "vwap" in measures else ())]))


def combine(members: Sequence[Measured], measures: Sequence[str]) -> Measured:
    """Measures of a group from the `member_measures` of its members, where bucket i of one is bucket i of all.

    Volume, count and trades are sums (trades: unknown when a member's is), vwap is turnover over volume, return and
    volatility are the equal-weighted means over the members that have them.
    """
    buckets = np.unique(np.concatenate([m.buckets for m in members])) if members else np.empty(0, np.int64)
    return Measured(buckets, {name: _of_members(name, buckets, members) for name in measures})


def _of_members(name: str, buckets: np.ndarray, members: Sequence[Measured]) -> np.ndarray:
    if name == "vwap":
        turnover = [np.where(m.values["volume"] == 0, 0.0, m.values["vwap"] * m.values["volume"]) for m in members]
        total = _sum(buckets, members, [m.values["volume"] for m in members])
        return _ratio(_sum(buckets, members, turnover), total)
    values = [m.values[name] for m in members]
    if name not in ("return", "volatility"):
        return _sum(buckets, members, values)
    known = [(~np.isnan(value)).astype(np.float64) for value in values]
    count = _sum(buckets, members, known)
    return _ratio(_sum(buckets, members, [np.nan_to_num(value, nan=0.0) for value in values]), count)


def _sum(buckets: np.ndarray, members: Sequence[Measured], values: Sequence[np.ndarray]) -> np.ndarray:
    total = np.zeros(len(buckets))
    for member, value in zip(members, values, strict=True):
        total[np.searchsorted(buckets, member.buckets)] += value
    return total
