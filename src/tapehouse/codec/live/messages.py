"""What a stream sends, encoded once for all who get it.

A message of data has the rows of one symbol of one entry of the log. What differs between clients is how it is written
(JSON or msgpack, compressed or not) and the name that a client gave its subscription, which stands first: the rest is
encoded once and shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.codec.encode import Times, python_values, row_type
from tapehouse.codec.live import frames
from tapehouse.codec.live.entries import Entry, rows_of
from tapehouse.times import format_time

_FEW = 150
"""Times that are written one by one: formatting an array takes as long as that many, however few it has."""
_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode


class Wire(StrEnum):
    """How messages are written. Times are RFC 3339 in JSON, and nanoseconds in msgpack."""

    JSON = "json"
    MSGPACK = "msgpack"


class Variant(NamedTuple):
    """A way in which a message is sent: those who share it share its bytes."""

    wire: Wire
    compressed: bool
    subscription: str

    def frame(self, tail: bytes) -> bytes:
        """The message whose members after `id` are encoded in `tail`, which `encode_tail` made."""
        payload = _opening(self.wire, self.subscription, tail[0]) + tail[1:]
        opcode = frames.TEXT if self.wire is Wire.JSON else frames.BINARY
        return frames.deflated(opcode, payload) if self.compressed else frames.frame(opcode, payload)

    def event(self, kind: str, **members: Any) -> bytes:
        """The frame of an event of this subscription; members that are None are left out."""
        return self.frame(encode_tail(self.wire, {"type": kind, **_given(members)}))


def event(wire: Wire, kind: str, **members: Any) -> bytes:
    """The frame of an event that is about the connection."""
    document = {"type": kind, **_given(members)}
    if wire is Wire.JSON:
        return frames.frame(frames.TEXT, msgspec.json.encode(document, enc_hook=str))
    return frames.frame(frames.BINARY, msgspec.msgpack.encode(document, enc_hook=str))


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


@lru_cache(maxsize=4_096)
def _opening(wire: Wire, subscription: str, members: int) -> bytes:
    """What a message begins with: its `id`, and in msgpack how many members it has."""
    if wire is Wire.JSON:
        return b'{"id":' + _json(subscription) + b","
    return bytes((0x80 | (members + 1),)) + _msgpack("id") + _msgpack(subscription)


def encode_tail(wire: Wire, members: Mapping[str, Any]) -> bytes:
    """All members of a message but its `id`, behind a byte that has their number."""
    count = bytes((len(members),))
    if wire is Wire.JSON:
        return count + msgspec.json.encode(members, enc_hook=str)[1:]
    return count + b"".join(
        _msgpack(name) + msgspec.msgpack.encode(value, enc_hook=str) for name, value in members.items()
    )


_ROWS = _msgpack("rows")


class EntryMessages:
    """The messages of one entry: its rows are looked at when the first is asked for, and each is encoded once."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._tails: dict[tuple[int, Wire], bytes] = {}
        self._prepared: dict[Wire, tuple[bytes, list[Any]]] = {}

    def frame(self, symbol: int, variant: Variant) -> bytes:
        """The frame of the rows of the symbol at that place."""
        key = symbol, variant.wire
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = self._tail(symbol, variant.wire)
        return variant.frame(tail)

    def rows(self, symbol: int) -> pa.RecordBatch:
        """The rows of the symbol at that place, in order; columns without a value are left out."""
        start, end = self._bounds[symbol], self._bounds[symbol + 1]
        return self._batch.slice(start, end - start)

    def count(self, symbol: int) -> int:
        """How many rows the symbol at that place has."""
        rows: int = self._bounds[symbol + 1] - self._bounds[symbol]
        return rows

    def records(self, symbol: int, *, newest: bool = False) -> list[dict[str, Any]]:
        """The rows of the symbol at that place, or the last; times are nanoseconds, what is null is left out."""
        rows = self.rows(symbol)
        rows = rows.slice(rows.num_rows - 1) if newest else rows
        place = rows.schema.get_field_index("timestamp")
        found = rows.set_column(place, "timestamp", rows.column(place).cast(pa.int64())).to_pylist()
        return [_given(row) for row in found]

    def _tail(self, symbol: int, wire: Wire) -> bytes:
        head, rows = self._encoded(wire)
        encode = _json if wire is Wire.JSON else _msgpack
        name, body = encode(self.entry.symbols[symbol]), encode(rows[self._bounds[symbol] : self._bounds[symbol + 1]])
        return b"".join((head, name, b',"rows":', body, b"}") if wire is Wire.JSON else (head, name, _ROWS, body))

    def _encoded(self, wire: Wire) -> tuple[bytes, list[Any]]:
        """What all messages of the entry begin with, up to the symbol, and its rows."""
        known = self._prepared.get(wire)
        if known is None:
            entry, times = self.entry, Times.RFC3339 if wire is Wire.JSON else Times.NS
            members = {
                "type": "data",
                "channel": entry.channel,
                "source": entry.source,
                "ingested": format_time(entry.ingested) if wire is Wire.JSON else entry.ingested,
            }
            between = b',"symbol":' if wire is Wire.JSON else _msgpack("symbol")
            shared = encode_tail(wire, members)
            shared = shared[1:].removesuffix(b"}") if wire is Wire.JSON else shared[1:]
            columns = [_plain(column, times) for column in self._batch.columns]
            rows = [self._row(*values) for values in zip(*columns, strict=True)]
            known = self._prepared[wire] = bytes((len(members) + 2,)) + shared + between, rows
        return known

    def __getattr__(self, name: str) -> Any:
        # Most entries of a log have nobody who wants any of their symbols.
        if name in ("_batch", "_bounds", "_row"):
            self._look()
            return self.__dict__[name]
        raise AttributeError(name)

    def _look(self) -> None:
        """Sort the rows by symbol, which keeps the order of each, and leave out columns without a value."""
        rows = rows_of(self.entry)
        codes = rows.column(0).to_numpy()
        if len(self.entry.symbols) > 1 and (codes[1:] < codes[:-1]).any():
            order = np.argsort(codes, kind="stable")
            rows, codes = rows.take(pa.array(order)), codes[order]
        columns = {
            field.name: column
            for field, column in zip(rows.schema, rows.columns, strict=True)
            if field.name != "symbol" and column.null_count < len(column)
        }
        self._batch = pa.RecordBatch.from_pydict(columns)
        self._bounds = np.searchsorted(codes, np.arange(len(self.entry.symbols) + 1)).tolist()
        self._row = row_type(tuple(columns))


def _plain(column: pa.Array, times: Times) -> Sequence[Any]:
    """The values; a null is None, in msgpack as in JSON."""
    if times is Times.RFC3339 and len(column) < _FEW and pa.types.is_timestamp(column.type):
        return [format_time(nanos) for nanos in column.cast(pa.int64()).to_pylist()]
    if column.null_count and pa.types.is_floating(column.type):
        return column.to_pylist()  # type: ignore[no-any-return]
    return python_values(column, times)
