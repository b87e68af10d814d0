"""The stores that the contract suite holds to the contract, and short ways to write to them and read from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tapehouse.model import DAY_NS, MINUTE_NS, SCHEMAS, TIMESTAMP, Commit, Interval, Kind, OnConflict
from tapehouse.store.base import Outcome, Selection, Store, Undone
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore

T0 = 1_704_205_800 * 1_000_000_000
"""2024-01-02T14:30Z, a minute in which New York trades."""
M = MINUTE_NS
D = DAY_NS


class Backend(NamedTuple):
    """How to open a store in a folder, whether it is still there when opened again, and whether to compact always."""

    open: Callable[[Path], Any]
    persists: bool = True
    archived: bool = False


BACKENDS: dict[str, Backend] = {
    "memory": Backend(lambda folder: MemoryStore(), persists=False),
    "duckdb": Backend(DuckDBStore),
    "duckdb, archived": Backend(DuckDBStore, archived=True),
}
"""Every store there is. `archived` opens the same store with every write moved into the archive at once."""


class Archived:
    """A store that compacts everything after each change, so that no read is answered from hot rows."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def write(self, *args: Any, **options: Any) -> Commit:
        commit: Commit = self._store.write(*args, **options)
        self._store.compact(everything=True)
        return commit

    def write_together(self, *args: Any, **options: Any) -> tuple[Commit, list[Outcome]]:
        commit, outcomes = self._store.write_together(*args, **options)
        self._store.compact(everything=True)
        return commit, outcomes

    def write_logged(self, *args: Any, **options: Any) -> list[Commit]:
        commits: list[Commit] = self._store.write_logged(*args, **options)
        self._store.compact(everything=True)
        return commits

    def undo(self, batch: str) -> Undone:
        undone: Undone = self._store.undo(batch)
        self._store.compact(everything=True)
        return undone

    def delete(self, *args: Any, **options: Any) -> Commit:
        commit: Commit = self._store.delete(*args, **options)
        self._store.compact(everything=True)
        return commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Home:
    """A folder and the store in it, which can be closed and opened again."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self.backend = backend
        self._folder = folder
        self.store = self._open()

    def _open(self) -> Any:
        store = self.backend.open(self._folder)
        return Archived(store) if self.backend.archived else store

    def reopen(self) -> Any:
        """Close the store and open it again; what persists is still there."""
        self.store.close()
        self.store = self._open()
        return self.store

    def close(self) -> None:
        """Close the store; idempotent."""
        self.store.close()


def table(kind: Kind, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as a table with the columns that any of them names; `timestamp` is int64 nanoseconds."""
    names = [field.name for field in SCHEMAS[kind] if any(field.name in row for row in rows)]
    columns = {}
    for name in names or [field.name for field in SCHEMAS[kind] if not field.nullable]:
        type_ = TIMESTAMP if name == "timestamp" else SCHEMAS[kind].field(name).type
        columns[name] = pa.array([row.get(name) for row in rows], type_)
    return pa.table(columns)


def bar(symbol: str, timestamp: int, close: float, **columns: Any) -> dict[str, Any]:
    """A bar whose prices are all the same."""
    prices = dict.fromkeys(("open", "high", "low", "close"), float(close))
    return {"symbol": symbol, "timestamp": timestamp, **prices, "volume": 1.0, **columns}


def bars(*rows: dict[str, Any]) -> pa.Table:
    """A table of bars."""
    return table(Kind.BARS, rows)


def trade(symbol: str, timestamp: int, price: float, size: float = 1.0, **columns: Any) -> dict[str, Any]:
    """A trade."""
    return {"symbol": symbol, "timestamp": timestamp, "price": float(price), "size": float(size), **columns}


def trades(*rows: dict[str, Any]) -> pa.Table:
    """A table of trades."""
    return table(Kind.TRADES, rows)


def quote(symbol: str, timestamp: int, bid: float, ask: float, **columns: Any) -> dict[str, Any]:
    """A quote, one unit on each side."""
    row = {"symbol": symbol, "timestamp": timestamp, "bid": float(bid), "ask": float(ask)}
    return {**row, "bid_size": 1.0, "ask_size": 1.0, **columns}


def write(store: Store, *rows: dict[str, Any], **options: Any) -> Commit:
    """Write minute bars; `prefer` ranks nobody who is there unless told."""
    if options.get("on_conflict") is OnConflict.PREFER:
        options.setdefault("prefer", ["nobody"])
    return store.write(Kind.BARS, bars(*rows), **{"interval": Interval.M1, **options})


def tuples(found: pa.Table) -> list[tuple[Any, ...]]:
    """The rows of a table, times as int64 nanoseconds."""
    columns = [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in found.columns
    ]
    return list(zip(*columns, strict=True))


def read(store: Store, *columns: str, **selection: Any) -> list[tuple[Any, ...]]:
    """The rows of a read, by default of minute bars."""
    kind = selection.setdefault("kind", Kind.BARS)
    if kind is Kind.BARS:
        selection.setdefault("interval", Interval.M1)
    return tuples(store.read(Selection(columns=columns or None, **selection)).table())


def closes(store: Store, **selection: Any) -> list[tuple[Any, ...]]:
    """Symbol, minutes since T0 and close of each bar."""
    found = read(store, "symbol", "timestamp", "close", **selection)
    return [(symbol, (timestamp - T0) / M, close) for symbol, timestamp, close in found]


def counts(commit: Commit) -> dict[str, int]:
    """What a commit counted, without the zeros."""
    names = ("inserted", "replaced", "unchanged", "rejected", "deleted")
    return {name: getattr(commit, name) for name in names if getattr(commit, name)}
