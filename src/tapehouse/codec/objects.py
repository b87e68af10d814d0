"""JSON, JSON lines and msgpack -> Arrow: bodies that hold rows as objects, or columns as lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.codec.limits import Limits, check_rows
from tapehouse.errors import InvalidTable, UnreadableFile
from tapehouse.model import SCHEMAS, Kind

_NULL = msgspec.Raw(b"null")
_NIL = b"\xc0"
_WHERE = re.compile(r"(?P<reason>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"field `(?P<name>[^`]*)`")
_SLICE_BYTES = 4 * 1024 * 1024
"""About how many bytes of rows become Python objects at once."""
_SLICE_ROWS = 50_000


class _Document(msgspec.Struct):
    columns: msgspec.Raw = msgspec.Raw(b"null")
    rows: msgspec.Raw = msgspec.Raw(b"null")


@cache
def _row_type(kind: Kind) -> Any:
    types = {field.name: _json_type(field) for field in SCHEMAS[kind]}
    needed = _needed(kind)
    return msgspec.defstruct(
        "Row",
        [(name, type_) if name in needed else (name, type_ | None, None) for name, type_ in types.items()],
        kw_only=True,
        forbid_unknown_fields=True,
    )


@cache
def _row(kind: Kind) -> msgspec.json.Decoder[Any]:
    """A list of rows."""
    row: Any = _row_type(kind)
    return msgspec.json.Decoder(list[row])


@cache
def _line(kind: Kind) -> msgspec.json.Decoder[Any]:
    """One row."""
    return msgspec.json.Decoder(_row_type(kind))


@cache
def _packed_row(kind: Kind) -> msgspec.msgpack.Decoder[Any]:
    """A list of rows."""
    row: Any = _row_type(kind)
    return msgspec.msgpack.Decoder(list[row])


@cache
def _column(kind: Kind, name: str) -> msgspec.json.Decoder[Any]:
    """The values of a column."""
    return msgspec.json.Decoder(_column_type(kind, name))


@cache
def _packed_column(kind: Kind, name: str) -> msgspec.msgpack.Decoder[Any]:
    """The values of a column."""
    return msgspec.msgpack.Decoder(_column_type(kind, name))


def _column_type(kind: Kind, name: str) -> Any:
    type_: Any = _json_type(SCHEMAS[kind].field(name))
    return list[type_] if name in _needed(kind) else list[type_ | None] | _scalar(name) | None


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


def decode_json(kind: Kind, body: Any, limits: Limits) -> pa.Table:
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


def decode_lines(kind: Kind, body: Any, limits: Limits) -> pa.Table:
    """JSON lines: an object per line, a slice of whole lines at a time; a line break within text is never a byte 10."""
    check_rows(body.count(b"\n"), limits.rows)  # the last line may end without one, and is counted when it is read
    tables: list[pa.Table] = []
    start, first_row = 0, 0
    while start < len(body):
        end = body.find(b"\n", start + _SLICE_BYTES) + 1 or len(body)
        try:
            rows = _line(kind).decode_lines(body[start:end])
        except msgspec.ValidationError as exc:
            raise _json_error(exc, first_row) from exc
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UnreadableFile(f"the body is not JSON lines from row {first_row} on: {exc}") from exc
        if rows:
            tables.append(_from_rows(kind, rows))
            _check_same_times(tables, rows, first_row)
        start, first_row = end, first_row + len(rows)
    return pa.concat_tables(tables or [_from_rows(kind, [])], promote_options="default")


def decode_msgpack(kind: Kind, body: Any, limits: Limits) -> pa.Table:
    """A list of rows, or a map with `rows` or `columns`, as in JSON; how long lists are is known before they are read.

    A timestamp is an integer or text: the extension type would lose its nanoseconds on the way to a datetime.
    """
    try:
        if _packed_length(body) is not None:
            return _from_packed_rows(kind, body, limits)
        if not (0x80 <= body[0] <= 0x8F or body[0] in (0xDE, 0xDF)):
            raise UnreadableFile("the body is not msgpack that begins with a map or a list")
        document = msgspec.msgpack.decode(body, type=_Packed)
        rows, columns = bytes(document.rows), bytes(document.columns)
        if (rows == _NIL) == (columns == _NIL):
            raise InvalidTable("the body needs `columns`, or `rows`, or to be a list of rows")
        if columns == _NIL:
            return _from_packed_rows(kind, rows, limits)
        return _from_packed_columns(kind, msgspec.msgpack.decode(columns, type=dict[str, msgspec.Raw]), limits)
    except msgspec.ValidationError as exc:
        raise _json_error(exc) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise UnreadableFile(f"the body is not msgpack: {exc}") from exc


class _Packed(msgspec.Struct):
    columns: msgspec.Raw = msgspec.Raw(b"\xc0")
    rows: msgspec.Raw = msgspec.Raw(b"\xc0")


def _packed_length(body: Any) -> int | None:
    """How long the array is that the body begins with; None when it begins with something else."""
    if 0x90 <= body[0] <= 0x9F:
        return int(body[0] & 0x0F)
    width = {0xDC: 2, 0xDD: 4}.get(body[0])
    return None if width is None else int.from_bytes(body[1 : 1 + width], "big")


def _from_packed_rows(kind: Kind, body: Any, limits: Limits) -> pa.Table:
    length = _packed_length(body)
    if length is None:
        raise InvalidTable("`rows` is a list of maps")
    check_rows(length, limits.rows)
    rows = msgspec.msgpack.decode(body, type=list[msgspec.Raw])
    tables: list[pa.Table] = []
    for first in range(0, max(1, length), _SLICE_ROWS):
        part = rows[first : first + _SLICE_ROWS]
        text = b"\xdd" + len(part).to_bytes(4, "big") + b"".join(part)
        try:
            found = _packed_row(kind).decode(text)
        except msgspec.ValidationError as exc:
            raise _json_error(exc, first) from exc
        tables.append(_from_rows(kind, found))
        _check_same_times(tables, found, first)
    return pa.concat_tables(tables, promote_options="default")


def _from_packed_columns(kind: Kind, parts: dict[str, msgspec.Raw], limits: Limits) -> pa.Table:
    _check_names(kind, parts)
    for part in parts.values():
        check_rows(_packed_length(bytes(part)) or 0, limits.rows)
    return _read_columns(kind, parts, _packed_column)


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
        raise bad_value(first_row, "timestamp", f"{rows[0].timestamp!r}; expected all text or all integers")


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
    return _read_columns(kind, texts, _column)


def _read_columns(
    kind: Kind,
    texts: dict[str, msgspec.Raw],
    decoder: Callable[[Kind, str], msgspec.json.Decoder[Any] | msgspec.msgpack.Decoder[Any]],
) -> pa.Table:
    columns: dict[str, Any] = {}
    for name in (field.name for field in SCHEMAS[kind] if field.name in texts):
        try:
            values = decoder(kind, name).decode(texts[name])
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
        raise bad_value(row, name, f"{values[row]!r} does not fit {type_}") from exc


def _mixed_times(values: list[Any]) -> pa.Array:
    """All integers or all text; a mixture is refused, since an integer's unit goes by its column."""
    texts = np.fromiter((isinstance(value, str) for value in values), bool, len(values))
    if texts.any() and not texts.all():
        row = int(np.argmax(texts != texts[0]))
        raise bad_value(row, "timestamp", f"{values[row]!r}; expected all text or all integers")
    try:
        return pa.array(values, pa.string() if texts.any() else pa.int64())
    except (pa.ArrowInvalid, OverflowError) as exc:
        row = next(i for i, value in enumerate(values) if not -(2**63) <= value < 2**63)
        raise bad_value(row, "timestamp", f"{values[row]!r}; expected an integer of 64 bits") from exc


def bad_value(row: int, column: str, reason: str) -> InvalidTable:
    """The error of a value that cannot be taken."""
    return InvalidTable(f"row {row}, column {column}: {reason} (rows are numbered from 0)", row=row, column=column)
