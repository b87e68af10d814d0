"""An Arrow stream, decoded while it arrives.

pyarrow's reader pulls from a file and would block; and it takes a stream that was cut off between two batches for a
whole one. So this finds the edges of the messages itself, feeds the reader only whole ones, and insists on the end
marker. The format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Generic, TypeVar
from urllib.parse import unquote

import msgspec
import pyarrow as pa

from tapehouse.client.wire import ARROW_STREAM
from tapehouse.errors import Unavailable

B = TypeVar("B")

COMMIT = b"tapehouse.commit"
MADE_FROM = b"tapehouse.made_from"

_CONTINUATION = 0xFFFFFFFF
_PREFIX = struct.Struct("<II")
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as of one commit; `made_from` as in `tapehouse.query.base.Answer`, `next_page` is the token for more."""

    table: pa.Table
    commit: int = 0
    made_from: dict[str, tuple[str, ...]] = {}
    next_page: str | None = None


class Arriving(msgspec.Struct, Generic[B], frozen=True):
    """An answer whose rows are still to come: `batches` is an iterator of record batches, or an asynchronous one."""

    schema: pa.Schema
    commit: int
    made_from: dict[str, tuple[str, ...]]
    batches: B


class StreamDecoder:
    """Bytes in, record batches out."""

    def __init__(self) -> None:
        self.schema: pa.Schema | None = None
        self.finished = False
        self._arrived = bytearray()
        self._whole = _Whole()
        self._reader: pa.ipc.RecordBatchStreamReader | None = None

    def feed(self, data: bytes) -> list[pa.RecordBatch]:
        """The batches that these bytes complete; raises `Unavailable` for bytes that are no Arrow stream."""
        self._arrived += data
        batches = []
        while not self.finished and (message := self._next_message()) is not None:
            kind, content = message
            self._whole.data += content
            try:
                if kind == _SCHEMA:
                    self._reader = pa.ipc.open_stream(pa.PythonFile(self._whole, mode="r"))
                    self.schema = self._reader.schema
                elif kind == _BATCH and self._reader is not None:
                    batches.append(self._reader.read_next_batch())
            except pa.ArrowException as exc:
                raise Unavailable(f"the answer is not an Arrow stream that can be read: {exc}") from exc
        return batches

    def _next_message(self) -> tuple[int, bytes] | None:
        if len(self._arrived) < _PREFIX.size:
            return None
        continuation, metadata_length = _PREFIX.unpack_from(self._arrived)
        if continuation != _CONTINUATION:
            raise Unavailable("the answer is not an Arrow stream")
        if metadata_length == 0:
            self.finished = True
            return None
        start_of_body = _PREFIX.size + metadata_length
        if len(self._arrived) < start_of_body:
            return None
        kind, body_length = _kind_and_body_length(self._arrived, _PREFIX.size)
        end = start_of_body + body_length
        if len(self._arrived) < end:
            return None
        message = bytes(memoryview(self._arrived)[:end])
        del self._arrived[:end]
        return kind, message


class _Whole:
    """The file that pyarrow reads from: it only ever holds whole messages."""

    closed = False

    def __init__(self) -> None:
        self.data = bytearray()

    def read(self, size: int) -> bytes:
        taken = bytes(memoryview(self.data)[:size])
        del self.data[:size]
        return taken


def _kind_and_body_length(data: bytearray, start: int) -> tuple[int, int]:
    """Two fields of the flatbuffer `Message` (format/Message.fbs): header_type, the 2nd, and bodyLength, the 4th."""
    try:
        (root,) = struct.unpack_from("<I", data, start)
        table = start + root
        (to_vtable,) = struct.unpack_from("<i", data, table)
        vtable = table - to_vtable
        (size,) = struct.unpack_from("<H", data, vtable)
        offsets = struct.unpack_from(f"<{(size - 4) // 2}H", data, vtable + 4)
        kind = data[table + offsets[1]]
        body = struct.unpack_from("<q", data, table + offsets[3])[0] if len(offsets) > 3 and offsets[3] else 0
    except (struct.error, IndexError) as exc:
        raise Unavailable("the answer is not an Arrow stream that can be read") from exc
    return kind, body


class RowsReceiver:
    """An answer with rows: the batches as they arrive, and what the headers say of them."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        if not headers.get("content-type", "").startswith(ARROW_STREAM):
            raise Unavailable("the answer is not an Arrow stream; is it a Tapehouse server?")
        self.commit = int(headers.get("tapehouse-commit", "0"))
        self.made_from = parse_made_from(headers.get("tapehouse-made-from", ""))
        self.next_page = headers.get("tapehouse-next-page")
        self._decoder = StreamDecoder()
        self._batches: list[pa.RecordBatch] = []

    @property
    def schema(self) -> pa.Schema | None:
        """Known once the first message arrived."""
        return self._decoder.schema

    def arriving(self, batches: B) -> Arriving[B]:
        """What is known before the rows are."""
        self._check_schema()
        return Arriving(self.schema, self.commit, self.made_from, batches)

    def feed(self, data: bytes) -> None:
        self._batches += self._decoder.feed(data)

    def take(self) -> list[pa.RecordBatch]:
        """The batches that arrived since the last call."""
        taken, self._batches = self._batches, []
        return taken

    def check_end(self) -> None:
        """Raise `Unavailable` unless everything has arrived."""
        self._check_schema()
        if not self._decoder.finished:
            raise Unavailable("the answer was cut off; ask again")

    def result(self) -> Rows:
        self.check_end()
        table = pa.Table.from_batches(self.take(), schema=self.schema)
        table = described(table, self.commit, self.made_from)
        return Rows(table=table, commit=self.commit, made_from=self.made_from, next_page=self.next_page)

    def _check_schema(self) -> None:
        if self.schema is None:
            raise Unavailable("the answer was cut off before it said what it is; ask again")


def described(table: pa.Table, commit: int, made_from: Mapping[str, tuple[str, ...]]) -> pa.Table:
    """The table, with the commit and what the rows were made from (as JSON) in its schema's metadata."""
    return table.replace_schema_metadata({COMMIT: str(commit), MADE_FROM: json.dumps(made_from)})


def parse_made_from(header: str) -> dict[str, tuple[str, ...]]:
    """`AAPL=1m;MSFT=1m,trades` as a mapping; the names are percent-encoded (`ES%3DF`)."""
    made_from = {}
    for part in filter(None, header.split(";")):
        symbol, _, origins = part.partition("=")
        made_from[unquote(symbol)] = tuple(origins.split(","))
    return made_from
