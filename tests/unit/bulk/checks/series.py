"""Made-up series for the tests of checks: seeded walks that a person would call clean, and places to break them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from tapehouse.bulk.checks.base import Checks, Finding, Look, Validate
from tapehouse.bulk.checks.inspection import inspector
from tapehouse.model import MINUTE_NS, NAME, SCHEMAS, SECOND_NS, TIMESTAMP, Instrument, Interval, Kind

T0 = int(datetime(2024, 1, 2, 14, 30, tzinfo=UTC).timestamp()) * SECOND_NS
"""A Tuesday on which New York opens."""

NEW_YORK = Instrument(pattern="*", calendar="XNYS", timezone="America/New_York")
ALL_DAY = Instrument(pattern="*", calendar="24/7")

Columns = dict[str, Any]


def bars(count: int = 2_000, *, seed: int = 1, symbol: str = "A", step: int = MINUTE_NS, start: int = T0) -> Columns:
    """A walk of 0.05 % a step around 100, in cents, with volumes around 1,000."""
    chance = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(chance.normal(0, 0.0005, count))), 2)
    opened = np.concatenate([[100.0], close[:-1]])
    return {
        "symbol": np.full(count, symbol),
        "timestamp": start + np.arange(count) * step,
        "open": opened,
        "high": np.round(np.maximum(opened, close) + np.abs(chance.normal(0, 0.02, count)), 2),
        "low": np.round(np.minimum(opened, close) - np.abs(chance.normal(0, 0.02, count)), 2),
        "close": close,
        "volume": np.ceil(1_000 * chance.lognormal(0, 0.8, count)),
    }


def trades(count: int = 5_000, *, seed: int = 1, symbol: str = "A") -> Columns:
    """Prices that bounce by a cent, a few a second."""
    chance = np.random.default_rng(seed)
    return {
        "symbol": np.full(count, symbol),
        "timestamp": T0 + np.cumsum(chance.integers(1, SECOND_NS, count)),
        "price": np.round(100 + np.cumsum(chance.choice([-1, 0, 1], count, p=[0.2, 0.6, 0.2])) / 100, 2),
        "size": np.ceil(chance.lognormal(4, 1, count)),
    }


def quotes(count: int = 5_000, *, seed: int = 1, symbol: str = "A") -> Columns:
    """Spreads of one to three cents around a price that moves by cents."""
    chance = np.random.default_rng(seed)
    bid = np.round(100 + np.cumsum(chance.choice([-1, 0, 1], count)) / 100, 2)
    return {
        "symbol": np.full(count, symbol),
        "timestamp": T0 + np.cumsum(chance.integers(1, SECOND_NS, count)),
        "bid": bid,
        "bid_size": np.full(count, 100.0),
        "ask": np.round(bid + chance.integers(1, 4, count) / 100, 2),
        "ask_size": np.full(count, 100.0),
    }


def scale_bars(rows: Columns, where: slice | int, factor: float) -> None:
    """Multiply the prices of some bars."""
    for name in ("open", "high", "low", "close"):
        rows[name][where] = np.round(rows[name][where] * factor, 6)


def freeze(rows: Columns, first: int, last: int) -> None:
    """Repeat the close of the bar before `first` in all prices up to `last`."""
    for name in ("open", "high", "low", "close"):
        rows[name][first:last] = rows["close"][first - 1]


def without(rows: Columns, where: slice | np.ndarray) -> Columns:
    """The rows but for some."""
    kept = np.ones(len(rows["timestamp"]), bool)
    kept[where] = False
    return {name: values[kept] for name, values in rows.items()}


def joined(*parts: Columns) -> Columns:
    """One after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def table(rows: Columns) -> pa.Table:
    """As a load makes it."""
    times = pa.array(np.asarray(rows["timestamp"], np.int64)).cast(TIMESTAMP)
    columns = {"symbol": pa.array(rows["symbol"].tolist()).cast(NAME), "timestamp": times}
    columns |= {name: pa.array(rows[name]) for name in rows if name not in columns}
    return pa.table(columns)


def kind_of(rows: Columns) -> Kind:
    return next(kind for kind, schema in SCHEMAS.items() if set(rows) <= set(schema.names))


def look(
    rows: Columns,
    interval: Interval | None = Interval.M1,
    *,
    instruments: Sequence[Instrument] = (ALL_DAY,),
    checks: Checks | None = None,
    pieces: int = 1,
) -> list[Look]:
    """All of the rows inspected, in that many blocks."""
    looking = inspector(checks or Checks(validate=Validate.FULL), instruments)
    assert looking is not None
    whole = table(rows)
    size = -(-whole.num_rows // pieces)
    for first in range(0, whole.num_rows, size):
        looking.inspect(kind_of(rows), interval if "open" in rows else None, whole.slice(first, size))
    return looking.finish()


def found(
    rows: Columns, interval: Interval | None = Interval.M1, *, instruments: Sequence[Instrument] = (ALL_DAY,)
) -> dict[str, Finding]:
    """What is found in rows of one symbol, by rule."""
    (one,) = look(rows, interval, instruments=instruments)
    return {finding.rule: finding for finding in one.findings}
