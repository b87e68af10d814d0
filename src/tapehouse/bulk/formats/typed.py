"""A file whose columns have types as rows of the model, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.bulk.base import PRICES, BadRow, RecognisedFile, TimeStyle
from tapehouse.bulk.formats.columnar import opened
from tapehouse.bulk.formats.convert import (
    NUMBER_TYPES,
    ROUNDED,
    UNIT_NS,
    cast_or_null,
    exact_floats,
    fixed_point,
    float_times,
    in_one_unit,
    reject_no_clocks,
    reject_unread,
    renamed,
    scaled,
    time_type,
)
from tapehouse.bulk.formats.text import END_ROWS, Parsed, last_number
from tapehouse.bulk.formats.zones import Zone
from tapehouse.bulk.validate import NAME_FIELDS, TIME_FIELDS, Judge, Verdict
from tapehouse.errors import UnrecognisedFile
from tapehouse.model import SCHEMAS

BATCH_ROWS = 131_072


class Part(msgspec.Struct, frozen=True):
    """Consecutive rows of a file; the first is number `row`, from 1."""

    batch: pa.RecordBatch
    row: int
    source_bytes: int


def parts(file: RecognisedFile, rows: int = BATCH_ROWS) -> Iterator[Part]:
    """The columns that are taken, in batches of at most so many rows, in the order of the file."""
    with opened(file) as source:
        names = source.schema.names
        columns = sorted({names[place] for place in file.places.values()})
        row, total = 1, source.rows
        for batch in source.batches(columns, rows):
            done = int((row - 1 + batch.num_rows) / max(total, 1) * file.size) if total is not None else 0
            yield Part(batch, row, min(done, file.size))
            row += batch.num_rows


def check_types(file: RecognisedFile, schema: pa.Schema) -> None:
    """`UnrecognisedFile` for the first column of a type that its field cannot have."""
    for field, column in file.columns.items():
        type_ = schema.field(column).type
        type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
        expected = _expected(field, file)
        if not any(test(type_) for test in _TESTS[expected]):
            raise UnrecognisedFile(
                f"column {column!r} is {type_}, and {field} needs {expected}: name another with --map {field}=COLUMN",
                columns=schema.names,
            )


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


_TESTS: dict[str, tuple[Any, ...]] = {
    "text": (_is_text, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null),
    "numbers": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null, _is_text),
    "times": (pa.types.is_timestamp, pa.types.is_date, pa.types.is_integer, pa.types.is_floating, _is_text),
    "times of day": (pa.types.is_time, pa.types.is_integer, _is_text),
}


def _expected(field: str, file: RecognisedFile) -> str:
    if field == "time" and "date" in file.columns:
        return "times of day"
    if field in TIME_FIELDS:
        return "times"
    return "numbers" if file.kind is not None and field in _numbers(file) else "text"


def _numbers(file: RecognisedFile) -> set[str]:
    if file.kind is None:
        return set()
    return {field.name for field in SCHEMAS[file.kind] if field.type in NUMBER_TYPES}


class TypedParser:
    """Parses the parts of one file; any thread may call it."""

    def __init__(self, file: RecognisedFile, judge: Judge) -> None:
        self._file, self._judge, self._numbers = file, judge, _numbers(file)

    def __call__(self, part: Part) -> Parsed:
        """The rows of a part, every one either good or bad."""
        verdict = Verdict(part.batch.num_rows)
        columns = {
            field: self._convert(field, part.batch.column(name), verdict) for field, name in self._file.columns.items()
        }
        table = self._judge(columns, verdict)
        bad = verdict.bad
        return Parsed(
            table=table,
            rows=verdict.rows,
            bad_rows=len(bad),
            bad=lambda: list(zip(verdict.reasons_of_bad(), _texts(part, bad), strict=True)),
            remarks=verdict.remarks,
            source_bytes=part.source_bytes,
        )

    def knowing(self, known: Mapping[str, float]) -> Self:
        """As `TextParser.knowing`."""
        return self.judged_by(self._judge.knowing(known))

    def telling(self, apart: np.ndarray) -> Self:
        """As `TextParser.telling`."""
        return self.judged_by(self._judge.telling(apart))

    def judged_by(self, judge: Judge) -> Self:
        """As `TextParser.judged_by`."""
        other = copy(self)
        other._judge = judge
        return other

    @staticmethod
    def end_of(block: Part) -> Part:
        """As `TextParser.end_of`."""
        return Part(block.batch.slice(max(0, block.batch.num_rows - END_ROWS)), block.row, block.source_bytes)

    def last_known(self, part: Part) -> dict[str, float]:
        """As `TextParser.last_known`."""
        columns = {field: part.batch.column(self._file.columns[field]) for field in self._file.carried}
        verdict = Verdict(part.batch.num_rows)
        numbers = {field: last_number(self._convert(field, column, verdict)) for field, column in columns.items()}
        return {field: number for field, number in numbers.items() if number is not None}

    def _convert(self, field: str, column: pa.Array, verdict: Verdict) -> pa.Array:
        if field in NAME_FIELDS:
            return names_of(column)
        column = plain(column)
        if field in PRICES and self._file.decimals and pa.types.is_integer(column.type):
            return fixed_point(column, self._file.decimals)
        if field in self._numbers:
            values, lost = exact_floats(column)
            if lost is not None:
                verdict.reject(lost.to_numpy(zero_copy_only=False), ROUNDED.format(field))
            return values
        if field not in TIME_FIELDS:
            return renamed(column.cast(pa.string()), self._file.values.get(field))
        return self._time(field, column, verdict)

    def _time(self, field: str, column: pa.Array, verdict: Verdict) -> pa.Array:
        times = self._file.times
        if times is None:
            raise ValueError(f"{self._file.name} was not recognised")
        if pa.types.is_timestamp(column.type) and column.type.tz is not None and times.dates and not times.midnight:
            return _wall_clock(column)
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            return column
        if pa.types.is_time(column.type) or {"date", "time"} <= self._file.columns.keys():
            return column.cast(pa.string())
        if times.style is TimeStyle.EPOCH and pa.types.is_floating(column.type):
            values = float_times(column, times.unit or "s")
        elif column.type == (wanted := time_type(times)) or wanted == pa.string():
            return in_one_unit(column.cast(wanted), times, verdict)
        else:
            values = cast_or_null(pc.utf8_trim_whitespace(column.cast(pa.string())), wanted)
        lost = pc.and_(pc.is_valid(column), pc.is_null(values))
        if times.style is TimeStyle.ISO:
            reject_no_clocks(column.cast(pa.string()), lost.to_numpy(zero_copy_only=False), field, verdict)
        reject_unread(column.cast(pa.string()), lost.to_numpy(zero_copy_only=False), field, times, verdict)
        return values


def _wall_clock(column: pa.Array) -> pa.Array:
    """Instants as the clocks of the column's own zone show them, of which the date is taken."""
    instants, none = scaled(column, UNIT_NS[column.type.unit])
    return pa.array(Zone(column.type.tz).to_local(instants), mask=none).view(pa.timestamp("ns"))


def plain(column: pa.Array) -> pa.Array:
    """A column without its dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def names_of(column: pa.Array) -> pa.Array:
    """A column of names, dictionary-encoded."""
    if pa.types.is_dictionary(column.type):
        codes, names = column.indices.cast(pa.int32()), column.dictionary.cast(pa.string())
        return pa.DictionaryArray.from_arrays(codes, names)
    return column.cast(pa.string()).dictionary_encode()


def _texts(part: Part, rows: np.ndarray) -> list[BadRow]:
    """Rows as JSON, numbered as in the file."""
    if len(rows) == 0:
        return []
    found = part.batch.take(pa.array(rows)).to_pylist()
    return [BadRow(part.row + int(row), json.dumps(cells, default=str)) for row, cells in zip(rows, found, strict=True)]
