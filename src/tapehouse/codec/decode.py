"""Bytes -> Arrow: bodies that were posted. Their form is checked here, and times are read; the store checks values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.codec.arrow import decode_file, decode_stream
from tapehouse.codec.encode import Times
from tapehouse.codec.limits import Limits, check_rows
from tapehouse.errors import InvalidTable, UnreadableFile
from tapehouse.model import SCHEMAS, TIMESTAMP, Kind

_NULL = msgspec.Raw(b"null")
_NULLS = ["", "null", "NaN", "nan"]
_WHERE = re.compile(r"(?P<reason>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"field `(?P<name>[^`]*)`")
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
        raise _bad_value(row, "timestamp", f"{value[:60]!r}; expected {expected}") from exc


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


def _bad_value(row: int, column: str, reason: str) -> InvalidTable:
    return InvalidTable(f"row {row}, column {column}: {reason} (rows are numbered from 0)", row=row, column=column)


# JSON


_SLICE_BYTES = 4 * 1024 * 1024
"""About how many bytes of rows become Python objects at once."""


class _Document(msgspec.Struct):
    columns: msgspec.Raw = msgspec.Raw(b"null")
    rows: msgspec.Raw = msgspec.Raw(b"null")


@cache
def _row(kind: Kind) -> msgspec.json.Decoder[Any]:
    """A list of rows."""
    types = {field.name: _json_type(field) for field in SCHEMAS[kind]}
    needed = _needed(kind)
    row: Any = msgspec.defstruct(
        "Row",
        [(name, type_) if name in needed else (name, type_ | None, None) for name, type_ in types.items()],
        kw_only=True,
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(list[row])


@cache
def _column(kind: Kind, name: str) -> msgspec.json.Decoder[Any]:
    """The values of a column."""
    type_: Any = _json_type(SCHEMAS[kind].field(name))
    return msgspec.json.Decoder(list[type_] if name in _needed(kind) else list[type_ | None] | _scalar(name) | None)


def _needed(kind: Kind) -> list[str]:
    return [field.name for field in SCHEMAS[kind] if not field.nullable and field.name != "symbol"]


def _scalar(name: str) -> Any:
    """A column of names may be one name for all rows."""
    return str | None if name in ("symbol", "source") else None


def _json_type(field: pa.Field) -> Any:
    if pa.types.is_timestamp(field.type):
        return int | str
    if pa.types.is_floating(field.type):
        return float
    return int if pa.types.is_integer(field.type) else str


def _decode_json(kind: Kind, body: Any, limits: Limits) -> pa.Table:
    """A list of rows, or an object with `rows` or `columns`."""
    try:
        if body[:64].lstrip().startswith(b"["):
            return _from_row_text(kind, body, limits)
        document = msgspec.json.decode(body, type=_Document)
        if (document.rows == _NULL) == (document.columns == _NULL):
            raise InvalidTable('the body needs "columns", or "rows", or to be a list of rows')
        if document.columns == _NULL:
            return _from_row_text(kind, bytes(document.rows), limits)
        return _from_columns(kind, msgspec.json.decode(document.columns, type=dict[str, msgspec.Raw]), limits)
    except msgspec.ValidationError as exc:
        raise _json_error(exc) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise UnreadableFile(f"the body is not JSON: {exc}") from exc


def _json_error(exc: msgspec.ValidationError, first_row: int = 0, column: str | None = None) -> InvalidTable:
    """Where msgspec says `$[3].open` in a slice, say which row and column of the body."""
    found = _WHERE.match(str(exc))
    reason, path = (found["reason"], found["path"] or "") if found else (str(exc), "")
    row = re.search(r"\[(\d+)\]", path)
    names = [column] if column else re.findall(r"\.(\w+)", path)
    if field := _FIELD.search(reason):
        names = [field["name"]]
    details: dict[str, Any] = {"row": first_row + int(row[1])} if row else {}
    if names:
        details["column"] = names[0][:60]
    where = ", ".join(f"{key} {value}" for key, value in details.items())
    numbered = " (rows are numbered from 0)" if row else ""
    return InvalidTable(f"{where or 'the body'}: {reason[:200]}{numbered}", **details)


def _from_row_text(kind: Kind, text: Any, limits: Limits) -> pa.Table:
    """A list of objects, a slice at a time: Python objects take ten times the room of their text.

    A slice ends behind a brace and before a comma. Should those stand within a text, the slice is no JSON, and a longer
    one is tried. Each row opens a brace, so that there are too many can be known before any is read.
    """
    check_rows(text.count(b"{"), limits.rows)
    tables: list[pa.Table] = []
    start, first_row, reach = text.find(b"[") + 1, 0, _SLICE_BYTES
    while True:
        cut = text.find(b"},", start + reach)
        part = b"[" + text[start : cut + 1] + b"]" if cut >= 0 else b"[" + text[start:]
        try:
            rows = _row(kind).decode(part)
        except msgspec.ValidationError as exc:
            raise _json_error(exc, first_row) from exc
        except msgspec.DecodeError:
            if cut < 0:
                raise
            reach *= 2
            continue
        tables.append(_from_rows(kind, rows))
        _check_same_times(tables, rows, first_row)
        if cut < 0:
            return pa.concat_tables(tables, promote_options="default")
        start, first_row, reach = cut + 2, first_row + len(rows), _SLICE_BYTES


def _check_same_times(tables: Sequence[pa.Table], rows: Sequence[Any], first_row: int) -> None:
    if tables[0].schema.field("timestamp").type != tables[-1].schema.field("timestamp").type:
        raise _bad_value(first_row, "timestamp", f"{rows[0].timestamp!r}; expected all text or all integers")


def _from_rows(kind: Kind, rows: Sequence[Any]) -> pa.Table:
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in SCHEMAS[kind]}
    sent = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    required = {field.name for field in SCHEMAS[kind] if not field.nullable}
    if rows:
        required.remove("symbol")  # which may be said once for all rows, elsewhere
    return _table(kind, {name: values for name, values in columns.items() if name in sent or name in required})


def _from_columns(kind: Kind, texts: dict[str, msgspec.Raw], limits: Limits) -> pa.Table:
    """Columns one after the other. In one of numbers a comma can only separate, so they are counted unread."""
    _check_names(kind, texts)
    for name, text in texts.items():
        if pa.types.is_floating(SCHEMAS[kind].field(name).type):
            check_rows(bytes(text).count(b",") + 1, limits.rows)
    columns: dict[str, Any] = {}
    for name in (field.name for field in SCHEMAS[kind] if field.name in texts):
        try:
            values = _column(kind, name).decode(texts[name])
        except msgspec.ValidationError as exc:
            raise _json_error(exc, column=name) from exc
        if values is not None:
            columns[name] = values if isinstance(values, str) else _array(kind, name, values)
    return _even(columns)


def _check_names(kind: Kind, texts: dict[str, msgspec.Raw]) -> None:
    known = SCHEMAS[kind].names
    wrong = [(name, "Object contains unknown field") for name in texts if name not in known]
    wrong += [(name, "Object missing required field") for name in _needed(kind) if name not in texts]
    if wrong:
        name, reason = wrong[0][0][:60], wrong[0][1]
        raise InvalidTable(f"column {name}: {reason} `{name}`", column=name)


def _even(columns: dict[str, Any]) -> pa.Table:
    rows = len(columns["timestamp"])
    for name, values in columns.items():
        if isinstance(values, str):
            columns[name] = pa.repeat(values, rows)
        elif len(values) != rows:
            raise InvalidTable(
                f"column {name} has {len(values)} values, but timestamp has {rows}", column=name, rows=rows
            )
    return pa.table(columns)


def _table(kind: Kind, columns: dict[str, list[Any]]) -> pa.Table:
    return pa.table({name: _array(kind, name, values) for name, values in columns.items()})


def _array(kind: Kind, name: str, values: list[Any]) -> pa.Array:
    if name == "timestamp":
        return _mixed_times(values)
    type_ = SCHEMAS[kind].field(name).type
    type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
    try:
        return pa.array(values, type_)
    except (pa.ArrowInvalid, OverflowError) as exc:
        row = next((i for i, value in enumerate(values) if isinstance(value, int) and abs(value) >= 2**31), 0)
        raise _bad_value(row, name, f"{values[row]!r} does not fit {type_}") from exc


def _mixed_times(values: list[Any]) -> pa.Array:
    """All integers or all text; a mixture is refused, since an integer's unit goes by its column."""
    texts = np.fromiter((isinstance(value, str) for value in values), bool, len(values))
    if texts.any() and not texts.all():
        row = int(np.argmax(texts != texts[0]))
        raise _bad_value(row, "timestamp", f"{values[row]!r}; expected all text or all integers")
    try:
        return pa.array(values, pa.string() if texts.any() else pa.int64())
    except (pa.ArrowInvalid, OverflowError) as exc:
        row = next(i for i, value in enumerate(values) if not -(2**63) <= value < 2**63)
        raise _bad_value(row, "timestamp", f"{values[row]!r}; expected an integer of 64 bits") from exc


# CSV


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
    "application/json": _decode_json,
    "text/csv": _decode_csv,
    "application/vnd.apache.arrow.stream": decode_stream,
    "application/vnd.apache.arrow.file": decode_file,
}
"""What can be posted."""
