"""A table in a database file of its own: SQLite and DuckDB."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tapehouse.export.formats.columnar import gathered, plain_schema
from tapehouse.times import format_times

INSERT_ROWS = 16_384
DUCKDB_ROWS = 122_880
"""Rows of one of DuckDB's row groups."""


def write_sqlite(path: Path, table: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Times are text with all nine digits, so that they sort and need no unit; the rest is REAL, INTEGER and TEXT.

    The file is nobody's until it is whole, so it is written without a journal and synced once, at the end.
    """
    columns = ", ".join(f'"{field.name}" {_sqlite_type(field)}' for field in schema)
    marks = ", ".join("?" * len(schema))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.execute(f'CREATE TABLE "{table}" ({columns})')
        for batch in batches:
            for low in range(0, batch.num_rows, INSERT_ROWS):
                connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', _rows(batch.slice(low, INSERT_ROWS)))
        connection.execute("COMMIT")


def _sqlite_type(field: pa.Field) -> str:
    null = "" if field.nullable else " NOT NULL"
    if pa.types.is_floating(field.type):
        return f"REAL{null}"
    return f"{'INTEGER' if pa.types.is_integer(field.type) or pa.types.is_boolean(field.type) else 'TEXT'}{null}"


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    return zip(*[_values(column) for column in batch.columns], strict=True)


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        nanos: np.ndarray = column.view(pa.int64()).to_numpy()
        return list(format_times(nanos, nine_digits=True).to_pylist())
    if pa.types.is_dictionary(column.type):
        names = [*column.dictionary.to_pylist(), None]
        return [names[code] for code in column.indices.fill_null(len(names) - 1).to_pylist()]
    return list(column.to_pylist())


def write_duckdb(path: Path, table: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Times are TIMESTAMPTZ_NS, numbers DOUBLE and BIGINT, text VARCHAR."""
    import duckdb

    plain, failures = plain_schema(schema), list[BaseException]()

    def rows() -> Iterator[pa.RecordBatch]:
        try:
            for gathering in gathered(schema, batches, DUCKDB_ROWS):
                yield from gathering.cast(plain).to_batches()
        except BaseException as exc:
            failures.append(exc)
            raise

    reader = pa.RecordBatchReader.from_batches(plain, rows())
    with closing(duckdb.connect(path, config={"threads": 1})) as connection:
        connection.register("exported", reader)
        try:
            connection.execute(f'CREATE TABLE "{table}" AS SELECT * FROM exported')
        except duckdb.Error as exc:
            # What the rows raise comes back as DuckDB's own error, of which nobody knows what to do about it.
            raise (failures[0] if failures else exc) from exc
        connection.unregister("exported")
        connection.execute("CHECKPOINT")
