"""Files whose columns have types, as record batches: Parquet, Arrow's file and stream format, tables of databases.

Statistics in a file are never asked which rows there are: only their number, and only to say how far a load is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tapehouse.bulk.base import Format, RecognisedFile
from tapehouse.bulk.formats.files import reading
from tapehouse.bulk.formats.tables import DuckDBTable, SQLiteTable, duckdb_tables, sqlite_tables
from tapehouse.errors import UnreadableFile

BUFFER_BYTES = 4 << 20
MAX_BATCH_BYTES = 512 << 20
"""How large the record batches of an Arrow file may be on average: one is read as a whole."""


class Source(Protocol):
    """An open file whose columns have types."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns; of SQLite, whose values have any type, those of the first rows."""

    @property
    def rows(self) -> int | None:
        """How many rows it says it has; None when it does not say."""

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Those columns in batches of at most so many rows, in the order of the file."""


def opened(file: RecognisedFile) -> AbstractContextManager[Source]:
    """The file; `UnreadableFile` when it is not what it claims to be, cut off or damaged, also while it is read."""
    path = Path(file.path)
    if file.format is Format.PARQUET:
        return _parquet(path)
    if file.format is Format.SQLITE:
        return sqlite_tables(path, SQLiteTable, file.member or "")
    if file.format is Format.DUCKDB:
        return duckdb_tables(path, DuckDBTable, file.member or "")
    return _arrow(path, file.format is Format.ARROW_STREAM)


@contextmanager
def _parquet(path: Path) -> Iterator[Source]:
    with (
        _translated(path, "Parquet"),
        pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=BUFFER_BYTES) as file,
    ):
        yield _Parquet(file)


class _Parquet:
    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        self.schema: pa.Schema = file.schema_arrow
        self.rows: int | None = file.metadata.num_rows

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        yield from self._file.iter_batches(rows, columns=list(columns), use_threads=True)


@contextmanager
def _arrow(path: Path, stream: bool) -> Iterator[Source]:
    # Not mapped into memory: another process that cuts the file off would kill this one.
    with _translated(path, "Arrow"), pa.OSFile(str(path)) as file:
        if stream:
            yield _Stream(pa.ipc.open_stream(file))
        else:
            yield _File(file, path)


class _Stream:
    rows: int | None = None

    def __init__(self, reader: pa.RecordBatchStreamReader) -> None:
        self._reader = reader
        self.schema: pa.Schema = reader.schema

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        for batch in self._reader:
            yield from _sliced(batch.select(list(columns)), rows)


class _File:
    rows: int | None = None

    def __init__(self, file: pa.NativeFile, path: Path) -> None:
        self._file = file
        reader = pa.ipc.open_file(file)
        self.schema: pa.Schema = reader.schema
        average = os.path.getsize(path) // max(reader.num_record_batches, 1)
        if average > MAX_BATCH_BYTES:
            raise UnreadableFile(
                f"{path.name} has record batches of {average >> 20:,} MB, which would each be read as a whole; "
                "write it with smaller ones (record_batch_size), or as Parquet",
                path=str(path),
            )

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        wanted = [self.schema.get_field_index(name) for name in columns]
        reader = pa.ipc.open_file(self._file, options=pa.ipc.IpcReadOptions(included_fields=wanted))
        for number in range(reader.num_record_batches):
            yield from _sliced(reader.get_batch(number).select(list(columns)), rows)


def _sliced(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


@contextmanager
def _translated(path: Path, what: str) -> Iterator[None]:
    try:
        with reading(path):
            yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowKeyError) as exc:
        raise UnreadableFile(f"{path.name} is no readable {what} file: {exc}", path=str(path)) from exc
