"""How a text file is laid out: its encoding, delimiter, header and rows, from a sample of its bytes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence

import msgspec

from tapehouse.bulk.base import Dialect, LoadOptions
from tapehouse.bulk.formats.files import decoder_of
from tapehouse.bulk.recognise.names import known_names
from tapehouse.errors import UnreadableFile, UnrecognisedFile

DELIMITERS = ",;\t|"
TRAILING = "rows end with a delimiter more than the header, and the empty field after it is not taken"
HEADER_LINES = 20
"""A header is looked for in this many lines; what comes before it are titles and remarks."""
LINE_CHARACTERS = csv.field_size_limit()
"""Longer lines are no rows by which a file is recognised; reading them is another matter."""

_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?$")
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d([.,]\d+)?)?$")
_GROUPED = {
    ",": re.compile(r"[+-]?\$?\d{1,3}(,\d{3})+(\.\d*)?$"),
    ".": re.compile(r"[+-]?\$?\d{1,3}(\.\d{3})+(,\d*)?$"),
}
_DECIMALS = {sign: re.compile(rf"[+-]?(\d*\{sign}(\d{{1,2}}|\d{{4,}})|(\d{{4,}}|0*)\{sign}\d+)$") for sign in ".,"}
"""Numbers in which the sign cannot separate groups of thousands."""
_TIME = re.compile(r"(\d{8}|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4})([ T].*)?$|\d{10}(\d{3}){0,3}(\.\d+)?$")


class Sample(msgspec.Struct, frozen=True):
    """The beginning of a text, `whole` when it is all of it, and some of its end when that is at hand."""

    head: bytes
    tail: bytes = b""
    whole: bool = True


class Layout(msgspec.Struct, frozen=True):
    """The dialect, the names of the columns (their numbers when there is no header), the sample's rows, remarks.

    `symbol` is the one that the header names for all columns, as yfinance does. `misfit` says why no row is as wide
    as the header, if so.
    """

    dialect: Dialect
    names: list[str]
    rows: list[list[str]]
    notes: list[str]
    symbol: str | None = None
    misfit: str | None = None


def layout_of(sample: Sample, options: LoadOptions) -> Layout:
    """How the text is laid out; `UnreadableFile` when it is empty or no text, `UnrecognisedFile` without columns."""
    try:
        return _layout(sample, options)
    except csv.Error as exc:
        raise UnreadableFile(f"these are no rows of text: {exc}") from exc


def _layout(sample: Sample, options: LoadOptions) -> Layout:
    encoding, notes = encoding_of(sample.head, options.encoding)
    text = decoded(sample.head, encoding)
    returns = "\n" not in text and "\r" in text
    lines = _lines(text, returns, sample.whole)
    if any(len(line) > LINE_CHARACTERS for line in lines):
        lines = ["\n" if len(line) > LINE_CHARACTERS else line for line in lines]
        if sum(bool(line.strip()) for line in lines) < 2:
            message = f"these are no rows of text: a line has more than {LINE_CHARACTERS:,} characters"
            raise UnreadableFile(message, more=not sample.whole)
        notes.append(f"lines of more than {LINE_CHARACTERS:,} characters are not looked at here")
    if not any(line.strip() for line in lines):
        raise UnreadableFile(
            "the file is empty" if not text else "the file has only blank lines", more=not sample.whole
        )
    delimiter = options.delimiter or _delimiter(lines)
    parsed = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    skip, header = _header(parsed, lines, delimiter, options)
    rows = [row for row in parsed[skip:] if row]
    names = [name.strip() for name in header] if header else [str(n + 1) for n in range(_width(rows))]
    if skip > bool(header):
        notes.append(f"{skip - bool(header)} lines before the header are not taken")
    more, symbol = _more_header(rows)
    skip, rows = skip + more, rows[more:]
    tail = _lines(decoded(sample.tail, encoding), returns, True)[1:] if encoding != "utf-16" else []
    rows += [row for row in csv.reader(tail, delimiter=delimiter, skipinitialspace=True) if row]
    trailing = bool(header) and _trailing(rows, len(names))
    decimal = options.decimal or _decimal(rows, delimiter)
    dialect = Dialect(
        delimiter=delimiter,
        decimal=decimal,
        thousands=_thousands(rows, decimal, sure=options.decimal is not None or _shows(rows, delimiter, decimal)),
        encoding=encoding,
        header=bool(header),
        width=len(names),
        trailing=trailing,
        skip=_lines_before(lines, parsed, delimiter, skip),
        returns=returns,
    )
    fitting = [row[: dialect.width] for row in rows if len(row) == dialect.fields]
    misfit = None if fitting or not rows else _misfit(rows, dialect, lines, whole=sample.whole)
    return Layout(dialect, names, fitting, notes, symbol, misfit)


def _trailing(rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether most rows end with a delimiter that the header has not, and none has anything after it."""
    more = [row for row in rows if len(row) == width + 1]
    return 2 * len(more) > len(rows) and not any(row[-1] for row in more)


def _misfit(rows: Sequence[Sequence[str]], dialect: Dialect, lines: Sequence[str], *, whole: bool) -> str:
    """Why no row fits: how many fields most have, and where the first of these is."""
    ((width, count),) = Counter(map(len, rows)).most_common(1)
    reader = csv.reader(lines, delimiter=dialect.delimiter, skipinitialspace=True)
    first = next((reader.line_num for row in reader if reader.line_num > dialect.skip and len(row) == width), None)
    found = f"{count:,}{'' if whole else ' of the first and last'} row{'s have' if count > 1 else ' has'}"
    where = "" if first is None else f" (line {first:,})"
    return f"{found} {width} field{'s' * (width != 1)}, the header has {dialect.width}{where}"


def _more_header(rows: Sequence[Sequence[str]]) -> tuple[int, str | None]:
    """How many of the first rows are of the header too, and the symbol in them.

    pandas writes columns of two levels in three lines: `Price,Close,...`, `Ticker,AAPL,AAPL,...`, `Date,,...`.
    """
    if len(rows) < 2 or rows[0][0] != "Ticker" or rows[1][0] not in ("Date", "Datetime") or any(rows[1][1:]):
        return 0, None
    symbols = set(rows[0][1:])
    return 2, symbols.pop() if len(symbols) == 1 else None


def encoding_of(data: bytes, said: str | None) -> tuple[str, list[str]]:
    """The encoding of a text by its mark or its bytes, with remarks; `UnreadableFile` when it is no text."""
    if said:
        decoder_of(said)
        normal = said.lower().replace("_", "-")
        return ("utf-8" if normal in ("utf8", "utf-8", "utf-8-sig") else normal), []
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding, []
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if data[first:200:2].count(0) > len(data[:200]) // 4:
            return encoding, [f"no byte-order mark, but every other byte is 0: read as {encoding}"]
    if 0 in data[:4096]:
        raise UnreadableFile("the file has NUL bytes: it is no text, or of an encoding that --encoding has to say")
    try:
        decoder_of("utf-8").__class__("strict").decode(data)
    except UnicodeDecodeError:
        return "cp1252", ["not UTF-8: read as cp1252 (--encoding says otherwise)"]
    return "utf-8", []


def decoded(data: bytes, encoding: str) -> str:
    """A sample as text, without a byte-order mark."""
    return decoder_of(encoding).decode(data).removeprefix("\ufeff")


def _lines(text: str, returns: bool, whole: bool) -> list[str]:
    """The lines with their ends, so that a field in quotes may have some; an unfinished last one only if it is all."""
    lines = text.replace("\r", "\n").split("\n") if returns else text.split("\n")
    if not whole and len(lines) > 1:
        lines.pop()
    return [line.removesuffix("\r").replace("\r", " ") + "\n" for line in lines]


def _delimiter(lines: Sequence[str]) -> str:
    """The one by which most names are known, then the one that cuts most rows into the same number of fields."""

    def merit(delimiter: str) -> tuple[int, float]:
        rows = [row for row in csv.reader(lines[:200], delimiter=delimiter) if row]
        known = max((known_names(row) for row in rows[:HEADER_LINES]), default=0)
        widths = Counter(len(row) for row in rows)
        width, count = widths.most_common(1)[0]
        return (known if known > 1 else 0), (count / len(rows) if width > 1 else 0.0)

    return max(DELIMITERS, key=merit)


def _header(
    parsed: list[list[str]], lines: Sequence[str], delimiter: str, options: LoadOptions
) -> tuple[int, list[str] | None]:
    """How many rows come before the first of data, and the names of the columns, if there are any."""
    first = parsed[:HEADER_LINES]
    known = [known_names(row) if len(row) > 1 else 0 for row in first]
    best = max(range(len(first)), key=lambda number: known[number])
    mapped = sum(any(column == cell.strip() for cell in first[best]) for column in options.mapping.values())
    if known[best] >= 2 or mapped:
        return best + 1, parsed[best]
    start = next(number for number, row in enumerate(parsed) if row)
    if all(value.isdecimal() for value in options.mapping.values()) and _is_data(parsed[start]):
        return start, None
    if len(parsed[start]) == 1 and not options.delimiter:
        raise UnrecognisedFile(
            f"no delimiter of {' '.join(map(repr, DELIMITERS))} cuts the first line into columns: "
            f"{lines[start].strip()[:80]!r}; say it with --delimiter"
        )
    return start + 1, parsed[start]


def _is_data(row: Sequence[str]) -> bool:
    """Whether most cells are numbers or times, as in a file without a header."""
    cells = [cell.strip() for cell in row]
    values = sum(bool(_NUMBER.match(cell) or _CLOCK.match(cell) or _TIME.match(cell)) for cell in cells)
    return values >= 3 and values >= len(cells) - 2


def _width(rows: list[list[str]]) -> int:
    return Counter(len(row) for row in rows).most_common(1)[0][0]


def _lines_before(lines: Sequence[str], parsed: list[list[str]], delimiter: str, rows: int) -> int:
    """How many lines the first rows take up."""
    reader = csv.reader(lines, delimiter=delimiter)
    for _ in parsed[:rows]:
        next(reader)
    return reader.line_num


def _decimal(rows: Sequence[Sequence[str]], delimiter: str) -> str:
    """The sign that some number can only have before decimals; else a comma when more numbers have it than a point.

    Between commas such cells are in quotes, and `1,234` may be a thousand: there some have to show that it is not.
    """
    cells = [cell.strip() for row in rows[:200] for cell in row if _NUMBER.match(cell.strip())]
    if any("," in cell and _GROUPED["."].match(cell.strip()) for row in rows[:200] for cell in row):
        return ","
    points, signs = (any(_DECIMALS[sign].match(cell) for cell in cells) for sign in ".,")
    if points != signs:
        return "." if points else ","
    commas = [cell for cell in cells if "," in cell]
    if delimiter == "," and all(len(cell.rpartition(",")[2]) == 3 for cell in commas):
        return "."
    return "," if len(commas) > sum("." in cell for cell in cells) else "."


def _shows(rows: Sequence[Sequence[str]], delimiter: str, decimal: str) -> bool:
    """Whether some number has that decimal mark where it cannot be another; between commas a point is one."""
    signs = _NUMBER if (delimiter, decimal) == (",", ".") else _DECIMALS[decimal]
    return any(decimal in cell and signs.match(cell.strip()) for row in rows[:200] for cell in row)


def _thousands(rows: Sequence[Sequence[str]], decimal: str, *, sure: bool) -> str | None:
    """What separates groups of three digits, when all numbers of the sample that have it do so.

    `1,234` alone may be a number with three decimals, unless the decimal mark is `sure`: a number here may show it by
    a group and decimals, or by two groups.
    """
    sign = "," if decimal == "." else "."
    cells = [cell.strip() for row in rows[:200] for cell in row if sign in cell and _GROUPED[sign].match(cell.strip())]
    digits = re.compile(rf"[+-]?\$?[\d{re.escape(sign + decimal)}]+")
    others = [cell for row in rows[:200] for cell in row if sign in cell and digits.fullmatch(cell.strip())]
    others = [cell for cell in others if not _TIME.match(cell.strip())]  # 02.01.2024 has no thousands
    sure = sure or any(decimal in cell or cell.count(sign) > 1 for cell in cells)
    return sign if sure and len(cells) == len(others) else None


def names_without_header(rows: Sequence[Sequence[str]], width: int) -> list[str] | None:
    """Names for the columns of a file without a header, if its rows look like bars.

    That is: a symbol or none, a time in one column or two, open, high, low, close, volume, and whatever follows.
    With twelve columns these are Binance's klines.
    """
    rows = [[cell.strip().replace(",", ".") for cell in row] for row in rows[:200] if len(row) == width]
    if not rows:
        return None
    place, names = 0, [str(number + 1) for number in range(width)]
    if not all(_NUMBER.match(row[0]) or _TIME.match(row[0]) for row in rows):
        names[0], place = "symbol", 1
    two = place + 1 < width and all(_CLOCK.match(row[place + 1]) for row in rows)
    names[place : place + 1 + two] = ["date", "time"] if two else ["timestamp"]
    place += 1 + two
    if width < place + 5 or not all(_TIME.match(row[place - 1 - two]) for row in rows):
        return None
    if not all(_is_bar(row[place : place + 5]) for row in rows):
        return None
    names[place : place + 5] = ["open", "high", "low", "close", "volume"]
    if width == 12 and place == 1:
        names[8] = "trades"
    return names


def _is_bar(cells: Sequence[str]) -> bool:
    if not all(_NUMBER.match(cell) for cell in cells):
        return False
    first, high, low, last, volume = map(float, cells)
    return high >= max(first, last) and low <= min(first, last) and volume >= 0
