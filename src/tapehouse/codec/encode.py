"""Arrow -> bytes, a column at a time: 97,500 bars as JSON take some 50 ms, of which half is printing floats."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.model import SECOND_NS
from tapehouse.times import format_time, format_times

PIECE_ROWS = 16_384
"""Rows that are encoded at once; an answer is cut into pieces of that many."""

_BUFFER_BYTES = 65_536

_BATCH_ROWS = 65_536
"""Of a batch of an Arrow file: what reads one in parallel does so by batches."""

_encode = msgspec.json.Encoder().encode


class Times(StrEnum):
    """How a time is written: as text, or as an integer since 1970."""

    RFC3339 = "rfc3339"
    NS = "ns"
    US = "us"
    MS = "ms"
    S = "s"


_PER_UNIT = {Times.NS: 1, Times.US: 1_000, Times.MS: 1_000_000, Times.S: SECOND_NS}

Batches = Iterable[pa.RecordBatch]


def encode_columns(
    table: pa.Table, head: Mapping[str, Any], tail: Mapping[str, Any], times: Times = Times.RFC3339
) -> Generator[bytes]:
    """`{...head, "columns": {name: [...]}, ...tail}`."""
    yield _opening(head) + b'"columns":{'
    for number, name in enumerate(table.column_names):
        yield (b"," if number else b"") + _encode(name) + b":["
        pieces = (piece for piece in _pieces(table.select([number]).to_batches()))
        for place, piece in enumerate(pieces):
            yield (b"," if place else b"") + _json_values(piece.column(0), times)
        yield b"]"
    yield b"}" + _closing(tail)


def encode_rows(
    batches: Batches, head: Mapping[str, Any], tail: Mapping[str, Any], times: Times = Times.RFC3339
) -> Generator[bytes]:
    """`{...head, "rows": [{name: value, ...}], ...tail}`."""
    yield _opening(head) + b'"rows":['
    separator = b""
    for piece in _pieces(batches):
        row = row_type(tuple(piece.schema.names))
        columns = [python_values(column, times) for column in piece.columns]
        yield separator + _encode([row(*values) for values in zip(*columns, strict=True)])[1:-1]
        separator = b","
    yield b"]" + _closing(tail)


def encode_csv(
    schema: pa.Schema, batches: Batches, times: Times = Times.RFC3339, delimiter: str = ","
) -> Generator[bytes]:
    """A header line, then a line per row; null is empty, and text that could be taken for it is in quotes."""
    yield delimiter.join(schema.names).encode() + b"\n"
    for piece in _pieces(batches):
        columns = [_csv_column(column, times) for column in piece.columns]
        quoted = any(_needs_quotes(column, delimiter) for column in piece.columns)
        yield _csv_lines(pa.record_batch(columns, names=schema.names), delimiter, quoted)


def encode_lines(batches: Batches, times: Times = Times.RFC3339) -> Generator[bytes]:
    """JSON lines: an object per row and line."""
    import polars as pl

    for piece in _pieces(batches):
        # Polars writes them in less than half the time that it takes to make objects of the rows.
        columns = [_csv_column(column, times) for column in piece.columns]
        frame = pl.DataFrame(pl.from_arrow(pa.table(columns, names=piece.schema.names)))
        yield frame.write_ndjson().encode()


def encode_stream(schema: pa.Schema, batches: Batches, compression: str | None = None) -> Generator[bytes]:
    """The Arrow IPC stream, its buffers compressed or not."""
    sink = Sink()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    # A batch is some twenty writes, each of which would have to wait for the interpreter.
    with pa.BufferedOutputStream(pa.PythonFile(sink, mode="w"), _BUFFER_BYTES) as buffer:
        with pa.ipc.new_stream(buffer, schema, options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
                buffer.flush()
                yield sink.taken()
        buffer.flush()
        yield sink.taken()


def encode_file(table: pa.Table, compression: str | None = None) -> Generator[bytes]:
    """The Arrow IPC file; whole, since the format allows one dictionary a column."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table.unify_dictionaries(), max_chunksize=_BATCH_ROWS)
    yield sink.getvalue().to_pybytes()


def encode_parquet(table: pa.Table) -> Generator[bytes]:
    """A Parquet file; whole, since its index is at the end."""
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    yield sink.getvalue().to_pybytes()


def time_text(nanos: int, times: Times = Times.RFC3339) -> str | int:
    """One time, as the columns would have it."""
    if times is not Times.RFC3339:
        return nanos // _PER_UNIT[times]
    return format_time(nanos)


def _opening(head: Mapping[str, Any]) -> bytes:
    return _encode(head)[:-1] + b"," if head else b"{"


def _closing(tail: Mapping[str, Any]) -> bytes:
    encoded = _encode(tail)
    return b"," + encoded[1:] if len(encoded) > 2 else b"}"


def _pieces(batches: Batches) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, PIECE_ROWS):
            yield batch.slice(start, PIECE_ROWS)


@lru_cache(maxsize=64)
def row_type(names: tuple[str, ...]) -> type[msgspec.Struct]:
    """A struct of those fields, which JSON and msgpack have as an object; much quicker to encode than dictionaries."""
    # The fields are numbered because a column may be called `return`, which no Python name can be.
    fields = [(f"c{number}", Any) for number in range(len(names))]
    return msgspec.defstruct("Row", fields, rename={f"c{number}": name for number, name in enumerate(names)})


def _json_values(column: pa.Array, times: Times) -> bytes:
    """The values with commas between them."""
    if pa.types.is_timestamp(column.type) and times is Times.RFC3339 and not column.null_count:
        return b'"' + b'","'.join(_text(_nanos(column)).cast(pa.binary()).to_pylist()) + b'"'
    if pa.types.is_dictionary(column.type):
        names = [_encode(value) for value in column.dictionary.to_pylist()]
        return b",".join(_taken(column, [*names, b"null"]))
    return _encode(python_values(column, times))[1:-1]


def python_values(column: pa.Array, times: Times) -> Sequence[Any]:
    """The values of a column as JSON has them; what is not a number is NaN."""
    if pa.types.is_timestamp(column.type):
        return _time_values(column, times)
    if pa.types.is_dictionary(column.type):
        return _taken(column, [*column.dictionary.to_pylist(), None])
    if pa.types.is_floating(column.type) or (pa.types.is_integer(column.type) and not column.null_count):
        # A null becomes NaN here, and msgspec writes NaN as null.
        values: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
        return values
    return column.to_pylist()  # type: ignore[no-any-return]


def _taken(column: pa.DictionaryArray, values: list[Any]) -> list[Any]:
    """The values that the indices point at; a null at the last one."""
    indices = column.indices.fill_null(len(values) - 1) if column.null_count else column.indices
    return [values[index] for index in indices.to_numpy(zero_copy_only=False).tolist()]


def _time_values(column: pa.Array, times: Times) -> list[Any]:
    nanos = _nanos(column)
    values = (_text(nanos) if times is Times.RFC3339 else pa.array(nanos // _PER_UNIT[times])).to_pylist()
    if column.null_count:
        return [value if valid else None for value, valid in zip(values, column.is_valid().to_pylist(), strict=True)]
    return values  # type: ignore[no-any-return]


def _nanos(column: pa.Array) -> np.ndarray:
    """UTC nanoseconds; 0 for a null."""
    nanos: np.ndarray = column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).fill_null(0).to_numpy()
    return nanos


def _text(nanos: np.ndarray) -> pa.Array:
    """RFC 3339 of each; whole seconds, which bars have, go by a way that is eight times as quick.

    Arrow prints them at a fixed width, so that the characters can be moved as a matrix.
    """
    seconds = nanos // SECOND_NS
    if not (seconds * SECOND_NS == nanos).all():
        return format_times(nanos).cast(pa.string())
    printed = pa.array(seconds, pa.timestamp("s")).cast(pa.string()).buffers()[2]
    text = np.empty((len(nanos), 20), np.uint8)
    text[:, :19] = np.frombuffer(printed or b"", np.uint8, 19 * len(nanos)).reshape(-1, 19)
    text[:, 10] = ord("T")
    text[:, 19] = ord("Z")
    offsets = np.arange(len(nanos) + 1, dtype=np.int32) * 20
    return pa.StringArray.from_buffers(len(nanos), pa.py_buffer(offsets), pa.py_buffer(text))


def _csv_column(column: pa.Array, times: Times) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        if times is Times.RFC3339 and not column.null_count:
            return _text(_nanos(column))
        return pa.array(_time_values(column, times))
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    return column


_LOOKS_MISSING = r"^(|null|NULL|Null|NA|#?N/A|n/a|[Nn]one|-|\\N|nan|NaN|NAN)$"
"""Text that readers of CSV take for a missing value. No array of it: making one imports pandas."""
_SPECIAL = r'["\r\n]|^\s|\s$'


def _needs_quotes(column: pa.Array, delimiter: str) -> bool:
    """Whether some text is not read back as it is without quotes; symbols cannot be, except by what they mean."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary
    if not pa.types.is_string(column.type) or column.null_count == len(column):
        return False
    missing = pc.any(pc.match_substring_regex(column, _LOOKS_MISSING)).as_py()
    return bool(missing or pc.any(pc.match_substring_regex(column, f"{_SPECIAL}|{delimiter}")).as_py())


def _csv_lines(batch: pa.RecordBatch, delimiter: str, quoted: bool) -> bytes:
    from pyarrow import csv

    # Quotes go around all text of a piece or none: Arrow knows no other way, and is quicker without.
    style = "needed" if quoted else "none"
    return _written(batch, csv.WriteOptions(include_header=False, quoting_style=style, delimiter=delimiter))


def _written(batch: pa.RecordBatch, options: Any) -> bytes:
    from pyarrow import csv

    sink = pa.BufferOutputStream()
    csv.write_csv(batch, sink, options)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


class Sink(io.RawIOBase):
    """Takes what an Arrow writer writes until it is taken away."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
