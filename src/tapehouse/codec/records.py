"""The model's structs <-> JSON, msgpack and Arrow, for feeds and streams, which do not call it yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import pyarrow as pa

from tapehouse.errors import InvalidData
from tapehouse.model import SCHEMAS, Bar, Kind, Quote, Trade

Record = Bar | Trade | Quote
Wire = Literal["json", "msgpack"]

_TYPES: dict[Kind, type[Record]] = {Kind.BARS: Bar, Kind.TRADES: Trade, Kind.QUOTES: Quote}
_LISTS = {Kind.BARS: list[Bar], Kind.TRADES: list[Trade], Kind.QUOTES: list[Quote]}
_CODECS: dict[Wire, Any] = {"json": msgspec.json, "msgpack": msgspec.msgpack}


def encode_records(records: Sequence[Record], wire: Wire) -> bytes:
    """The records as one array of objects."""
    encoded: bytes = _CODECS[wire].encode(records)
    return encoded


def decode_records(kind: Kind, data: bytes, wire: Wire) -> list[Record]:
    """The records of an array of objects; `InvalidData` says where it is not one."""
    try:
        records: list[Record] = _CODECS[wire].decode(data, type=_LISTS[kind])
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidData(f"these are not {kind}: {exc}", kind=kind) from exc
    return records


def table_of(kind: Kind, records: Sequence[Record]) -> pa.Table:
    """The records as a table with every column of their kind."""
    columns = [_column(field, records) for field in SCHEMAS[kind]]
    return pa.table(columns, schema=SCHEMAS[kind])


def _column(field: pa.Field, records: Sequence[Record]) -> pa.Array:
    values = [getattr(record, field.name) for record in records]
    if pa.types.is_dictionary(field.type):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, field.type)


def records_of(kind: Kind, table: pa.Table) -> list[Record]:
    """The rows of a table as records; columns that it does not have are None."""
    names = [field.name for field in SCHEMAS[kind] if field.name in table.column_names]
    columns = [_values(table.column(name)) for name in names]
    record = _TYPES[kind]
    return [record(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
    return column.to_pylist()  # type: ignore[no-any-return]
