"""A store with something of everything, and what an export reads it through."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import sqlite3
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tapehouse.model import DAY_NS, MINUTE_NS, SCHEMAS, TIMESTAMP, Commit, Instrument, Interval, Kind
from tapehouse.query.base import Request
from tapehouse.query.history import StoredHistory
from tapehouse.store.base import Selection, Series
from tapehouse.store.memory import MemoryStore

T0 = 1_704_205_800_000_000_000
"""2024-01-02T14:30Z."""
NEW_YORK = Instrument(pattern="*", calendar="XNYS", timezone="America/New_York")


class Held:
    """`export.base.Source` of a store, without a client."""

    def __init__(self, store: Any) -> None:
        self.store, self.history = store, StoredHistory(store)
        self.asked: list[Request] = []

    @contextmanager
    def rows(self, request: Request) -> Iterator[Any]:
        self.asked.append(request)
        with closing(self.history.read(request)) as answer:
            yield SimpleNamespace(schema=answer.schema, commit=answer.commit, batches=iter(answer))

    def series(self) -> list[Series]:
        found: list[Series] = self.store.coverage()
        return found

    def commits(self, *, after: int, limit: int) -> list[Commit]:
        found: list[Commit] = self.store.commits(after=after, limit=limit)
        return found

    def instruments(self) -> list[Instrument]:
        found: list[Instrument] = self.store.instruments()
        return found


def bars(symbol: str, stamps: Sequence[int], **columns: Any) -> pa.Table:
    """Bars whose prices count up from 100.1."""
    level = [100.1 + n for n in range(len(stamps))]
    values: dict[str, Any] = {"open": level, "high": [x + 1 for x in level], "low": level, "close": level}
    values |= {"volume": [10.0] * len(stamps)} | columns
    return pa.table(
        {"symbol": pa.array([symbol] * len(stamps), pa.string()), "timestamp": pa.array(stamps, TIMESTAMP), **values}
    )


def rows_of(kind: Kind, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as a table; `timestamp` is int64 nanoseconds."""
    names = [field.name for field in SCHEMAS[kind] if any(field.name in row for row in rows)]
    return pa.table({name: pa.array([row.get(name) for row in rows], SCHEMAS[kind].field(name).type) for name in names})


def minutes(count: int, first: int = T0, step: int = MINUTE_NS) -> list[int]:
    return [first + n * step for n in range(count)]


def filled() -> MemoryStore:
    """Minutes and days of some symbols with awkward names, trades with and without ids, quotes; in New York."""
    store = MemoryStore()
    store.put_instruments([NEW_YORK])
    for symbol in ("AAPL", "aapl", "BTC/USD", "^GSPC", "CON", "BRK-D"):
        store.write(Kind.BARS, bars(symbol, minutes(30, step=7 * DAY_NS)), interval=Interval.M1, source="one")
    midnight = T0 - 9 * 60 * MINUTE_NS - 30 * MINUTE_NS
    store.write(Kind.BARS, bars("AAPL", minutes(5, midnight, DAY_NS)), interval=Interval.D1, source="two")
    store.write(Kind.TRADES, rows_of(Kind.TRADES, TRADES))
    store.write(Kind.QUOTES, rows_of(Kind.QUOTES, QUOTES))
    return store


TRADES: list[dict[str, Any]] = [
    {"symbol": "AAPL", "timestamp": T0 + 1, "price": 185.64, "size": 100.0, "side": "buy", "id": "7", "source": "q"},
    {"symbol": "AAPL", "timestamp": T0 + 1, "price": 185.64, "size": 100.0, "conditions": 'a "b", c', "source": "q"},
    {"symbol": "AAPL", "timestamp": T0 + 1, "price": 185.64, "size": 100.0, "exchange": "NA", "source": "q"},
    {"symbol": "BTC/USD", "timestamp": T0 + 999_999_999, "price": 1e-12, "size": 0.12345678, "source": "r"},
]
QUOTES: list[dict[str, Any]] = [
    {"symbol": "AAPL", "timestamp": T0, "bid": 1.0, "bid_size": 0.0, "ask": 1.1, "ask_size": 5.0, "source": "q"},
    {"symbol": "AAPL", "timestamp": T0, "bid": -1.5, "bid_size": 2.0, "ask": 1.1, "ask_size": 5.0, "source": "q"},
]


def stored(store: Any, kind: Kind, interval: Interval | None = None) -> list[dict[str, Any]]:
    """All rows with all columns, times as integers."""
    columns = tuple(SCHEMAS[kind].names)
    return values(store.read(Selection(kind=kind, interval=interval, columns=columns)).table())


def values(table: pa.Table) -> list[dict[str, Any]]:
    place = table.column_names.index("timestamp")
    rows: list[dict[str, Any]] = table.set_column(place, "timestamp", table["timestamp"].cast(pa.int64())).to_pylist()
    return rows


def read_file(path: Path) -> list[dict[str, Any]]:
    """The rows of an exported file as its format's own library reads them; text formats have text."""
    name = path.name
    if name.endswith(".parquet"):
        return values(pq.read_table(path))
    if name.endswith((".arrow", ".feather")):
        return values(pa.ipc.open_file(path).read_all())
    if name.endswith(".sqlite"):
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            (table,) = connection.execute("SELECT name FROM sqlite_master").fetchall()
            return [dict(row) for row in connection.execute(f'SELECT * FROM "{table["name"]}"')]
    if name.endswith(".duckdb"):
        with closing(duckdb.connect(path, read_only=True)) as connection:
            ((table,),) = connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
            return values(connection.sql(f'SELECT * FROM "{table}"').to_arrow_table())
    text = unpacked(path).decode()
    if ".jsonl" in name:
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text), delimiter="\t" if ".tsv" in name else ","))


def unpacked(path: Path) -> bytes:
    """The bytes of a text file without its compression."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return pa.CompressedInputStream(pa.py_buffer(data), "zstd").read()  # type: ignore[no-any-return]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            (name,) = archive.namelist()
            assert name == path.name.removesuffix(".zip")
            return archive.read(name)
    return data


def frame(path: Path) -> pl.DataFrame:
    """A Parquet file as Polars reads it."""
    return pl.read_parquet(path)
