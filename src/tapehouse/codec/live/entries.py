"""A batch of records as the log holds it: a small header that says what is in it, and the rows as one Arrow batch.

The header is read without the rows: who follows a few symbols passes over the batches that have none of them. The rows
are an Arrow IPC message without its schema, which the channel names; writing and reading one takes 2 microseconds, of
one row as of a thousand. Symbols are numbers in it, the places of their names in the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.codec.live.channels import body_schema
from tapehouse.errors import InvalidData
from tapehouse.model import Position

VERSION = 1


class Entry(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """A batch of records of one channel, from one source, in the order in which they came.

    `ingested` is when it was taken, UTC nanoseconds. `symbols` are the distinct ones. `first` and `last` are the
    source's sequence numbers, of that `session`, of what it was a part of; None where it has none. `made_from` is, of
    what `derive` made, the newest entry of the same partition that went into it.
    """

    version: int = VERSION
    channel: str
    source: str
    ingested: int
    rows: int
    symbols: list[str]
    body: bytes
    first: int | None = None
    last: int | None = None
    session: str = ""
    made_from: Position | None = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """The entry as bytes."""
    return _ENCODER.encode(entry)


def decode_entry(data: bytes | memoryview) -> Entry:
    """The entry that those bytes are; `InvalidData` for others, or those of a newer version."""
    try:
        entry = _DECODER.decode(data)
    except msgspec.MsgspecError as exc:
        raise InvalidData(f"this is no entry of the log: {exc}") from exc
    if entry.version > VERSION:
        raise InvalidData(f"an entry of version {entry.version} was written by a newer program than this one")
    return entry


def make_entry(channel: str, rows: pa.RecordBatch, source: str, ingested: int, **header: Any) -> Entry:
    """The entry of rows of the model, whose symbols are dictionary-encoded; optional columns may be absent.

    `header` are further fields of `Entry`.
    """
    column: pa.DictionaryArray = rows.column("symbol")
    used, places = np.unique(column.indices.to_numpy(), return_inverse=True)
    symbols = column.dictionary.take(pa.array(used)).to_pylist()
    columns = [pa.array(places.astype(np.int32))]
    given = set(rows.schema.names)
    for field in list(body_schema(channel))[1:]:
        if field.name in given:
            values = rows.column(field.name)
            columns.append(values.dictionary_decode() if pa.types.is_dictionary(values.type) else values)
        else:
            columns.append(_nulls(field.type, rows.num_rows))
    return pack(channel, symbols, columns, source, ingested, **header)


def pack(
    channel: str, symbols: list[str], columns: Sequence[pa.Array], source: str, ingested: int, **header: Any
) -> Entry:
    """The entry of those columns, which are those of `body_schema(channel)`, in order."""
    batch = pa.RecordBatch.from_arrays(columns, schema=body_schema(channel))
    body = batch.serialize().to_pybytes()
    return Entry(
        channel=channel, source=source, ingested=ingested, rows=batch.num_rows, symbols=symbols, body=body, **header
    )


@lru_cache(maxsize=256)
def _nulls(kind: pa.DataType, rows: int) -> pa.Array:
    return pa.nulls(rows, kind)


def rows_of(entry: Entry) -> pa.RecordBatch:
    """The rows, symbols as their places in `entry.symbols`; nothing is copied."""
    try:
        return pa.ipc.read_record_batch(pa.py_buffer(entry.body), body_schema(entry.channel))
    except pa.ArrowException as exc:
        raise InvalidData(f"the rows of an entry of {entry.source} cannot be read: {exc}") from exc


def table_of(entry: Entry) -> pa.RecordBatch:
    """The rows as the store takes them: symbols and the source as names, without columns that have no value."""
    rows = rows_of(entry)
    names = pa.array(entry.symbols, pa.string())
    columns = {"symbol": pa.DictionaryArray.from_arrays(rows.column("symbol"), names)}
    for field in list(rows.schema)[1:]:
        column = rows.column(field.name)
        if not field.nullable or column.null_count < len(column):
            columns[field.name] = column
    indices = pa.array(np.zeros(entry.rows, np.int32))
    columns["source"] = pa.DictionaryArray.from_arrays(indices, pa.array([entry.source]))
    return pa.RecordBatch.from_pydict(columns)
