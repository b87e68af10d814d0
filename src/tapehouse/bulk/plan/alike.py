"""Text files of a layout that was seen before: some rows of each tell whether it is that, in a fraction of the time.

What a file is taken for is the same either way, as a test shows: whatever is not plain is left to a full look.
"""

from __future__ import annotations

import re
from math import isfinite

import msgspec
import pyarrow as pa

from tapehouse.bulk.base import LoadOptions, RecognisedFile, TimeStyle
from tapehouse.bulk.formats.convert import band
from tapehouse.bulk.recognise import Seen, with_layout
from tapehouse.bulk.recognise.dialect import DELIMITERS, Sample, names_without_header
from tapehouse.bulk.recognise.known import known_of
from tapehouse.bulk.recognise.stamps import is_clear, reading_with
from tapehouse.bulk.validate import NOT_NEGATIVE, alignment
from tapehouse.errors import UnrecognisedFile
from tapehouse.model import SCHEMAS

LOOK_BYTES = 1 << 10
"""So much of a file's beginning and of its end is compared; a look at a new layout takes 20 times as much."""
_LEAST_ROWS = 8
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
        if (rows := _rows(sample, seen)) is None:
            return None
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
        return found if _has_a_good_row(found, cells, reading.values.tolist(), seen.dialect.decimal) else None


def _has_a_good_row(file: RecognisedFile, cells: dict[str, list[str]], times: list[int], decimal: str) -> bool:
    """Whether some row can surely be loaded, all of whose numbers and times are some."""
    step = 1 if file.interval is None or file.interval.by_calendar else alignment(file.interval)[0]
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


def _rows(sample: Sample, seen: Seen) -> list[list[str]] | None:
    """The first rows and the last; None when they are not plain, or not as wide as they should be."""
    head, tail = sample.head[:LOOK_BYTES], sample.tail[-LOOK_BYTES:]
    _, _, body = head.partition(b"\n") if seen.dialect.header else (b"", b"", head)
    if not (head + tail).isascii() or b'"' in body or b'"' in tail:
        return None  # in a header quotes do no harm: it is the same as that of the layout
    lines = body.decode().split("\n")
    if not (sample.whole and len(head) == len(sample.head)):
        lines.pop()
    lines += tail.decode().split("\n")[1:]
    rows = [line.rstrip("\r").split(seen.dialect.delimiter) for line in lines if line.strip()]
    fits = len(rows) >= _LEAST_ROWS and all(len(row) == seen.dialect.fields for row in rows)
    if seen.dialect.trailing:
        fits = fits and not any(row.pop() for row in rows)
    return rows if fits else None


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
