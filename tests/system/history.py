"""A short life of a store, step by step: the tests that kill or starve it replay it against the reference store.

Run as a program it lives that life in a folder, and prints the number of each step once the step has returned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tapehouse.model import DAY_NS, MINUTE_NS, TIMESTAMP, Instrument, Interval, Kind, OnConflict
from tapehouse.store.base import Capability, Selection, Store

START = 1_704_067_200 * 1_000_000_000
SYMBOLS = ("AAA", "BBB", "CCC")
DATASETS: tuple[tuple[Kind, Interval | None], ...] = (
    (Kind.BARS, Interval.M1),
    (Kind.BARS, Interval.D1),
    (Kind.TRADES, None),
)

Step = Callable[[Any], object]


def _bars(symbols: Sequence[str], first: int, rows: int, step: int, price: float) -> pa.Table:
    times = np.tile(START + (first + np.arange(rows)) * step, len(symbols))
    close = np.round(price + np.arange(len(times)) * 0.01, 2)
    return pa.table(
        {
            "symbol": np.repeat(list(symbols), rows),
            "timestamp": pa.array(times).view(TIMESTAMP),
            **{"open": close, "high": close + 1, "low": close - 1, "close": close},
            "volume": np.arange(len(times), dtype="f8"),
        }
    )


def _trades(first: int, rows: int) -> pa.Table:
    return pa.table(
        {
            "symbol": ["AAA"] * rows,
            "timestamp": pa.array(START + (first + np.arange(rows) // 3) * 1_000).view(TIMESTAMP),
            "price": np.round(100 + np.arange(rows) % 7 * 0.01, 2),
            "size": np.ones(rows),
        }
    )


def _write(kind: Kind, table: pa.Table, interval: Interval | None = None, **options: Any) -> Step:
    return lambda store: store.write(kind, table, interval=interval, **options)


def _minutes(symbols: Sequence[str], first: int, rows: int, price: float, **options: Any) -> Step:
    return _write(Kind.BARS, _bars(symbols, first, rows, MINUTE_NS, price), Interval.M1, **options)


def _documents(documents: dict[str, bytes | None]) -> Step:
    return lambda store: store.put_documents("loads", documents)


def _undo(batch: str) -> Step:
    return lambda store: store.undo(batch)


def _compact(store: Any) -> None:
    if Capability.COMPACTS in store.capabilities:
        store.compact(everything=True)


_MONTH_OF_MINUTES = 31 * 1_440

STEPS: tuple[Step, ...] = (
    _minutes(SYMBOLS, 0, 80, 10, source="a", batch="one"),
    _minutes(("AAA", "DDD"), 60, 80, 20, source="b"),
    _write(Kind.TRADES, _trades(0, 90), source="a"),
    _compact,
    _minutes(("AAA",), 50, 5, 30, source="a"),
    _minutes(("BBB",), 60, 5, 30, source="c", on_conflict=OnConflict.KEEP),
    lambda store: store.delete(
        Kind.BARS, ["AAA"], interval=Interval.M1, start=START + 10 * MINUTE_NS, end=START + 20 * MINUTE_NS
    ),
    _write(Kind.BARS, _bars(SYMBOLS, 0, 40, DAY_NS, 40), Interval.D1, source="a"),
    _minutes(SYMBOLS, _MONTH_OF_MINUTES - 30, 60, 50, source="a"),
    _compact,
    lambda store: store.put_instruments([Instrument(pattern="*", calendar="24/5")]),
    _minutes(("AAA",), _MONTH_OF_MINUTES - 10, 40, 60, source="c"),
    _write(Kind.TRADES, _trades(20, 60), source="a"),
    lambda store: store.delete(Kind.BARS, ["BBB"], interval=Interval.D1),
    _compact,
    _minutes(("EEE",), 0, 50, 70, source="a"),
    _documents({"a": b"1", "b": b"1"}),
    _documents({"a": b"2", "b": None}),
    _minutes(("AAA", "BBB"), 30, 60, 80, source="d", batch="wrong"),
    _write(Kind.TRADES, _trades(60, 90), source="d", batch="wrong"),
    lambda store: store.delete(Kind.BARS, ["EEE"], interval=Interval.M1, batch="wrong"),
    _compact,
    _minutes(("AAA",), 40, 10, 90, source="a"),
    _undo("wrong"),
    _compact,
    _undo("undo-wrong"),
)


def contents(store: Store) -> dict[str, Any]:
    """Everything a reader can see: each data set as of every commit, the series, the commits without their clock."""
    head = store.head()  # type: ignore[attr-defined]
    names = ("kind", "interval", "batch", "action", "inserted", "replaced", "unchanged", "rejected", "deleted")
    of_batch = ("name", "first_commit", "last_commit", "series", *names[4:], "undone_by", "undoes")
    return {
        "commits": [[getattr(c, name) for name in names] for c in store.commits(limit=1_000)],  # type: ignore[attr-defined]
        "batches": [[getattr(batch, name) for name in of_batch] for batch in store.batches()],  # type: ignore[attr-defined]
        "series": store.coverage(),
        "instruments": store.instruments(),  # type: ignore[attr-defined]
        "documents": store.documents("loads"),  # type: ignore[attr-defined]
        "rows": {(*data, as_of): _rows(store, *data, as_of) for data in DATASETS for as_of in range(1, head + 1)},
    }


def _rows(store: Store, kind: Kind, interval: Interval | None, as_of: int) -> list[list[Any]]:
    columns = ("symbol", "timestamp", "volume" if kind is Kind.BARS else "size", "source", "commit")
    table = store.read(Selection(kind=kind, interval=interval, as_of=as_of, columns=columns)).table()
    return [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in table.columns
    ]


def live(folder: Path, first: int) -> None:
    """Take the steps from `first` on, saying when each is done."""
    from tapehouse.store.duckdb import DuckDBStore, engine

    engine.Engine._mostly_free = lambda self: True  # type: ignore[method-assign]  # so that small files shrink as well
    engine.IDLE_S = 0.0
    store = DuckDBStore(folder)
    for number, step in enumerate(STEPS[first:], first):
        step(store)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
    store.close()


if __name__ == "__main__":
    live(Path(sys.argv[1]), int(sys.argv[2]))
