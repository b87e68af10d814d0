"""The peers that are measured in the same run, each used as its own guide shows it for this job.

Their databases are made once and kept beside the data, since they depend on nothing else.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import Files

DUCKDB_TABLE = """
    CREATE TABLE bars (symbol VARCHAR, timestamp TIMESTAMP_NS, open DOUBLE, high DOUBLE, low DOUBLE, close DOUBLE,
                       volume DOUBLE)
"""
VALUES = ("open", "high", "low", "close", "volume")


class Reader(Protocol):
    """Answers the question that is measured."""

    def read(self, symbol: str, start: int, end: int) -> Any:
        """The bars of one symbol in `[start, end)`, UTC nanoseconds, in the form that the library gives best."""

    def close(self) -> None:
        """Let go of everything."""


class RawDuckDB:
    """One table sorted by symbol and time, its zone maps doing the work; answers in Arrow."""

    name = "DuckDB table"

    def __init__(self, files: Files) -> None:
        self.connection = duckdb.connect(str(_once(files, "duckdb.db", self._build)), read_only=True)

    @staticmethod
    def _build(files: Files, path: Path) -> None:
        with duckdb.connect(str(path)) as connection:
            connection.execute(DUCKDB_TABLE)
            connection.execute("INSERT INTO bars SELECT * FROM read_parquet(?)", [str(files.stocks())])

    def read(self, symbol: str, start: int, end: int) -> pa.Table:
        return self.connection.sql(
            """
            SELECT * FROM bars
            WHERE symbol = ? AND timestamp >= make_timestamp_ns(?) AND timestamp < make_timestamp_ns(?)
            ORDER BY timestamp
            """,
            params=[symbol, start, end],
        ).to_arrow_table()

    def daily(self, start: int, end: int) -> pa.Table:
        """OHLCV and VWAP of every symbol and day in `[start, end)`."""
        return self.connection.sql(
            """
            SELECT symbol, date_trunc('day', timestamp) AS day, arg_min(open, timestamp) AS open, max(high) AS high,
                   min(low) AS low, arg_max(close, timestamp) AS close, sum(volume) AS volume,
                   sum((high + low + close) / 3 * volume) / sum(volume) AS vwap
            FROM bars WHERE timestamp >= make_timestamp_ns(?) AND timestamp < make_timestamp_ns(?)
            GROUP BY symbol, day ORDER BY symbol, day
            """,
            params=[start, end],
        ).to_arrow_table()

    def close(self) -> None:
        self.connection.close()


class Sqlite:
    """A table with the usual index on (symbol, time), filled in that order; answers in rows, as its driver does."""

    name = "SQLite"

    def __init__(self, files: Files) -> None:
        path = _once(files, "sqlite.db", self._build)
        self.connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    @staticmethod
    def _build(files: Files, path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.executescript(
            """
            PRAGMA journal_mode = OFF;
            PRAGMA synchronous = OFF;
            CREATE TABLE bars (symbol TEXT, timestamp INTEGER, open REAL, high REAL, low REAL, close REAL, volume REAL);
            """
        )
        for table in _symbols(files):
            columns = [
                table["symbol"].cast(pa.string()),
                table["timestamp"].cast(pa.int64()),
                *map(table.column, VALUES),
            ]
            rows = zip(*(column.to_pylist() for column in columns), strict=True)
            connection.executemany("INSERT INTO bars VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute("CREATE UNIQUE INDEX by_symbol_and_time ON bars (symbol, timestamp)")
        connection.commit()
        connection.close()

    def read(self, symbol: str, start: int, end: int) -> list[tuple[Any, ...]]:
        return self.connection.execute(
            "SELECT * FROM bars WHERE symbol = ? AND timestamp >= ? AND timestamp < ? ORDER BY timestamp",
            (symbol, start, end),
        ).fetchall()

    def close(self) -> None:
        self.connection.close()


class Arctic:
    """A library on LMDB with one table per symbol, indexed by time; answers in Arrow."""

    name = "ArcticDB"

    def __init__(self, files: Files) -> None:
        from arcticdb import Arctic as Database
        from arcticdb import OutputFormat

        self.arrow = OutputFormat.PYARROW
        self.database = Database(f"lmdb://{_once(files, 'arcticdb', self._build)}")
        self.library = self.database["bars"]

    @staticmethod
    def _build(files: Files, path: Path) -> None:
        from arcticdb import Arctic as Database

        library = Database(f"lmdb://{path}?map_size=8GB").get_library("bars", create_if_missing=True)
        for table in _symbols(files):
            times = pd.DatetimeIndex(table["timestamp"].cast(pa.int64()).to_numpy(), name="timestamp")
            library.write(table["symbol"][0].as_py(), table.select(list(VALUES)).to_pandas().set_index(times))

    def read(self, symbol: str, start: int, end: int) -> pa.Table:
        span = (pd.Timestamp(start), pd.Timestamp(end - 1))
        return self.library.read(symbol, date_range=span, output_format=self.arrow).data

    def close(self) -> None:
        del self.library, self.database


READERS: dict[str, Callable[[Files], Reader]] = {kind.name: kind for kind in (RawDuckDB, Arctic, Sqlite)}
"""Name -> how its reader is opened."""


def insert_parquet(source: str, place: str) -> dict[str, float]:
    """`INSERT ... SELECT` of a Parquet file into a new database."""
    return _timed_insert("INSERT INTO bars SELECT * FROM read_parquet(?)", source, place)


def copy_csv(source: str, place: str) -> dict[str, float]:
    """`COPY` of a CSV file into a new database."""
    return _timed_insert("COPY bars FROM ? (HEADER)", source, place)


def copy_csv_files(source: str, place: str) -> dict[str, float]:
    """`COPY` of all CSV files of a folder."""
    return _timed_insert("COPY bars FROM ? (HEADER)", f"{source}/*.csv", place)


def insert_daily_files(source: str, place: str) -> dict[str, float]:
    """`INSERT ... SELECT` of daily files without a column for the symbol, which is each file's name."""
    taken = (
        "INSERT INTO bars SELECT parse_filename(filename, true), Date::TIMESTAMP, Open, High, Low, Close, Volume "
        "FROM read_csv(?, header = true, filename = true)"
    )
    return _timed_insert(taken, f"{source}/*.csv", place)


def _timed_insert(statement: str, source: str, place: str) -> dict[str, float]:
    started = time.perf_counter()
    connection = duckdb.connect(place)
    connection.execute(DUCKDB_TABLE)
    rows = connection.execute(statement, [source]).fetchall()[0][0]
    taken = time.perf_counter() - started
    connection.close()
    return {"seconds": taken, "rows": rows}


def closes(answer: Any) -> np.ndarray:
    """The closing prices in any peer's answer, by which a benchmark checks that all answered the same question."""
    if isinstance(answer, list):
        return np.array([row[5] for row in answer])
    return np.asarray(answer["close"])


def _once(files: Files, name: str, build: Callable[[Files, Path], None]) -> Path:
    path = files.folder / "peers" / name
    if not path.exists():
        part = path.with_name(f"{name}.part")
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        build(files, part)
        part.rename(path)
    return path


def _symbols(files: Files) -> Iterator[pa.Table]:
    with pq.ParquetFile(files.stocks()) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)
