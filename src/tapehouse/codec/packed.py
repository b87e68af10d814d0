"""Arrow -> msgpack: the documents of JSON, with numbers as they are in memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.codec.encode import PIECE_ROWS, Times, python_values

_encode = msgspec.msgpack.Encoder().encode
_FLOAT64 = 0xCB
_NIL = 0xC0


def pack_columns(
    table: pa.Table, head: Mapping[str, Any], tail: Mapping[str, Any], times: Times = Times.RFC3339
) -> Generator[bytes]:
    """`{...head, "columns": {name: [...]}, ...tail}`."""
    yield map_header(len(head) + 1 + len(tail)) + _members(head)
    yield _encode("columns") + map_header(table.num_columns)
    for number, name in enumerate(table.column_names):
        yield _encode(name) + array_header(table.num_rows)
        for piece in _pieces(table.select([number])):
            yield _values(piece.column(0), times)
    yield _members(tail)


def pack_rows(
    table: pa.Table, head: Mapping[str, Any], tail: Mapping[str, Any], times: Times = Times.RFC3339
) -> Generator[bytes]:
    """`{...head, "rows": [{name: value, ...}], ...tail}`."""
    yield map_header(len(head) + 1 + len(tail)) + _members(head)
    yield _encode("rows") + array_header(table.num_rows)
    names = table.column_names
    for piece in _pieces(table):
        columns = [_without_nan(python_values(column, times)) for column in piece.columns]
        rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        yield _encode(rows)[len(array_header(len(rows))) :]
    yield _members(tail)


def array_header(length: int) -> bytes:
    """What an array of that length begins with."""
    if length < 16:
        return bytes([0x90 | length])
    return b"\xdc" + length.to_bytes(2, "big") if length < 2**16 else b"\xdd" + length.to_bytes(4, "big")


def map_header(length: int) -> bytes:
    """What a map of so many members begins with."""
    if length < 16:
        return bytes([0x80 | length])
    return b"\xde" + length.to_bytes(2, "big") if length < 2**16 else b"\xdf" + length.to_bytes(4, "big")


def _members(document: Mapping[str, Any]) -> bytes:
    return b"".join(_encode(name) + _encode(value) for name, value in document.items())


def _pieces(table: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in table.to_batches(max_chunksize=PIECE_ROWS):
        if batch.num_rows:
            yield batch


def _values(column: pa.Array, times: Times) -> bytes:
    """The values one after the other, without the header of an array."""
    if pa.types.is_floating(column.type):
        return _floats(column)
    values = python_values(column, times)
    return _encode(values)[len(array_header(len(values))) :]


def _floats(column: pa.Array) -> bytes:
    """Each as a byte that says so and eight of it, as a matrix; what is not finite as nil."""
    numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    packed = np.empty((len(numbers), 9), np.uint8)
    packed[:, 0] = _FLOAT64
    packed[:, 1:] = numbers.astype(">f8").view(np.uint8).reshape(-1, 8)
    finite = np.isfinite(numbers)
    if finite.all():
        return packed.tobytes()
    packed[~finite, 0] = _NIL
    kept = np.ones(packed.shape, bool)
    kept[~finite, 1:] = False
    return packed[kept].tobytes()


def _without_nan(values: Sequence[Any]) -> Sequence[Any]:
    if values and isinstance(values[0], float):
        return [value if -np.inf < value < np.inf else None for value in values]
    return values
