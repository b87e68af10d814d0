"""The tables of SQLite and DuckDB files, read only.

A read of a SQLite table is one transaction, so that it sees one moment of a file that is being written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pyarrow as pa

from tapehouse.errors import UnreadableFile

BUSY_TIMEOUT_S = 5.0
_FIRST_ROWS = 1_000
_FETCHED_ROWS = 1_024
_BATCH_BYTES = 32 << 20
MAX_VALUE_BYTES = 1 << 16
"""A text or blob that is longer is no field of a record; reading it ends with an error, so that memory is bounded."""
_DUCKDB_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "memory_limit": "512MB",
    "threads": "1",
}

_Opened = TypeVar("_Opened")


class SQLiteTable:
    """One table. Its values have any type, so that every batch has the types of its own rows."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self._connection, self._table = connection, table
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(table)})")]
        first = next(self.batches(names, _FIRST_ROWS), None)
        self.schema: pa.Schema = pa.schema([(name, pa.null()) for name in names]) if first is None else first.schema
        self.rows: int | None = None

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Those columns in the order of the table."""
        wanted = ", ".join(map(quoted, columns))
        held: list[pa.RecordBatch] = []
        with closing(self._connection.execute(f"SELECT {wanted} FROM {quoted(self._table)}")) as cursor:
            while found := cursor.fetchmany(min(rows, _FETCHED_ROWS)):
                arrays = [_typed(values) for values in zip(*found, strict=True)]
                batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
                if held and not _fits(held, batch, rows):
                    yield pa.concat_batches(held)
                    held = []
                held.append(batch)
        if held:
            yield pa.concat_batches(held)


class DuckDBTable:
    """One table."""

    def __init__(self, connection: Any, table: str) -> None:
        self._connection, self._table = connection, table
        relation = connection.sql(f"SELECT * FROM {quoted(table)}")
        self.schema: pa.Schema = relation.limit(0).to_arrow_table().schema
        self.rows: int | None = connection.sql(f"SELECT count(*) FROM {quoted(table)}").fetchall()[0][0]

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Those columns in the order of the table."""
        wanted = ", ".join(map(quoted, columns))
        yield from self._connection.sql(f"SELECT {wanted} FROM {quoted(self._table)}").to_arrow_reader(rows)


def sqlite_names(connection: sqlite3.Connection) -> list[str]:
    """The tables of the user."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in found if not name.startswith("sqlite_")]


def duckdb_names(connection: Any) -> list[str]:
    """The tables of the user."""
    found = connection.sql("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' ORDER BY table_name")
    return [name for (name,) in found.fetchall()]


@contextmanager
def sqlite_tables(path: Path, view: Callable[..., _Opened], *args: str) -> Iterator[_Opened]:
    """What `view` makes of the file's connection, within one read transaction; `UnreadableFile` when it cannot be."""
    try:
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
            connection.text_factory = _text
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            connection.execute("BEGIN")
            yield view(connection, *args)
    except sqlite3.Error as exc:
        raise UnreadableFile(f"{path.name} cannot be read as SQLite: {_said(exc)}", path=str(path)) from exc


@contextmanager
def duckdb_tables(path: Path, view: Callable[..., _Opened], *args: str) -> Iterator[_Opened]:
    """What `view` makes of the file's connection; `UnreadableFile` when it cannot be opened or read."""
    import duckdb

    try:
        with duckdb.connect(str(path), read_only=True, config=_DUCKDB_CONFIG) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield view(connection, *args)
    except duckdb.Error as exc:
        first = str(exc).splitlines()[0]
        raise UnreadableFile(f"{path.name} cannot be read as DuckDB: {first}", path=str(path)) from exc


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _fits(held: Sequence[pa.RecordBatch], batch: pa.RecordBatch, rows: int) -> bool:
    """Whether one more batch goes with those: of the same types, and not too much in all."""
    count, size = sum(each.num_rows for each in held), sum(each.nbytes for each in held)
    return bool(batch.schema.equals(held[0].schema)) and count + batch.num_rows <= rows and size <= _BATCH_BYTES


def _typed(values: Sequence[Any]) -> pa.Array:
    """Values of one type as that; of several, as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([value if value is None else _shown(value) for value in values], pa.string())


def _shown(value: Any) -> str:
    return _text(value) if isinstance(value, bytes) else str(value)


def _said(exc: sqlite3.Error) -> str:
    """SQLite's words, and what to do."""
    name = getattr(exc, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{exc}: another process writes to it; load it when that has ended, or let it write in WAL mode"
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
        return (
            f"{exc}: its journal holds a transaction that was cut off (or its folder cannot be written to, as "
            "WAL mode needs); open it once with the program that writes it, which brings it back"
        )
    return f"{exc}"
