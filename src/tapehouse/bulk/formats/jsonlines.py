"""A block of JSON lines, one object a line, as rows of the model: fast when all is well, and row by row where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import json as arrow_json

from tapehouse.bulk.base import RecognisedFile
from tapehouse.bulk.formats.convert import NULLS, NUMBER_TYPES, in_one_unit, renamed
from tapehouse.bulk.formats.split import Block, lines_backwards, lines_of
from tapehouse.bulk.formats.text import Parsed, TextParser, last_numbers, nothing, parsed
from tapehouse.bulk.validate import NAME_FIELDS, TIME_FIELDS, Judge, Verdict
from tapehouse.model import SCHEMAS

NO_OBJECT = "the line is no JSON object"


class JsonParser:
    """Parses the blocks of one file; any thread may call it."""

    def __init__(self, file: RecognisedFile, judge: Judge) -> None:
        if file.times is None or file.kind is None:
            raise ValueError(f"{file.name} was not recognised")
        self._file, self._times, self._judge = file, file.times, judge
        self._text = TextParser(file, judge)
        names = {field.name for field in SCHEMAS[file.kind]}
        self._columns = {name: field for field, name in file.columns.items() if field in names or field in TIME_FIELDS}
        types = {field: self._text.type_of(field) for field in self._columns.values()}
        # A text of JSON is in quotes: only where a number or a time should be does NA mean that there is none.
        self._missable = {field for field, type_ in types.items() if field in TIME_FIELDS or type_ in NUMBER_TYPES}
        types |= dict.fromkeys(NAME_FIELDS.intersection(types), pa.string())
        self._schema = pa.schema([(name, types[field]) for name, field in self._columns.items()])

    def __call__(self, block: Block) -> Parsed:
        """The rows of a block, every one either good or bad."""
        if block.cut or block.long or not block.data.strip():
            return nothing(block)
        rows = lines_of(block, 0, len(block.data), block.line)
        try:
            table = self._read(block)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            return self._diagnose(block)
        if table.num_rows != len(rows):
            return self._diagnose(block)
        verdict = Verdict(table.num_rows)
        columns = {field: self._settled(field, table.column(name), verdict) for name, field in self._columns.items()}
        good = self._judge(columns, verdict)
        if verdict.large:
            return self._diagnose(block)  # what was rounded shows in the text
        return parsed(block, good, verdict, [(rows.take(verdict.bad), verdict.reasons_of_bad)])

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
    def end_of(block: Block) -> Block:
        """As `TextParser.end_of`."""
        return TextParser.end_of(block)

    def last_known(self, block: Block) -> dict[str, float]:
        """As `TextParser.last_known`."""
        if block.cut or block.long:
            return {}
        records = map(object_of, lines_backwards(block.data))
        texts = (
            {field: text_of((record or {}).get(name)) for name, field in self._columns.items()} for record in records
        )
        return last_numbers(texts, self._file.carried, self._text.number_of)

    def _read(self, block: Block) -> pa.Table:
        return arrow_json.read_json(
            pa.BufferReader(block.data),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=self._schema, newlines_in_values=False, unexpected_field_behavior="ignore"
            ),
        )

    def _settled(self, field: str, column: pa.Array, verdict: Verdict) -> pa.Array:
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
        if field in NAME_FIELDS:
            return column.dictionary_encode() if not pa.types.is_dictionary(column.type) else column
        if field in TIME_FIELDS:
            return in_one_unit(column, self._times, verdict)
        return renamed(column, self._file.values.get(field))

    def _diagnose(self, block: Block) -> Parsed:
        """Line by line, every value as text, as for a text file in which something does not fit."""
        rows = lines_of(block, 0, len(block.data), block.line)
        found: dict[str, list[str | None]] = {field: [] for field in self._columns.values()}
        broken = np.zeros(len(rows), bool)
        for number, (start, end) in enumerate(zip(rows.starts, rows.ends, strict=True)):
            record = object_of(block.data[start:end])
            broken[number] = record is None
            for name, field in self._columns.items():
                found[field].append(text_of((record or {}).get(name), NULLS if field in self._missable else []))
        verdict = Verdict(len(rows))
        verdict.reject(broken, NO_OBJECT)
        typed = {
            field: self._text.read_texts(field, pa.array(values, pa.string()), verdict)
            for field, values in found.items()
        }
        good = self._judge(typed, verdict)
        return parsed(block, good, verdict, [(rows.take(verdict.bad), verdict.reasons_of_bad)])


def object_of(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None when it is none."""
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def text_of(value: Any, nulls: Sequence[str] = NULLS) -> str | None:
    """A value, unless it is missing, as a text file would have it; an object or array as JSON."""
    if value is None or isinstance(value, str):
        return None if value in nulls else value
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else msgspec.json.encode(value).decode()
