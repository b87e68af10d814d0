"""Prices that leave the band of their neighbours: slips, spikes, splits, jumps, wicks. No I/O.

The band is `BAND` robust standard deviations of log returns around their median, per block of about 128 rows and never
narrower than the blocks before and after it; a return over a pause is held against a band that grows with the root of
the time that passed, as a random walk does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tapehouse.bulk.checks.piece import LOOK_AHEAD, Ledger, Memory, Piece, change, duration
from tapehouse.model import DAY_NS, HOUR_NS, SECOND_NS, Kind

BAND = 12.0
STANDS_OUT = 4.0
"""What is beyond half a band is that many times the mean size of its block's returns, unless most of these are wild."""
SPIKE_LEAST = 0.01
"""Log returns below that are no spike, and below `JUMP_LEAST` no jump, whatever the band."""
JUMP_LEAST = 0.03
SPLIT_LEAST = 0.2
WICK_LEAST = 0.05
BACK = 0.3
"""A price is back when at most that share of the jump is left."""

UNKNOWN_SCALE = 0.25
"""For series too short for a scale: only what is 20 times as much, or less, is remarked on."""

SLIPS = np.log([10, 100, 1_000])
UNITS = np.log([100, 1_000, 10_000])
SPLITS = {
    2: "2:1", 3: "3:1", 4: "4:1", 5: "5:1", 6: "6:1", 7: "7:1", 8: "8:1", 10: "10:1", 15: "15:1", 20: "20:1",
    25: "25:1", 30: "30:1", 50: "50:1", 1.5: "3:2", 4 / 3: "4:3", 1.25: "5:4", 5 / 3: "5:3", 2.5: "5:2",
}  # fmt: skip
NEAR = 0.03
"""How far (in logs) a ratio may be from the one that it is taken for."""

CALENDAR_SLACK_DAYS = 3
"""A weekend with a holiday moves prices little more than a night does (French and Roll 1986)."""


@dataclass(frozen=True)
class Band:
    """Returns, NaN where there is none, and the band that each is held against; arrays of shape (n,).

    The band is known at the rows `at`, which stand out enough to leave it, and 0 elsewhere.
    """

    log_price: np.ndarray
    returns: np.ndarray
    center: np.ndarray
    width: np.ndarray
    at: np.ndarray

    @classmethod
    def of(cls, piece: Piece, memory: Memory, far: np.ndarray) -> Band:
        with np.errstate(divide="ignore", invalid="ignore"):
            log_price = np.log(piece.price)
            log_price[~np.isfinite(log_price)] = np.nan
            returns = np.diff(log_price, prepend=np.nan)
        returns[~piece.linked] = np.nan
        spread = np.sqrt(_steps(piece))
        scaled = (returns / spread).astype(np.float32)
        at = np.flatnonzero(piece.fresh & (_stands_out(piece, returns, scaled) | far))
        band = cls(log_price, returns, np.zeros(len(piece)), np.zeros(len(piece)), at)
        band._measure(piece, memory, scaled, spread)
        return band

    def _measure(self, piece: Piece, memory: Memory, scaled: np.ndarray, spread: np.ndarray) -> None:
        """Find the band at the rows that stand out, from their blocks and those beside."""
        blocks, holding = piece.blocks, piece.blocks.holding(self.at)
        which = blocks.beside(np.unique(holding))
        some, rows = blocks.some(which)
        center, scale = (np.full(len(blocks.starts), np.nan) for _ in range(2))
        center[which], scale[which] = some.band(scaled[rows])
        before = memory.of("scale", np.nan)[piece.ids]
        memory.of("scale", np.nan)[piece.ids] = blocks.newest(scale, before)
        widest = blocks.widest(scale, before)[holding]
        widest = np.where(np.isfinite(widest), widest, UNKNOWN_SCALE)
        self.center[self.at] = np.nan_to_num(center[holding])
        self.width[self.at] = BAND * widest * spread[self.at]

    def left(self, at: np.ndarray, least: float, share: float = 1.0) -> np.ndarray:
        """Those of the rows whose returns are beyond that share of the band and not below the least."""
        away, size = np.abs(self.returns[at] - self.center[at]), np.abs(self.returns[at])
        return np.asarray(at[(away > share * self.width[at]) & (size >= least)])


def _stands_out(piece: Piece, returns: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Rows that can be beyond half a band at all: a glance, so that few blocks need to be sorted."""
    size = np.abs(scaled)
    usual = piece.blocks.usual(np.nan_to_num(size))
    return np.asarray((size > STANDS_OUT * usual) & (np.abs(returns) >= SPIKE_LEAST))


def check_prices(piece: Piece, memory: Memory, ledger: Ledger) -> None:
    """Every fresh row's price against the band of its neighbours."""
    odd = np.flatnonzero(piece.fresh & ~(piece.price > 0))
    ledger.add("no-positive-price", piece, odd, lambda i: (f"{piece.price[odd[i]]:g}", "a price above 0"))
    far = _reaches_far(piece)
    band = Band.of(piece, memory, far)
    if far.any():
        _wicks(piece, band, far, ledger)
    at = band.left(band.at[piece.linked[band.at]], SPIKE_LEAST)
    _levels(piece, band, _changes_of_level(piece, band, memory, at, ledger), ledger)


def _changes_of_level(piece: Piece, band: Band, memory: Memory, at: np.ndarray, ledger: Ledger) -> np.ndarray:
    """Tell spikes among the rows that left the band; the others of them that are jumps, and what may be a split."""
    back = _rows_until_back(piece, band, at)
    legs = at + back
    pending = memory.of("leg", 0, np.int64)
    leg = np.isin(at, legs[back > 0]) | (pending[piece.series[at]] == piece.times[at])
    pending[piece.series[at[back > 0]]] = piece.times[legs[back > 0]]
    at, back = at[~leg], back[~leg]
    _spikes(piece, band, at[back > 0], back[back > 0], ledger)
    stays = at[back == 0]
    jumps = stays[np.abs(band.returns[stays]) >= JUMP_LEAST]
    return np.union1d(jumps, np.setdiff1d(_likely_splits(piece, band), np.concatenate([at, legs])))


def _likely_splits(piece: Piece, band: Band) -> np.ndarray:
    """Rows that open at very nearly the ratio of a split after half a band: the day itself may have made up for it."""
    at = band.left(band.at[piece.linked[band.at]], SPLIT_LEAST, 0.5)
    if not len(at):
        return at
    _, off = _nearest(np.abs(_opening(piece, band, at)), np.log(list(SPLITS)))
    return at[off <= NEAR / 2]


def _opening(piece: Piece, band: Band, at: np.ndarray) -> np.ndarray:
    """The log return to the open of a bar, or to the price of a trade or quote."""
    if piece.kind is not Kind.BARS:
        return np.asarray(band.returns[at])
    return _log(piece.columns["open"][at], piece.price[at - 1])


def _steps(piece: Piece) -> np.ndarray:
    """How many steps of its usual time passed before each row, at least 1."""
    steps = np.ones(len(piece))
    if piece.interval is None:
        usual = piece.blocks.medians(np.maximum(piece.elapsed, 0).astype(np.float32), piece.blocks.lengths)
        return np.asarray(np.maximum(1, piece.elapsed / piece.blocks.spread(np.maximum(usual, SECOND_NS))))
    slack = CALENDAR_SLACK_DAYS * DAY_NS if piece.interval.by_calendar else 0
    late = np.flatnonzero(piece.elapsed > piece.interval.nanos + slack)
    steps[late] = (piece.elapsed[late] - slack) / piece.interval.nanos
    return steps


def _rows_until_back(piece: Piece, band: Band, at: np.ndarray) -> np.ndarray:
    """After how many rows the price is where it was before each jump; 0 when it is not within three."""
    back = np.zeros(len(at), np.int64)
    before, size = band.log_price[at - 1], np.abs(band.returns[at])
    joined = np.ones(len(at), bool)
    for rows in range(1, LOOK_AHEAD + 1):
        later = np.minimum(at + rows, len(piece) - 1)
        joined &= (at + rows < len(piece)) & piece.linked[later]
        near = np.abs(band.log_price[later] - before) <= BACK * size
        back[joined & near & (back == 0)] = rows
    return back


def _said(piece: Piece, band: Band, at: np.ndarray, i: int) -> tuple[str, str]:
    """What the price is and was, and what the band allows."""
    row = int(at[i])
    value = f"{piece.price[row]:.10g} after {piece.price[row - 1]:.10g} ({change(band.returns[row])})"
    low, high = band.center[row] - band.width[row], band.center[row] + band.width[row]
    return value, f"{change(low)} to {change(high)} by its neighbours"


def _spikes(piece: Piece, band: Band, at: np.ndarray, back: np.ndarray, ledger: Ledger) -> None:
    slipped = _nearest(np.abs(band.returns[at]), SLIPS)[1] <= NEAR
    for rule, chosen in (("decimal-slip", slipped), ("spike", ~slipped)):
        rows, until = at[chosen], back[chosen]

        def describe(i: int, rows: np.ndarray = rows, until: np.ndarray = until) -> tuple[str, str]:
            value, expected = _said(piece, band, rows, i)
            return f"{value}, back after {until[i]}", expected

        ledger.add(rule, piece, rows, describe, rows=until)


def _levels(piece: Piece, band: Band, at: np.ndarray, ledger: Ledger) -> None:
    """Changes after which the price stays: by what they look like."""
    if not len(at):
        return
    size = np.abs(band.returns[at])
    unit = _nearest(size, UNITS)[1] <= NEAR
    opening = _opening(piece, band, at)
    ratios = np.array(list(SPLITS))
    nearest, off = _nearest(np.abs(opening), np.log(ratios))
    confirmed = _adjusted_by(piece, at, np.sign(opening) * np.log(ratios)[nearest])
    split = ~unit & (off <= NEAR) & (confirmed != 0)
    jump = ~unit & ~split & (np.abs(band.returns[at] - band.center[at]) > band.width[at])
    pause = _is_pause(piece, at)
    kinds = {
        "unit-change": unit,
        "split": split & (confirmed > 0),
        "split-like": split & (confirmed < 0),
        "overnight-jump": jump & pause,
        "jump": jump & ~pause,
    }
    names = list(SPLITS.values())
    for rule, chosen in kinds.items():
        rows, like = at[chosen], nearest[chosen]

        def describe(i: int, rule: str = rule, rows: np.ndarray = rows, like: np.ndarray = like) -> tuple[str, str]:
            value, expected = _said(piece, band, rows, i)
            if rule.startswith("split"):
                return f"{value}: looks like a {_ratio(names[like[i]], band.returns[rows[i]])} split", expected
            if rule == "overnight-jump":
                expected += f" after {duration(piece.elapsed[rows[i]])}"
            return value, expected

        ledger.add(rule, piece, rows, describe)


def _ratio(name: str, log_return: float) -> str:
    return name if log_return < 0 else ":".join(reversed(name.split(":")))


def _adjusted_by(piece: Piece, at: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """What adjusted closes say of a split by that log ratio: 1 yes, 0 no, -1 nothing."""
    adjusted = piece.columns.get("adj_close")
    if adjusted is None:
        return np.full(len(at), -1)
    factor = _log(piece.price[at], adjusted[at]) - _log(piece.price[at - 1], adjusted[at - 1])
    return np.where(np.isfinite(factor), np.abs(factor - ratio) <= NEAR, -1)


def _is_pause(piece: Piece, at: np.ndarray) -> np.ndarray:
    if piece.interval is None:
        return np.asarray(piece.elapsed[at] > HOUR_NS)
    if piece.interval.by_calendar:
        return np.zeros(len(at), bool)
    step = piece.interval.nanos
    return np.asarray(piece.elapsed[at] > max(2 * step, min(60 * step, HOUR_NS)))


def _wicks(piece: Piece, band: Band, far: np.ndarray, ledger: Ledger) -> None:
    """Highs and lows (and so opens) far outside this close and the one before."""
    close, high, low = (piece.columns[name] for name in ("close", "high", "low"))
    before = _close_before(piece)
    at = band.at[far[band.at]]
    reach = np.maximum(high[at] / np.maximum(close, before)[at], np.minimum(close, before)[at] / low[at])
    at = at[np.log(reach) > band.width[at]]

    def describe(i: int) -> tuple[str, str]:
        row = int(at[i])
        value = f"high {high[row]:.10g}, low {low[row]:.10g}, close {close[row]:.10g} after {before[row]:.10g}"
        return value, f"no further than {change(band.width[row])} beyond both closes"

    ledger.add("wick", piece, at, describe)


def _reaches_far(piece: Piece) -> np.ndarray:
    """Bars that reach further than `WICK_LEAST` beyond this close and the one before."""
    if piece.kind is not Kind.BARS:
        return np.zeros(len(piece), bool)
    close, high, low, before = *(piece.columns[name] for name in ("close", "high", "low")), _close_before(piece)
    most = np.exp(WICK_LEAST)
    with np.errstate(over="ignore"):
        far = (high > most * np.maximum(close, before)) | (low * most < np.minimum(close, before))
    return np.asarray(far & (low > 0))


def _close_before(piece: Piece) -> np.ndarray:
    """The close of the bar above, or this one's where there is none."""
    close = piece.columns["close"]
    before = np.concatenate([close[:1], close[:-1]])
    return np.where(piece.linked, before, close)


def _log(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.log(above / below))


def _nearest(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the known values is nearest to each, and how far it is."""
    away = np.abs(values[:, None] - known[None, :])
    nearest = away.argmin(axis=1)
    return nearest, away[np.arange(len(values)), nearest]
