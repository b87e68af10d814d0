"""Rows as a table, CSV, JSON, Arrow or Parquet, while they arrive."""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import typer

from tapehouse.cli import tables
from tapehouse.errors import InvalidRequest, StoreFull, StoreReadOnly

if TYPE_CHECKING:
    from tapehouse.client import FrameStream

SHOWN_AT_EACH_END = 20


def write(stream: FrameStream, format_: str, output: Path | None) -> int:
    """The number of rows that were written; a file is there as a whole or not at all."""
    counted = _Counted(stream)
    if format_ == "table":
        if output is not None:
            raise InvalidRequest("a table is for the screen; for a file use csv, json, arrow or parquet")
        _table(stream, counted)
    elif output is None:
        _to_stdout(stream, counted, format_)
    else:
        with _replacing(output) as file:
            _encode(stream, counted, format_, file)
    return counted.rows


class _Counted:
    """The batches of a stream, counted as they pass."""

    def __init__(self, stream: FrameStream) -> None:
        self.rows = 0
        self._stream = stream

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for table in self._stream:
            self.rows += table.num_rows
            yield from table.to_batches()


def _to_stdout(stream: FrameStream, batches: Iterable[pa.RecordBatch], format_: str) -> None:
    if format_ in ("arrow", "parquet") and sys.stdout.isatty():
        raise InvalidRequest(f"{format_} is not for a terminal; use --output FILE, or a pipe")
    if format_ == "parquet":
        raise InvalidRequest("Parquet has to be written to a file; use --output FILE")
    _encode(stream, batches, format_, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _encode(stream: FrameStream, batches: Iterable[pa.RecordBatch], format_: str, file: BinaryIO) -> None:
    from tapehouse import codec

    if format_ == "parquet":
        _parquet(stream.schema, batches, file)
        return
    if format_ == "csv":
        pieces = codec.encode_csv(stream.schema, batches)
    elif format_ == "json":
        head = {"commit": stream.commit, "made_from": stream.made_from}
        pieces = codec.encode_rows(batches, head, {})
    else:
        pieces = codec.encode_stream(stream.schema, batches)
    for piece in pieces:
        file.write(piece)
    if format_ == "json":
        file.write(b"\n")


def _parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


@contextmanager
def _replacing(output: Path) -> Iterator[BinaryIO]:
    """A file that takes the output's name only once it is complete."""
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(output)
    except OSError as exc:
        kind = StoreFull if exc.errno == errno.ENOSPC else StoreReadOnly
        raise kind(f"cannot write {output}: {exc.strerror}", file=str(output)) from exc
    finally:
        part.unlink(missing_ok=True)


def _table(stream: FrameStream, counted: _Counted) -> None:
    """The first and the last rows; what lies between is counted."""
    head: list[dict[str, Any]] = []
    tail: deque[dict[str, Any]] = deque(maxlen=SHOWN_AT_EACH_END)
    for batch in counted:
        fresh = batch.slice(0, SHOWN_AT_EACH_END - len(head))
        head += _records(fresh)
        rest = batch.slice(fresh.num_rows)
        tail.extend(_records(rest.slice(max(0, rest.num_rows - SHOWN_AT_EACH_END))))
    hidden = counted.rows - len(head) - len(tail)
    names = stream.schema.names
    gap = [[tables.GAP] * len(names)] if hidden else []
    tables.show(names, [[*row.values()] for row in head] + gap + [[*row.values()] for row in tail])
    made = "".join(f", {symbol} made from {' and '.join(origins)}" for symbol, origins in stream.made_from.items())
    typer.echo(f"{counted.rows:,} rows as of commit {stream.commit}{made}", err=True)


def _records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    from tapehouse.times import format_time

    place = batch.schema.get_field_index("timestamp")
    if place < 0 or not batch.num_rows:
        return list(batch.to_pylist())
    texts = pa.array([format_time(value) for value in batch.column(place).cast(pa.int64()).to_pylist()])
    columns = [texts if index == place else column for index, column in enumerate(batch.columns)]
    return list(pa.record_batch(columns, names=batch.schema.names).to_pylist())
