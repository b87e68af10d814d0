"""Text files of a layout that was seen before: some rows of each tell whether it is that, in a fraction of the time.

What a file is taken for is the same either way, as a test shows: whatever is not plain is left to a full look.
"""

from __future__ import annotations

import re
from math import isfinite

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.bulk.base import LoadOptions, RecognisedFile, TimeStyle
from tapehouse.bulk.formats.convert import band
from tapehouse.bulk.recognise import Seen, with_layout
from tapehouse.bulk.recognise.dialect import DELIMITERS, Sample, names_without_header
from tapehouse.bulk.recognise.known import known_of
from tapehouse.bulk.recognise.stamps import is_clear, reading_with
from tapehouse.bulk.recognise.steps import interval_of
from tapehouse.bulk.validate import NOT_NEGATIVE
from tapehouse.errors import UnrecognisedFile
from tapehouse.model import SCHEMAS

LOOK_BYTES = 1 << 10
"""So much of a file's beginning, middle and end is compared; a look at a new layout takes 20 times as much."""
_LEAST_ROWS = 8
_TELLING_ROWS = 4
_KEPT = 4
"""Layouts with the same first line, that differ in decimals or the unit of epochs."""
_PLAIN_SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9:/_-]{0,31}", re.ASCII)
_NUMBERS = frozenset(
    field.name for schema in SCHEMAS.values() for field in schema if field.type in (pa.float64(), pa.int64())
)


class Layouts:
    """The layouts of one plan, by the first line of their files, or by how many of which delimiter it has."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._seen: dict[object, list[Seen]] = {}

    def keep(self, sample: Sample, seen: Seen) -> None:
        """Remember a layout, unless only the whole of each file would tell whether it has it."""
        dialect = seen.dialect
        plain = dialect.encoding == "utf-8" and not dialect.returns and dialect.skip == dialect.header
        said = seen.options.time_format is not None
        several = seen.known is not None and any(
            not isinstance(each, str) for each in seen.known.description.columns.values()
        )
        if plain and not several and (said or is_clear(seen.times)):
            line = sample.head.partition(b"\n")[0]
            alike = self._seen.setdefault(line if dialect.header else _counts(line), [])
            alike.insert(0, seen)
            del alike[_KEPT:]

    def recall(self, file: RecognisedFile, sample: Sample) -> RecognisedFile | None:
        """The file, when it is like one that was seen; None when that is not sure."""
        line = sample.head.partition(b"\n")[0]
        alike = self._seen.get(line) or self._seen.get(_counts(line)) or []
        return next((found for seen in alike if (found := self._recall(file, sample, seen)) is not None), None)

    def _recall(self, file: RecognisedFile, sample: Sample, seen: Seen) -> RecognisedFile | None:
        if (parts := _rows(sample, seen)) is None:
            return None
        rows = [row for part in parts for row in part]
        known = known_of(seen.names, seen.dialect.header, rows, file, self._options)
        if (known and known.description) != (seen.known and seen.known.description):
            return None
        cells = {field: [row[place] for row in rows] for field, place in seen.columns.places.items()}
        times = [cells[field] for field in ("timestamp", "date", "time") if field in cells]
        reading = reading_with(times, seen.times, seen.why)
        if len(reading.good) < len(rows) or not _same_unit(seen, times[0]) or not _same_numbers(seen, rows, cells):
            return None
        try:
            found = with_layout(file, msgspec.structs.replace(seen, known=known), reading, cells.get("symbol"))
        except UnrecognisedFile:
            return None  # a full look decides, or says why not
        if self._options.interval is None and not _of_one_interval(found, parts, reading.values, cells.get("symbol")):
            return None
        return found if _has_a_good_row(found, cells, reading.values.tolist(), seen.dialect.decimal) else None


def _of_one_interval(
    file: RecognisedFile, parts: list[list[list[str]]], times: np.ndarray, symbols: list[str] | None
) -> bool:
    """Whether every part of the sample by itself is of the file's interval, as far as it has rows that tell."""
    start = 0
    for part in parts:
        own = slice(start, start := start + len(part))
        if file.interval is None or len(part) < _TELLING_ROWS:
            continue
        try:
            if interval_of(symbols and symbols[own], times[own], None).interval is not file.interval:
                return False
        except UnrecognisedFile:
            if symbols is None:
                return False
    return True


def _has_a_good_row(file: RecognisedFile, cells: dict[str, list[str]], times: list[int], decimal: str) -> bool:
    """Whether some row can surely be loaded, all of whose numbers and times are some."""
    step = 1 if file.interval is None or file.interval.by_calendar else file.interval.alignment[0]
    for row, time in enumerate(times):
        numbers = {field: _number(cells[field][row], decimal) for field in cells if field in _NUMBERS}
        high, low = numbers.get("high", 0), numbers.get("low", 0)
        in_order = all(low <= numbers[field] <= high for field in ("open", "close") if field in numbers)
        sized = all(numbers[field] >= 0 for field in NOT_NEGATIVE.intersection(numbers))
        whole = all(numbers[field].is_integer() for field in ("trades", "ordinal") if field in numbers)
        symbol = cells["symbol"][row] if "symbol" in cells else "KO"
        if in_order and sized and whole and time % step == 0 and _PLAIN_SYMBOL.fullmatch(symbol):
            return True
    return False


def _number(cell: str, decimal: str) -> float:
    return float(cell if decimal == "." else cell.replace(decimal, "."))


def _same_numbers(seen: Seen, rows: list[list[str]], cells: dict[str, list[str]]) -> bool:
    """Whether numbers are written as those that were seen, and columns without names are what those were taken for."""
    if seen.known is not None and seen.known.decimals(cells) != seen.decimals:
        return False
    headless = seen.known is None and not seen.dialect.header
    if headless and names_without_header(rows, seen.dialect.width) != seen.names:
        return False
    return all(_are_numbers(cells[field], seen.dialect.decimal) for field in cells if field in _NUMBERS)


def _counts(line: bytes) -> tuple[int, ...]:
    return tuple(line.count(delimiter.encode()) for delimiter in DELIMITERS)


def _rows(sample: Sample, seen: Seen) -> list[list[list[str]]] | None:
    """Some of the first rows, of those in the middle and of the last; None when they are not plain, or not as wide as
    they should be."""
    head, *others = _pieces(sample)
    # In a header quotes do no harm: it is the same as that of the layout.
    first = (head.partition(b"\n")[2] if seen.dialect.header else head).decode("latin-1")
    texts = [first, *(piece.decode("latin-1") for piece in others)]
    if not head.isascii() or any(not text.isascii() or '"' in text for text in texts):
        return None
    lines = ((line.rstrip("\r") for line in text.split("\n") if line.strip()) for text in texts)
    parts = [[line.split(seen.dialect.delimiter) for line in part] for part in lines]
    fits = all(len(row) == seen.dialect.fields for part in parts for row in part)
    if fits and seen.dialect.trailing:
        fits = not any(row.pop() for part in parts for row in part)
    return parts if fits and sum(map(len, parts)) >= _LEAST_ROWS else None


def _pieces(sample: Sample) -> list[bytes]:
    """The beginning, the middle and the end of the text, or all of it, in whole lines."""
    head = sample.head
    if sample.whole and len(head) <= 3 * LOOK_BYTES:
        return [head]
    middle = max(LOOK_BYTES, (len(head) - LOOK_BYTES) // 2)
    pieces = [
        head[:LOOK_BYTES],
        head[middle : middle + LOOK_BYTES],
        (head if sample.whole else sample.tail)[-LOOK_BYTES:],
    ]
    return [
        piece[0 if place == 0 else piece.find(b"\n") + 1 : len(piece) if place == 2 else piece.rfind(b"\n") + 1]
        for place, piece in enumerate(pieces)
    ]


def _are_numbers(cells: list[str], decimal: str) -> bool:
    if decimal != ".":
        cells = [cell.replace(".", "x").replace(decimal, ".") for cell in cells]
    try:
        return all(map(isfinite, map(float, cells)))
    except ValueError:
        return False


def _same_unit(seen: Seen, times: list[str]) -> bool:
    if seen.times.style is not TimeStyle.EPOCH or not seen.times.guessed:
        return seen.times.style is not TimeStyle.EPOCH or seen.options.time_format is not None
    low, high = band(seen.times.unit or "s")
    return all(text.strip().isdecimal() and low <= int(text) < high for text in times)
