"""From the columns of an incoming table to the model's types: exactly, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.errors import InvalidSymbol, InvalidTable
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, NAME, TIMESTAMP, check_symbol

MAX_SOURCE_LENGTH = 256
_EXACT_INTEGER = 2**53  # every integer up to here is a float64
_EXACT_SCALE = 22  # and so is every power of ten up to here
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def cast(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as that field of the model; `InvalidTable` or `InvalidSymbol` for a value that does not fit."""
    if pa.types.is_null(column.type):
        column = pa.chunked_array([pa.nulls(len(column), field.type)])
    return _CASTS[field.type](field, column)


def check_source(source: str) -> str:
    """The source itself when it can be one: 1 to 256 characters without control characters; else `InvalidTable`."""
    if not source or len(source) > MAX_SOURCE_LENGTH or _CONTROL.search(source):
        shown = source[:40]
        raise InvalidTable(
            f"a source has 1 to {MAX_SOURCE_LENGTH} characters, none of them control characters: {shown!r}",
            source=shown,
        )
    return source


def refuse(name: str, row: int, value: Any, expected: str) -> NoReturn:
    raise InvalidTable(
        f"row {row}, column {name}: {value!r}; expected {expected} (rows are numbered from 0)",
        row=row,
        column=name,
        value=value,
        expected=expected,
    )


def refuse_first(bad: pa.ChunkedArray, column: pa.ChunkedArray, name: str, expected: str) -> None:
    """Refuse the first row in which `bad` is true, if there is one."""
    row = pc.index(bad, True).as_py()
    if row >= 0:
        refuse(name, row, _plain(column[row]), expected)


def _plain(scalar: Any) -> Any:
    """A value as a message and JSON can show it; a time as its text, since Python's has no nanoseconds."""
    return str(scalar) if pa.types.is_temporal(scalar.type) and scalar.is_valid else scalar.as_py()


def _require(column: pa.ChunkedArray, field: pa.Field) -> None:
    if not field.nullable and column.null_count:
        refuse_first(pc.is_null(column), column, field.name, "a value")


def _wrong_type(field: pa.Field, column: pa.ChunkedArray, expected: str) -> InvalidTable:
    return InvalidTable(
        f"column {field.name} is {column.type}; expected {expected}",
        column=field.name,
        type=str(column.type),
        expected=expected,
    )


def _validated(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column, once its text is known to be UTF-8 and its dictionary's indices to be inside."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as exc:
        raise InvalidTable(f"column {field.name} is damaged: {exc}", column=field.name) from exc
    return column


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _text(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    value_type = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not _is_text(value_type):
        raise _wrong_type(field, column, "text")
    return _decoded(_validated(field, column)).cast(pa.string())


def _name(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionary-encoded with one dictionary, each distinct value checked once."""
    if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
        _require(_validated(field, column), field)
        encoded = column.cast(NAME).unify_dictionaries()
    else:
        text = _text(field, column)
        _require(text, field)
        encoded = text.dictionary_encode().unify_dictionaries()
    check = check_symbol if field.name == "symbol" else check_source
    try:
        _check_names(encoded, check)
    except (InvalidTable, InvalidSymbol):
        # A dictionary may hold more than its rows do, nulls and repetitions too: look again at what the rows hold.
        encoded = encoded.cast(pa.string()).dictionary_encode().unify_dictionaries()
        _require(encoded, field)
        _check_names(encoded, check)
    return encoded


def _check_names(encoded: pa.ChunkedArray, check: Callable[[str], str]) -> None:
    names = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    for name in names:
        check("" if name is None else name)
    if len(set(names)) < len(names):
        raise InvalidTable("a dictionary has a value twice")


def _timestamp(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_timestamp(column.type):
        raise _wrong_type(field, column, "a timestamp with a time zone")
    if column.type.tz is None:
        raise _wrong_type(field, column, "a time zone (naive times are ambiguous; UTC is a zone)")
    _require(column, field)
    expected = "a time after 1677-09-21T00:12:43 and before 2262-04-11T23:47:16, as int64 nanoseconds hold it"
    try:
        times = column.cast(TIMESTAMP)
    except pa.ArrowInvalid:
        per_unit = {"s": 10**9, "ms": 10**6, "us": 10**3}[column.type.unit]
        units = column.cast(pa.timestamp(column.type.unit)).cast(pa.int64())
        _refuse_outside(units, -(MAX_TIME_NS // per_unit), MAX_TIME_NS // per_unit, expected)
        raise
    _refuse_outside(times.cast(pa.int64()), MIN_TIME_NS, MAX_TIME_NS - 1, expected)
    return times


def _refuse_outside(values: pa.ChunkedArray, low: int, high: int, expected: str) -> None:
    span = pc.min_max(values)
    if len(values) and (span["min"].as_py() < low or span["max"].as_py() > high):
        # The time itself cannot always be shown: the number can.
        refuse_first(pc.or_(pc.less(values, low), pc.greater(values, high)), values, "timestamp", expected)


def _number(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    column = _decoded(column)
    _require(column, field)
    numbers = _float64(field, column)
    return _without_nan(field, numbers) if field.nullable else numbers


def _float64(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_decimal(column.type):
        return _float64_from_decimal(column)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise _wrong_type(field, column, "numbers")
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        bad = pc.not_equal(column.cast(pa.float64(), safe=False).cast(column.type, safe=False), column)
        refuse_first(bad, column, field.name, "an integer that a float64 holds exactly")
        return column.cast(pa.float64(), safe=False)


def _float64_from_decimal(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The nearest float64 of each decimal; pyarrow's own cast is off by one bit for a good part of them."""
    scale = column.type.scale
    chunks = [_divided(chunk, scale) for chunk in column.chunks] if pa.types.is_decimal128(column.type) else [None]
    if any(chunk is None for chunk in chunks):
        return column.cast(pa.string()).cast(pa.float64())
    return pa.chunked_array(chunks, pa.float64())


def _divided(chunk: pa.Array, scale: int) -> pa.Array | None:
    """Integer / power of ten, both exact, so that the one division rounds correctly; None when they are not exact."""
    words = np.frombuffer(chunk.buffers()[1], np.int64).reshape(-1, 2)[chunk.offset : chunk.offset + len(chunk)]
    unscaled, high = words[:, 0], words[:, 1]
    exact = (high == unscaled >> 63) & (np.abs(unscaled) <= _EXACT_INTEGER)
    if not 0 <= scale <= _EXACT_SCALE or not exact.all():
        return None
    return pa.array(unscaled / 10.0**scale, mask=chunk.is_null().to_numpy(zero_copy_only=False))


def _without_nan(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.all(pc.is_finite(column)).as_py() is False:
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        refuse_first(pc.is_inf(column), column, field.name, "a finite number")
    return column


def _integer(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    column = _decoded(column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        column = _float64(field, column)
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), float(2**63)))
        refuse_first(pc.invert(whole), column, field.name, "a whole number")
    elif not (pa.types.is_integer(column.type) or pa.types.is_decimal(column.type)):
        raise _wrong_type(field, column, "whole numbers")
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as exc:
        raise InvalidTable(f"column {field.name}: {exc}; expected {field.type}", column=field.name) from exc


_CASTS: dict[pa.DataType, Callable[[pa.Field, pa.ChunkedArray], pa.ChunkedArray]] = {
    NAME: _name,
    TIMESTAMP: _timestamp,
    pa.float64(): _number,
    pa.int64(): _integer,
    pa.int32(): _integer,
    pa.string(): _text,
}
