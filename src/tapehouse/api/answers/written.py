"""Rows as bytes: in which form, and how they are brought into it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from starlette.requests import Request

from tapehouse.api.answers.coding import Coding, choose, compressed
from tapehouse.api.formats import ACCEPTED, MEDIA_TYPES, Compression, Format, Layout, Wanted
from tapehouse.codec import (
    PIECE_ROWS,
    Times,
    encode_columns,
    encode_csv,
    encode_file,
    encode_lines,
    encode_parquet,
    encode_rows,
    encode_stream,
    pack_columns,
    pack_rows,
)
from tapehouse.errors import InvalidRequest, NotAcceptable

IN_RANGES = frozenset({Format.CSV, Format.FILE, Format.PARQUET})
"""What can be read in ranges: the formats of files."""

_COMPRESSED = frozenset({Format.ARROW, Format.FILE, Format.PARQUET})
"""What compresses its own columns, or is read from the wire as it comes."""

_WHOLE = frozenset({Format.FILE, Format.PARQUET, Format.MSGPACK})
"""What cannot begin before it is known how it ends."""


@dataclass(frozen=True)
class Form:
    """How an answer is written. The same rows in the same form are the same bytes, unless the tag is weak."""

    format: Format
    coding: Coding
    layout: Layout
    times: Times
    compression: Compression | None

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.format]

    @property
    def buffers(self) -> str | None:
        """How Arrow's buffers are compressed, as Arrow takes it."""
        return None if self.compression is None else self.compression.value

    @property
    def whole(self) -> bool:
        """Whether all rows are needed before the first byte."""
        return self.format in _WHOLE or (self.format is Format.JSON and self.layout is Layout.COLUMNS)

    @property
    def weak(self) -> bool:
        """Whether the bytes depend on more than the rows: an Arrow stream has the batches that the store gave."""
        return self.format is Format.ARROW

    def plain(self) -> Form:
        """The same without a content coding."""
        return Form(self.format, Coding.IDENTITY, self.layout, self.times, self.compression)


def form_of(request: Request, wanted: Wanted) -> Form:
    """The form that a request asks for; `NotAcceptable` names the formats that there are."""
    format_ = negotiate(wanted.format, request.headers.get("accept"))
    if wanted.compression is not None and format_ not in (Format.ARROW, Format.FILE):
        raise InvalidRequest(
            f"compression is of Arrow's buffers, and the answer is {format_}: Accept-Encoding compresses it",
            parameter="compression",
        )
    coding = Coding.IDENTITY
    if wanted.compression is None:
        coding = choose(request.headers.get("accept-encoding"), only_if_asked=format_ in _COMPRESSED)
    return Form(format_, coding, wanted.layout, wanted.times, wanted.compression)


def negotiate(asked: Format | None, accept: str | None) -> Format:
    """The format to answer in; `NotAcceptable` names what there is."""
    if asked is not None or not accept:
        return asked or Format.JSON
    ranked = sorted(_ranges(accept), key=lambda one: -one[1])
    for media_range, quality in ranked:
        for media_type, format_ in ACCEPTED.items():
            if quality > 0 and _matches(media_range, media_type):
                return format_
    raise NotAcceptable(f"{accept[:100]!r} is none of {', '.join(MEDIA_TYPES.values())}", parameter="Accept")


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        media_range, *parameters = (each.strip().lower() for each in part.split(";"))
        quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            yield media_range, float(quality)
        except ValueError:
            yield media_range, 0.0


def _matches(media_range: str, media_type: str) -> bool:
    if media_range in ("*/*", media_type):
        return True
    return media_range.endswith("/*") and media_type.startswith(media_range[:-1])


@dataclass
class Rows:
    """What is to be sent: rows as they come, or gathered; `commit` is None where rows are of none."""

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    commit: int | None = None
    made_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    next_page: str | None = None


def write(rows: Rows, form: Form) -> Generator[bytes]:
    """The rows in that form, as they come."""
    return compressed(_WRITERS[form.format](rows, form), form.coding)


def _json(rows: Rows, form: Form) -> Generator[bytes]:
    head, tail = _frame(rows)
    if form.layout is Layout.ROWS:
        return encode_rows(rows.batches, head, tail, form.times)
    return encode_columns(_table(rows), head, tail, form.times)


def _msgpack(rows: Rows, form: Form) -> Generator[bytes]:
    pack = pack_rows if form.layout is Layout.ROWS else pack_columns
    return pack(_table(rows), *_frame(rows), form.times)


def _csv(rows: Rows, form: Form) -> Generator[bytes]:
    return encode_csv(rows.schema, _even(rows), form.times)


def _lines(rows: Rows, form: Form) -> Generator[bytes]:
    return encode_lines(rows.batches, form.times)


def _stream(rows: Rows, form: Form) -> Generator[bytes]:
    return encode_stream(rows.schema, rows.batches, form.buffers)


def _file(rows: Rows, form: Form) -> Generator[bytes]:
    return encode_file(_in_one(rows), form.buffers)


def _parquet(rows: Rows, form: Form) -> Generator[bytes]:
    return encode_parquet(_in_one(rows))


_WRITERS: dict[Format, Callable[[Rows, Form], Generator[bytes]]] = {
    Format.JSON: _json,
    Format.CSV: _csv,
    Format.ARROW: _stream,
    Format.FILE: _file,
    Format.JSONL: _lines,
    Format.MSGPACK: _msgpack,
    Format.PARQUET: _parquet,
}


def _frame(rows: Rows) -> tuple[dict[str, Any], dict[str, Any]]:
    if rows.commit is None:
        return {}, {}
    return {"commit": rows.commit, "made_from": dict(rows.made_from)}, {"next_page": rows.next_page}


def _table(rows: Rows) -> pa.Table:
    return pa.Table.from_batches(list(rows.batches), rows.schema)


def _in_one(rows: Rows) -> pa.Table:
    """The rows with dictionaries of what is in them, in the order in which it comes: however they were stored."""
    return _plain_dictionaries(_table(rows).unify_dictionaries().combine_chunks())


def _even(rows: Rows) -> Iterator[pa.RecordBatch]:
    """The rows in batches of `PIECE_ROWS`, however they were stored: how text is quoted goes by the batch."""
    waiting: list[pa.RecordBatch] = []
    number = 0
    for batch in rows.batches:
        waiting.append(batch)
        number += batch.num_rows
        if number >= PIECE_ROWS:
            table = pa.Table.from_batches(waiting, rows.schema)
            even = number - number % PIECE_ROWS
            yield from _batches(table.slice(0, even))
            waiting, number = table.slice(even).to_batches(), number - even
    if number:
        yield from _batches(pa.Table.from_batches(waiting, rows.schema))


def _batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    table = table.unify_dictionaries().combine_chunks()
    for start in range(0, table.num_rows, PIECE_ROWS):
        yield from _plain_dictionaries(table.slice(start, PIECE_ROWS)).to_batches()


def _plain_dictionaries(table: pa.Table) -> pa.Table:
    for place, field_ in enumerate(table.schema):
        if pa.types.is_dictionary(field_.type):
            column = table.column(place).cast(field_.type.value_type).combine_chunks().dictionary_encode()
            table = table.set_column(place, field_, column.cast(field_.type))
    return table
