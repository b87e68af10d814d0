"""Small tables for the tests of the query stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tapehouse.model import TIMESTAMP, Interval, Kind
from tapehouse.query import StoredHistory
from tapehouse.query.base import Request
from tapehouse.store.memory import MemoryStore
from tapehouse.times import parse_bound


def at(text: str) -> int:
    """The instant that a text means."""
    bound = parse_bound(text, "time")
    assert isinstance(bound, int)
    return bound


def times(values: Iterable[int]) -> pa.Array:
    """Nanoseconds as Arrow timestamps."""
    return pa.array(np.fromiter(values, np.int64)).cast(TIMESTAMP)


def bars(symbol: str, stamps: Sequence[int], **columns: Any) -> pa.Table:
    """Bars whose prices tell them apart; a column given is one value for all or one for each."""
    n = len(stamps)
    level = np.arange(n, dtype=np.float64) + 100
    values: dict[str, Any] = {"open": level, "high": level + 2, "low": level - 2, "close": level + 1, "volume": 10.0}
    values |= columns
    filled = {name: value if np.ndim(value) else [value] * n for name, value in values.items()}
    return pa.table({"symbol": [symbol] * n, "timestamp": times(stamps), **filled})


def trades(symbol: str, stamps: Sequence[int], price: Any = 50.0, size: Any = 1.0) -> pa.Table:
    """Trades; identical ones are told apart by their ordinal."""
    n = len(stamps)
    columns = {"price": price, "size": size}
    filled = {name: value if np.ndim(value) else [float(value)] * n for name, value in columns.items()}
    return pa.table({"symbol": [symbol] * n, "timestamp": times(stamps), **filled})


class Written:
    """A store in memory, its history, and short ways to fill and ask it."""

    def __init__(self, **limits: int) -> None:
        from tapehouse.query.base import Limits

        self.store = MemoryStore()
        self.history = StoredHistory(self.store, Limits(**limits))

    def bars(self, symbol: str, interval: str, stamps: Sequence[int], *, source: str = "test", **columns: Any) -> None:
        """Write bars."""
        table = bars(symbol, stamps, **columns)
        self.store.write(Kind.BARS, table, interval=Interval(interval), source=source)

    def trades(self, symbol: str, stamps: Sequence[int], price: Any = 50.0, size: Any = 1.0) -> None:
        """Write trades."""
        self.store.write(Kind.TRADES, trades(symbol, stamps, price, size), source="test")

    def rows(self, interval: str | None = None, **request: Any) -> list[dict[str, Any]]:
        """The rows of a request, timestamps as integers."""
        return rows(self.history.read(Request(interval=interval and Interval(interval), **request)).table())


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """A table as rows, timestamps as integers."""
    if "timestamp" not in table.column_names:
        return list(table.to_pylist())
    place = table.column_names.index("timestamp")
    whole: list[dict[str, Any]] = table.set_column(place, "timestamp", table["timestamp"].cast(pa.int64())).to_pylist()
    return whole
