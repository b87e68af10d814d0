"""Arrow IPC -> a table, no larger than it may be: what messages claim is read before anything is decompressed.

A compressed buffer begins with its length without compression (int64, little endian; -1: not compressed after all),
and Arrow allocates that much. The claims stand in flatbuffers, of which only the few fields below are looked at:
https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tapehouse.codec.limits import Limits, check_rows
from tapehouse.errors import InvalidTable, LimitExceeded, UnreadableFile
from tapehouse.model import Kind

_MAGIC = b"ARROW1"
_MOST_COLUMNS = 100
_MOST_MESSAGES = 20_000
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def decode_stream(kind: Kind, body: Any, limits: Limits) -> pa.Table:
    """The table of an Arrow stream."""
    return _decode(pa.py_buffer(body), limits, "an Arrow stream")


def decode_file(kind: Kind, body: Any, limits: Limits) -> pa.Table:
    """The table of an Arrow file: a stream between two magic words, and an index, which could name parts twice."""
    if not (body[:6] == _MAGIC and body[-6:] == _MAGIC and len(body) > 16):
        raise UnreadableFile("the body is not an Arrow file: it does not begin and end with ARROW1, or was cut off")
    return _decode(pa.py_buffer(body).slice(8), limits, "an Arrow file")


def _decode(buffer: pa.Buffer, limits: Limits, what: str) -> pa.Table:
    try:
        with pa.ipc.open_stream(buffer) as reader:
            _check_schema(reader.schema)
            _check_claims(buffer, limits)
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError, struct.error) as exc:
        raise UnreadableFile(f"the body is not {what}: {str(exc)[:200]}") from exc
    return table


def _check_schema(schema: pa.Schema) -> None:
    if len(schema) > _MOST_COLUMNS:
        raise InvalidTable(f"the body has {len(schema):,} columns, of which there cannot be so many")
    for field in schema:
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(plain) or pa.types.is_run_end_encoded(plain) or pa.types.is_dictionary(plain):
            name = field.name[:60]
            raise InvalidTable(f"column {name}: {str(field.type)[:60]} is no type of a column here", column=name)


def _check_claims(buffer: pa.Buffer, limits: Limits) -> None:
    rows = size = 0
    for number, message in enumerate(_messages(buffer)):
        if number > _MOST_MESSAGES:
            raise LimitExceeded(f"the body has more than {_MOST_MESSAGES:,} record batches; send larger ones")
        kind, found_rows, found_bytes = _claims(memoryview(message.metadata), message.body)
        rows += found_rows if kind == _RECORD_BATCH else 0
        size += found_bytes
        check_rows(max(rows, found_rows), limits.rows)
        if size > limits.bytes:
            raise LimitExceeded(
                f"the body has more than {limits.bytes:,} bytes without its compression; send it in parts",
                limit=limits.bytes,
            )


def _messages(buffer: pa.Buffer) -> Iterator[pa.ipc.Message]:
    reader = pa.ipc.MessageReader.open_stream(buffer)
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _claims(metadata: memoryview, body: pa.Buffer | None) -> tuple[int, int, int]:
    """Which kind of message it is, how many rows it has, and how many bytes its buffers will take."""
    message = _unsigned(metadata, 0)
    at = _field(metadata, message, 1)
    kind = metadata[at] if at else 0
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH) or body is None:
        return kind, 0, 0
    batch = _child(metadata, message, 2)
    if kind == _DICTIONARY_BATCH:
        batch = _child(metadata, batch, 1)
    at = _field(metadata, batch, 0)
    rows = _signed(metadata, at) if at else 0
    compressed = _field(metadata, batch, 3) != 0
    buffers = _child(metadata, batch, 2)
    content = memoryview(body)
    places = struct.iter_unpack("<qq", metadata[buffers + 4 : buffers + 4 + 16 * _unsigned(metadata, buffers)])
    return kind, rows, sum(_size(content, *place, compressed=compressed) for place in places)


def _size(content: memoryview, offset: int, length: int, *, compressed: bool) -> int:
    if length < 0 or offset < 0:
        raise pa.ArrowInvalid("a buffer has a negative place")
    if not compressed or length == 0:
        return length
    claimed = _signed(content, offset)
    return length if claimed < 0 else claimed


def _field(data: memoryview, table: int, number: int) -> int:
    """Where the field of a flatbuffer's table is; 0 when it is not there."""
    (back,) = struct.unpack_from("<i", data, table)
    index = table - back
    (size,) = struct.unpack_from("<H", data, index)
    place = 4 + 2 * number
    (offset,) = struct.unpack_from("<H", data, index + place) if place < size else (0,)
    return table + offset if offset else 0


def _child(data: memoryview, table: int, number: int) -> int:
    """The table or vector that a field points at."""
    at = _field(data, table, number)
    if not at:
        raise pa.ArrowInvalid("a message lacks a part")
    return at + _unsigned(data, at)


def _unsigned(data: memoryview, at: int) -> int:
    (value,) = struct.unpack_from("<I", data, at)
    return int(value)


def _signed(data: memoryview, at: int) -> int:
    (value,) = struct.unpack_from("<q", data, at)
    return int(value)
