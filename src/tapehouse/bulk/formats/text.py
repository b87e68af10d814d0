"""A block of text as rows of the model: fast when all is well, and row by row where it is not."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any, Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace
from pyarrow import csv as arrow_csv

from tapehouse.bulk.base import PRICES, BadRow, RecognisedFile, Times, TimeStyle
from tapehouse.bulk.formats.convert import (
    NULLS,
    NUMBER_TYPES,
    ROUNDED,
    WORDS,
    cast_or_null,
    fixed_point,
    floats_of,
    in_one_unit,
    reject_no_clocks,
    reject_unread,
    renamed,
    rounded,
    time_type,
)
from tapehouse.bulk.formats.split import (
    MAX_ROW_BYTES,
    NEWLINE,
    QUOTE,
    Block,
    Rows,
    count_of,
    fields_of,
    lines_backwards,
    lines_of,
    rows_of,
)
from tapehouse.bulk.validate import NAME_FIELDS, TIME_FIELDS, Judge, Verdict
from tapehouse.model import NAME, SCHEMAS

CUT = "the file is cut off in this row"
LONG = f"the row is longer than {MAX_ROW_BYTES:,} bytes, of which only the beginning is kept here"
NO_CSV = "the row is no CSV: a line ends inside it"
UNCLOSED = "a quote is never closed"
END_ROWS = 16
"""So many rows at the end of a block tell whether its last times are of an hour that clocks show twice."""
_STATED = r"[ T]\d\d.*(Z|[+-]\d\d(:?\d\d)?)$"
_UNSTATED = r"^\d{4}-\d\d-\d\d([ T][0-9:.]+)?$"


def _none() -> list[tuple[str, BadRow]]:
    return []


_POOL = pa.system_memory_pool()
"""The C library keeps what a block took for the next one; Arrow's own pool gives it back, to be cleared again."""

_Bad = tuple[Rows, Callable[[], list[str]]]
"""Bad rows, and what makes their reasons."""


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a block: the good rows, how many are bad, remarks.

    `bad` makes the bad rows with their reasons, in the order of the file; it is asked only when they are written down.
    """

    table: pa.Table
    rows: int
    bad_rows: int = 0
    bad: Callable[[], list[tuple[str, BadRow]]] = _none
    remarks: dict[str, int] = {}
    source_bytes: int = 0


class TextParser:
    """Parses the blocks of one file; any thread may call it."""

    def __init__(self, file: RecognisedFile, judge: Judge) -> None:
        if file.dialect is None or file.times is None or file.kind is None:
            raise ValueError(f"{file.name} was not recognised")
        self._file, self._dialect, self._times, self._judge = file, file.dialect, file.times, judge
        names = {field.name for field in SCHEMAS[file.kind]}
        self._fields = {field: place for field, place in file.places.items() if field in names or field in TIME_FIELDS}
        self._numbers = {field.name for field in SCHEMAS[file.kind] if field.type in NUMBER_TYPES}
        self._fixed = PRICES.intersection(self._fields) if file.decimals else frozenset[str]()
        self._time_type = time_type(file.times)
        self._wrong_width = f"the number of fields is not {self._dialect.width}"
        if self._dialect.trailing:
            self._wrong_width += f", nor {self._dialect.fields} of which the last is empty"

    def __call__(self, block: Block) -> Parsed:
        """The rows of a block, every one either good or bad."""
        if block.cut or block.long or not block.data.strip():
            return nothing(block)
        try:
            table = self._read(block.data, self._types())
        except pa.ArrowInvalid:
            return self._diagnose(block)
        if QUOTE in block.data and _joins_lines(block, table.num_rows):
            return self._diagnose(block)
        good, verdict = self._judged(block.data, table)
        if verdict.good is None:
            return Parsed(table=good, rows=verdict.rows, remarks=verdict.remarks, source_bytes=block.source_bytes)
        rows = rows_of(block)
        if len(rows) != verdict.rows:  # Arrow sees other rows than we do, so that their lines are not known
            return self._diagnose(block)
        return parsed(block, good, verdict, [(rows.take(verdict.bad), verdict.reasons_of_bad)])

    def _judged(self, data: bytes, table: pa.Table, large: Iterable[str] = ()) -> tuple[pa.Table, Verdict]:
        """The good rows; columns with `large` numbers are read again, as text, to see whether these were rounded."""
        verdict = Verdict(table.num_rows)
        columns = {field: self._settled(field, column, verdict) for field, column in self._columns(table).items()}
        for field in large:
            texts = _array(self._read_with(data, {field: pa.string()}, NULLS).column(0))
            if (lost := rounded(texts, columns[field], self._dialect.decimal)) is not None:
                verdict.reject(lost, ROUNDED.format(field))
        good = self._judge(columns, verdict)
        unread = (verdict.large & columns.keys()) - self._fixed
        return self._judged(data, table, sorted(unread)) if unread and not large else (good, verdict)

    def knowing(self, known: Mapping[str, float]) -> Self:
        """The same for a block before which these numbers came."""
        return self.judged_by(self._judge.knowing(known))

    def telling(self, apart: np.ndarray) -> Self:
        """The same for a block of whose times it is known which instant each is: see `Judge.telling`."""
        return self.judged_by(self._judge.telling(apart))

    def judged_by(self, judge: Judge) -> Self:
        """The same with another judge."""
        other = copy(self)
        other._judge = judge
        return other

    @staticmethod
    def end_of(block: Block) -> Block:
        """A few rows of a block, its last ones."""
        end = len(block.data)
        for _ in range(END_ROWS + 1):
            end = max(0, block.data.rfind(NEWLINE, 0, end))
        return replace(block, data=block.data[end:])

    def last_known(self, block: Block) -> dict[str, float]:
        """The last number in a block of each field that rows leave out when it did not change."""
        if block.cut or block.long:
            return {}
        return last_numbers(map(self._cells, lines_backwards(block.data)), self._file.carried, self.number_of)

    def _cells(self, line: bytes) -> dict[str, str]:
        """The texts of a row by field; none when it has a wrong number of them."""
        text, delimiter = line.decode("utf-8", "replace"), self._dialect.delimiter
        cells = next(csv.reader([text], delimiter=delimiter), []) if '"' in text else text.split(delimiter)
        whole = len(cells) == self._dialect.fields
        return {field: cells[place] for field, place in self._fields.items()} if whole else {}

    def number_of(self, field: str, text: str) -> float | None:
        """The number that a text is for that field, if it is one."""
        if (text := text.strip()) in NULLS:
            return None
        return last_number(self.read_texts(field, pa.array([text]), Verdict(1)))

    def _types(self) -> dict[str, pa.DataType]:
        return {field: self.type_of(field) for field in self._fields}

    def type_of(self, field: str) -> pa.DataType:
        """As what Arrow parses a field."""
        if field in NAME_FIELDS:
            return NAME
        if field == "timestamp" or (field in TIME_FIELDS and self._one_time):
            return self._time_type
        if field in self._fixed:
            return pa.int64()
        return pa.float64() if field in self._numbers else pa.string()

    @property
    def _one_time(self) -> bool:
        return sum(field in self._fields for field in TIME_FIELDS) == 1

    def _read(self, data: bytes, types: dict[str, pa.DataType]) -> pa.Table:
        """The columns that are taken, under the names of their fields."""
        table = self._read_with(data, types, NULLS)
        for field in WORDS:
            missing = table.column(field).null_count if field in types else 0
            if missing and (field == "symbol" or missing < table.num_rows):  # an id that no row has stays none
                words = self._read_with(data, {field: types[field]}, [""])
                table = table.set_column(table.column_names.index(field), field, words.column(0))
        return table

    def _read_with(self, data: bytes, types: dict[str, pa.DataType], nulls: list[str]) -> pa.Table:
        fields = {place: field for field, place in self._fields.items()}
        names = [fields.get(place, f"#{place}") for place in range(self._dialect.fields)]
        empty = {names[-1]: pa.null()} if self._dialect.trailing else {}  # an error when it is not empty
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            read_options=arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(data) + 1),
            parse_options=arrow_csv.ParseOptions(
                delimiter=self._dialect.delimiter, newlines_in_values=QUOTE in data, ignore_empty_lines=True
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types | empty,
                include_columns=[*types, *empty],
                null_values=nulls,
                strings_can_be_null=True,
                quoted_strings_can_be_null=not self._dialect.exact,
                decimal_point=self._dialect.decimal,
            ),
            memory_pool=_POOL,
        )
        return table.select(list(types)) if empty else table

    @staticmethod
    def _columns(table: pa.Table) -> dict[str, pa.Array]:
        return {name: _array(table.column(name)) for name in table.column_names}

    def _diagnose(self, block: Block) -> Parsed:
        """Read everything as text, and judge value by value; for blocks in which something does not fit."""
        rows, widths = self._rows(block)
        whole = (widths == self._dialect.fields) & ~_unclosed(block, rows)
        if self._dialect.trailing:
            whole &= self._end_empty(block, rows)
        wrong, rows = rows.take(np.flatnonzero(~whole)), rows.take(np.flatnonzero(whole))
        bad: list[_Bad] = [(wrong, lambda: [self._reason(row.row) for row in texts_of(block, wrong)])]
        verdict = Verdict(len(rows))
        if len(rows) == 0:
            return parsed(block, pa.table({}), verdict, bad)
        texts = self._texts(block, rows, verdict)
        typed = {field: self._convert(field, column, verdict) for field, column in texts.items()}
        good = self._judge(typed, verdict)
        return parsed(block, good, verdict, [*bad, (rows.take(verdict.bad), verdict.reasons_of_bad)])

    def _end_empty(self, block: Block, rows: Rows) -> np.ndarray:
        """Which rows have nothing in their last field."""
        delimiter = self._dialect.delimiter.encode()
        last = (
            block.data[start:end].rpartition(delimiter)[2] for start, end in zip(rows.starts, rows.ends, strict=True)
        )
        return np.array([cell.strip().strip(QUOTE).decode("utf-8", "replace") in NULLS for cell in last], bool)

    def _reason(self, row: str) -> str:
        return UNCLOSED if row.count('"') % 2 else self._wrong_width

    def _rows(self, block: Block) -> tuple[Rows, np.ndarray]:
        """The rows and how many fields each has; what quotes join into a row, but looks like several, is several."""
        rows = rows_of(block)
        widths = fields_of(block, rows, self._dialect.delimiter)
        if QUOTE not in block.data:
            return rows, widths
        parts = {row: lines for row in range(len(rows)) if (lines := self._several(block, rows, widths, row))}
        if not parts:
            return rows, widths
        pieces = [rows.take(np.delete(np.arange(len(rows)), list(parts))), *parts.values()]
        joined = Rows(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Rows.__struct_fields__))
        joined = joined.take(np.argsort(joined.starts))
        return joined, fields_of(block, joined, self._dialect.delimiter)

    def _several(self, block: Block, rows: Rows, widths: np.ndarray, row: int) -> Rows | None:
        """The lines of a row over several, when it has a wrong number of fields or every line has enough of them."""
        start, end = int(rows.starts[row]), int(rows.ends[row])
        newlines = count_of(block.data, NEWLINE, start, end)
        if newlines == 0:
            return None
        delimiters = block.data.count(self._dialect.delimiter.encode(), start, end)
        if widths[row] == self._dialect.fields and delimiters < (newlines + 1) * (self._dialect.fields - 1):
            return None
        return lines_of(block, start, end, int(rows.lines[row]))

    def _texts(self, block: Block, rows: Rows, verdict: Verdict) -> dict[str, pa.Array]:
        """The columns of those rows as text, null where a value is missing."""
        lines = [block.data[start:end] for start, end in zip(rows.starts, rows.ends, strict=True)]
        try:
            table = self._read(b"\n".join(lines), dict.fromkeys(self._fields, pa.binary()))
        except pa.ArrowInvalid:
            return self._by_hand(lines, verdict)
        return self._columns(table) if table.num_rows == len(rows) else self._by_hand(lines, verdict)

    def _by_hand(self, lines: list[bytes], verdict: Verdict) -> dict[str, pa.Array]:
        """Row by row, when quotes or stray line ends make Arrow see other rows than there are."""
        found: dict[str, list[bytes | None]] = {field: [] for field in self._fields}
        broken = np.zeros(len(lines), bool)
        for number, line in enumerate(lines):
            text = line.decode("utf-8", "surrogateescape")
            try:
                cells = next(csv.reader([text], delimiter=self._dialect.delimiter), [])
            except csv.Error:
                cells, broken[number] = [], True
            for field, place in self._fields.items():
                cell = cells[place] if place < len(cells) else ""
                missing = not cell if field in WORDS else cell in NULLS
                found[field].append(None if missing else cell.encode("utf-8", "surrogateescape"))
        verdict.reject(broken, NO_CSV)
        return {field: pa.array(values, pa.binary()) for field, values in found.items()}

    def _convert(self, field: str, raw: pa.Array, verdict: Verdict) -> pa.Array:
        """A column as the judge takes it; the verdict gets the rows that are not what they should be."""
        texts = cast_or_null(raw, pa.utf8())
        reject_lost(raw, texts, verdict, f"{field} is not UTF-8")
        return self.read_texts(field, pc.utf8_trim_whitespace(texts), verdict)

    def read_texts(self, field: str, texts: pa.Array, verdict: Verdict) -> pa.Array:
        """A column of texts without spaces around them, null where a value is missing, as the judge takes it."""
        if field in NAME_FIELDS:
            return texts.dictionary_encode()
        if field in self._fixed:
            values = cast_or_null(texts, pa.int64())
            reject_lost(texts, values, verdict, f"{field} is not a whole number of 1e-{self._file.decimals}")
        elif field in self._numbers:
            values = floats_of(texts, self._dialect.decimal, self._dialect.thousands)
            _reject_commas(texts, values, field, verdict)
            reject_lost(texts, values, verdict, f"{field} is not a number")
            if (lost := rounded(texts, values, self._dialect.decimal, self._dialect.thousands)) is not None:
                verdict.reject(lost, ROUNDED.format(field))
        else:
            values = cast_or_null(texts, self.type_of(field))
            reject_no_times(texts, values, field, self._times, verdict)
        return self._settled(field, values, verdict)

    def _settled(self, field: str, column: pa.Array, verdict: Verdict) -> pa.Array:
        """A column that Arrow parsed, with what Arrow does not know of the file."""
        if field in self._fixed:
            return fixed_point(column, self._file.decimals)
        if field in TIME_FIELDS:
            return in_one_unit(column, self._times, verdict)
        return renamed(column, self._file.values.get(field))


def last_numbers(
    rows: Iterable[Mapping[str, str | None]], fields: Sequence[str], number_of: Callable[[str, str], float | None]
) -> dict[str, float]:
    """The first number of each field in rows that come last one first; `number_of` reads a field's text."""
    found: dict[str, float] = {}
    for row in rows:
        for field in fields:
            text = row.get(field)
            if field not in found and text is not None and (number := number_of(field, text)) is not None:
                found[field] = number
        if len(found) == len(fields):
            break
    return found


def last_number(column: pa.Array) -> float | None:
    """The last number of a column; None when it has none."""
    values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    numbers = np.flatnonzero(np.isfinite(values))
    return float(values[numbers[-1]]) if len(numbers) else None


def nothing(block: Block) -> Parsed:
    """A block of which no row is good: blank, cut off, or a row beyond all measure."""
    if not block.data.strip():  # where rows are is not asked of megabytes of newlines
        return Parsed(table=pa.table({}), rows=0, source_bytes=block.source_bytes)
    rows = rows_of(block)
    return parsed(block, pa.table({}), Verdict(0), [(rows, lambda: [LONG if block.long else CUT] * len(rows))])


def parsed(block: Block, good: pa.Table, verdict: Verdict, bad: list[_Bad]) -> Parsed:
    """The good rows of a block, with the bad ones."""
    count = sum(len(rows) for rows, _ in bad)

    def texts() -> list[tuple[str, BadRow]]:
        found = [each for rows, reasons in bad for each in zip(reasons(), texts_of(block, rows), strict=True)]
        return sorted(found, key=lambda each: each[1].line)

    return Parsed(
        table=good,
        rows=good.num_rows + count,
        bad_rows=count,
        bad=texts,
        remarks=verdict.remarks,
        source_bytes=block.source_bytes,
    )


def reject_lost(before: pa.Array, after: pa.Array, verdict: Verdict, reason: str) -> None:
    """Reject the rows that had a value and, converted, have none."""
    if after.null_count > before.null_count:
        verdict.reject(pc.and_(pc.is_valid(before), pc.is_null(after)).to_numpy(zero_copy_only=False), reason)


def _reject_commas(texts: pa.Array, values: pa.Array, field: str, verdict: Verdict) -> None:
    """Reject what could be a number with groups of three digits, or with three decimals."""
    if values.null_count > texts.null_count:
        either = pc.match_substring_regex(texts, r"^[+-]?\d{1,3}([.,]\d{3})+([.,]\d*)?$")
        lost = pc.and_(pc.is_null(values), either).fill_null(False)
        reason = f"{field} may have groups of thousands or three decimals, and the file does not show which"
        verdict.reject(lost.to_numpy(zero_copy_only=False), f"{reason} (--decimal says it)")


def reject_no_times(texts: pa.Array, values: pa.Array, field: str, times: Times, verdict: Verdict) -> None:
    """Reject the rows whose time could not be read; one that has an offset unlike the others, or none, says so."""
    if values.null_count == texts.null_count:
        return
    if times.style is TimeStyle.ISO:
        lost = pc.and_(pc.is_valid(texts), pc.is_null(values))
        reject_no_clocks(texts, lost.to_numpy(zero_copy_only=False), field, verdict)
    if times.style is TimeStyle.ISO and not times.dates:
        other = pc.and_(lost, pc.match_substring_regex(texts, _UNSTATED if times.stated else _STATED))
        has = (
            "no offset from UTC, which the others have"
            if times.stated
            else "an offset from UTC, which the others have not"
        )
        verdict.reject(other.fill_null(False).to_numpy(zero_copy_only=False), f"{field} states {has}")
    unread = pc.and_(pc.is_valid(texts), pc.is_null(values)).to_numpy(zero_copy_only=False)
    reject_unread(texts, unread, field, times, verdict)


def _array(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _joins_lines(block: Block, rows: int) -> bool:
    """Whether a quote that is never closed may have made one row of several, or have swallowed the end."""
    if count_of(block.data, QUOTE) % 2:
        return True
    return rows != _lines(block) and len(rows_of(block)) != _filled_lines(block)


def _unclosed(block: Block, rows: Rows) -> np.ndarray:
    """Which rows have an odd number of quotes: whatever comes after the last of them is not what it seems."""
    if QUOTE not in block.data:
        return np.zeros(len(rows), bool)
    quotes = np.flatnonzero(np.frombuffer(block.data, np.uint8) == QUOTE[0])
    return np.asarray((np.searchsorted(quotes, rows.ends) - np.searchsorted(quotes, rows.starts)) % 2 == 1)


def _lines(block: Block) -> int:
    return count_of(block.data, NEWLINE) + (not block.data.endswith(NEWLINE))


def _filled_lines(block: Block) -> int:
    return len(lines_of(block, 0, len(block.data), block.line))


def texts_of(block: Block, rows: Rows) -> list[BadRow]:
    """The text of rows, with `\\xNN` for bytes that are not UTF-8."""
    return [
        BadRow(int(line), block.data[start:end].decode("utf-8", "backslashreplace"))
        for start, end, line in zip(rows.starts, rows.ends, rows.lines, strict=True)
    ]
