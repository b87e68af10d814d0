"""Bytes -> Arrow: bodies that were posted. Their form is checked here, and times are read; the store checks values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.codec.arrow import decode_file, decode_stream
from tapehouse.codec.encode import Times
from tapehouse.codec.limits import Limits, check_rows
from tapehouse.codec.objects import bad_value, decode_json, decode_lines, decode_msgpack
from tapehouse.errors import InvalidTable, UnreadableFile
from tapehouse.model import SCHEMAS, TIMESTAMP, Kind

_NULLS = ["", "null", "NaN", "nan"]
_CSV_ROW = re.compile(r"Row #(\d+): ?")
_DIGITS_OF_UNIT = ((10**11, Times.S), (10**14, Times.MS), (10**17, Times.US))
_PER_UNIT = {Times.NS: 1, Times.US: 1_000, Times.MS: 1_000_000, Times.S: 1_000_000_000}


def decode_table(
    kind: Kind,
    media_type: str,
    body: bytes | bytearray,
    *,
    times: Times = Times.RFC3339,
    max_rows: int,
    max_bytes: int = 2**40,
) -> pa.Table:
    """The rows of a body; `media_type` is one of `MEDIA_TYPES`.

    Integers in `timestamp` are in the unit that `times` names; under `rfc3339` their size says it (below 10^11: s,
    below 10^14: ms, below 10^17: µs, else ns; the largest of the column counts). Raises `UnreadableFile` for what is
    not of that type, `InvalidTable` with the row and column, and `LimitExceeded` for more rows, or for more bytes once
    an Arrow body is decompressed; what a body holds is counted before it is decoded.
    """
    if not body:
        raise UnreadableFile("the body is empty")
    table = MEDIA_TYPES[media_type](kind, body, Limits(max_rows, max_bytes))
    check_rows(table.num_rows, max_rows)
    return _with_times(table, times)


def _with_times(table: pa.Table, times: Times) -> pa.Table:
    if table.column_names.count("timestamp") != 1:
        return table  # the store says what is wrong
    place = table.column_names.index("timestamp")
    return table.set_column(place, "timestamp", _timestamps(table.column(place), times))


def _timestamps(column: pa.ChunkedArray, times: Times) -> pa.ChunkedArray:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parsed(column.cast(pa.string()))
    if pa.types.is_integer(column.type):
        return _from_epoch(column, times)
    return column


def _parsed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """RFC 3339, or digits, in all rows alike."""
    if pc.all(pc.match_substring_regex(column, r"^-?\d+$"), min_count=1).as_py():
        return _cast_text(column, pa.int64(), "an integer of 64 bits")
    return _cast_text(column, TIMESTAMP, "RFC 3339 with a zone (2024-01-02T14:30:00Z), between 1678 and 2262")


def _cast_text(column: pa.ChunkedArray, type_: pa.DataType, expected: str) -> pa.ChunkedArray:
    try:
        return column.cast(type_)
    except pa.ArrowInvalid as exc:
        row = _first(column, lambda part: part.cast(type_))
        value = column[row].as_py()
        raise bad_value(row, "timestamp", f"{value[:60]!r}; expected {expected}") from exc


def _first(column: pa.ChunkedArray, attempt: Callable[[pa.ChunkedArray], object]) -> int:
    """The first row that fails: halve the column, since a try a row is slow."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            attempt(column.slice(low, middle - low))
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low


def _from_epoch(column: pa.ChunkedArray, times: Times) -> pa.ChunkedArray:
    try:
        values = column.cast(pa.int64())
        unit = _unit_of(values) if times is Times.RFC3339 else times
        return pc.multiply_checked(values, _PER_UNIT[unit]).cast(TIMESTAMP)
    except pa.ArrowInvalid as exc:
        raise InvalidTable(
            "column timestamp: an integer is too large; expected one of 64 bits, in a unit in which it is before 2262",
            column="timestamp",
        ) from exc


def _unit_of(values: pa.ChunkedArray) -> Times:
    span = pc.min_max(values).as_py()
    largest = max(abs(span["min"] or 0), abs(span["max"] or 0))
    return next((unit for bound, unit in _DIGITS_OF_UNIT if largest < bound), Times.NS)


def _decode_csv(kind: Kind, body: Any, limits: Limits) -> pa.Table:
    from pyarrow import csv

    types = {field.name: pa.string() if _is_text(field) else field.type for field in SCHEMAS[kind]}
    try:
        table = csv.read_csv(
            pa.BufferReader(pa.py_buffer(body)),
            # One thread, because only then does Arrow say which row is wrong.
            read_options=csv.ReadOptions(use_threads=False),
            convert_options=csv.ConvertOptions(column_types=types, null_values=_NULLS),
        )
    except pa.ArrowInvalid as exc:
        raise _csv_error(exc, body) from exc
    for place, name in enumerate(table.column_names):
        if pa.types.is_string(table.column(place).type) and name != "timestamp":
            table = table.set_column(place, name, _without_empty(table.column(place)))
    return table


def _is_text(field: pa.Field) -> bool:
    return bool(
        pa.types.is_dictionary(field.type) or pa.types.is_string(field.type) or pa.types.is_timestamp(field.type)
    )


def _without_empty(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _csv_error(exc: pa.ArrowInvalid, body: Any) -> InvalidTable | UnreadableFile:
    """Arrow counts lines from 1, the header included, and columns from 0."""
    message = str(exc)
    found = _CSV_ROW.search(message)
    if found is None:
        return UnreadableFile(f"the body is not CSV: {message[:200]}")
    row = max(int(found[1]) - 2, 0)
    details: dict[str, Any] = {"row": row}
    if column := re.match(r"In CSV column #(\d+)", message):
        header = bytes(body[: body.find(b"\n")]).decode("utf-8-sig", "replace").split(",")
        details["column"] = header[int(column[1])].strip().strip('"')[:60]
    where = ", ".join(f"{key} {value}" for key, value in details.items())
    return InvalidTable(f"{where}: {message[found.end() :][:200]} (rows are numbered from 0)", **details)


MEDIA_TYPES: dict[str, Callable[[Kind, Any, Limits], pa.Table]] = {
    "application/json": decode_json,
    "text/csv": _decode_csv,
    "application/vnd.apache.arrow.stream": decode_stream,
    "application/vnd.apache.arrow.file": decode_file,
    "application/x-ndjson": decode_lines,
    "application/jsonl": decode_lines,
    "application/msgpack": decode_msgpack,
    "application/vnd.msgpack": decode_msgpack,
    "application/x-msgpack": decode_msgpack,
}
"""What can be posted."""
