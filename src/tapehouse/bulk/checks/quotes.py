"""Quotes whose sides do not fit, and trades that do not fit the quotes or bars of their time. No I/O."""

from __future__ import annotations

import numpy as np

from tapehouse.bulk.checks.piece import Ledger, Memory, Piece

WIDE_SPREAD = 0.05
"""A spread is wide above that share of the price, and `WIDE_RATIO` times the usual one."""
WIDE_RATIO = 20.0

FAR = 0.01
"""A trade is far from the quotes or bars of its time by more than that share of the price and `FAR_SPREADS` spreads."""
FAR_SPREADS = 5.0


def check_quotes(piece: Piece, memory: Memory, ledger: Ledger) -> None:
    """Bids above the ask, at it, or far below it. One-sided quotes (a side of 0) have no spread."""
    bid, ask = piece.columns["bid"], piece.columns["ask"]
    sided = piece.fresh & (bid > 0) & (ask > 0)

    def describe(at: np.ndarray, i: int, expected: str) -> tuple[str, str]:
        return f"bid {bid[at[i]]:.10g}, ask {ask[at[i]]:.10g}", expected

    crossed, locked = np.flatnonzero(sided & (bid > ask)), np.flatnonzero(sided & (bid == ask))
    ledger.add("crossed", piece, crossed, lambda i: describe(crossed, i, "a bid below the ask"))
    ledger.add("locked", piece, locked, lambda i: describe(locked, i, "a bid below the ask"))
    spread = np.where((bid > 0) & (ask > 0), ask - bid, np.nan)
    wide = np.flatnonzero(sided & (spread > WIDE_SPREAD * ask))
    if len(wide):
        counts = piece.blocks.sum(np.isfinite(spread)).astype(np.int64)
        usual = piece.blocks.spread(piece.blocks.medians(spread.astype(np.float32), counts))
        wide = wide[spread[wide] > WIDE_RATIO * usual[wide]]
        ledger.add("wide-spread", piece, wide, lambda i: describe(wide, i, f"a spread near {usual[wide[i]]:.6g}"))


def outside_quotes(
    times: np.ndarray, prices: np.ndarray, quote_times: np.ndarray, bid: np.ndarray, ask: np.ndarray
) -> np.ndarray:
    """Which trades are far from the newest quote at or before them; all arrays ascending by time, (n,) and (m,)."""
    at = np.searchsorted(quote_times, times, side="right") - 1
    known = (at >= 0) & (len(quote_times) > 0)
    if not known.any():
        return np.zeros(len(times), bool)
    low, high = np.minimum(bid[at], ask[at]), np.maximum(bid[at], ask[at])
    slack = np.maximum(FAR * high, FAR_SPREADS * (high - low))
    return np.asarray(known & (low > 0) & ((prices > high + slack) | (prices < low - slack)))


def outside_bars(
    times: np.ndarray, prices: np.ndarray, bar_times: np.ndarray, low: np.ndarray, high: np.ndarray, nanos: int
) -> np.ndarray:
    """Which trades are far outside the bar of `nanos` that they are in; ascending by time, (n,) and (m,)."""
    at = np.searchsorted(bar_times, times, side="right") - 1
    inside = (at >= 0) & (len(bar_times) > 0)
    if not inside.any():
        return np.zeros(len(times), bool)
    inside &= times < bar_times[at] + nanos
    return np.asarray(inside & ((prices > high[at] * (1 + FAR)) | (prices < low[at] * (1 - FAR))))
