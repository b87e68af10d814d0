"""Columns as files have them, to int64 nanoseconds and float64: exactly, and null where a value does not fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tapehouse.bulk.base import Times, TimeStyle
from tapehouse.bulk.formats.zones import Zone
from tapehouse.model import DAY_NS, MAX_TIME_NS, MIN_TIME_NS, SECOND_NS

if TYPE_CHECKING:
    import polars as pl

UNIT_NS = {"s": SECOND_NS, "ms": 1_000_000, "us": 1_000, "ns": 1}
NUMBER_TYPES = (pa.float64(), pa.int64(), pa.int32())
"""The types of fields that are numbers."""
NULLS = ["", "null", "NULL", "Null", "NA", "N/A", "n/a", "#N/A", "None", "none", "-", "--", "\\N"]
"""What stands for a value that is missing; `NaN` is a number that is none, and says so."""
WORDS = ("symbol", "id")
"""Fields in which only an empty text is a missing value: NA is a ticker."""

_FRACTIONAL = pa.decimal128(22, 9)
_TOO_LARGE = 2.0**63
EXACT_WHOLE = 2.0**53
"""Below it, float64 holds every whole number."""
ROUNDED = "{} is not a number that float64 holds"
_NO_PRICE = 2**63 - 1  # Databento writes it where there is no price
_MIDNIGHT = r"^\d{4}-\d\d-\d\d[ T]00:00(:00(\.0+)?)?\s?(Z|[+-]\d\d(:?\d\d)?)?$"
_NO_CLOCK = (
    r"(^|[ T])(2[4-9]|[3-9]\d):\d\d|(^|[ T])\d\d?:[6-9]\d|(^|[ T])\d\d?:\d\d:[6-9]\d"
    r"|^(\d{8}[ T]?)?((2[4-9]|[3-9]\d)\d\d(\d\d(\d{3})?)?|\d\d[6-9]\d(\d\d(\d{3})?)?|\d{4}[6-9]\d(\d{3})?)$"
)
_ISO_MIN_US, _ISO_MAX_US = MIN_TIME_NS // 1000 + 1, MAX_TIME_NS // 1000 - 1


def time_type(times: Times) -> pa.DataType:
    """The type as which a text file's time column is parsed; text where Arrow does not know how it is written."""
    if times.style is TimeStyle.ISO and not (times.stated and times.dates and times.midnight is None):
        return pa.timestamp("ns", "UTC" if times.stated else None)
    if times.style is TimeStyle.EPOCH:
        return _FRACTIONAL if times.fractional else pa.int64()
    return pa.string()


def cast_or_null(texts: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Texts as another type, null where that fails."""
    if texts.type == wanted:
        return texts
    try:
        return texts.cast(wanted)
    except pa.ArrowInvalid:
        encoded = texts.dictionary_encode()  # a million times 0000-00-00 is looked at once
        return _halved(encoded.dictionary, wanted).take(encoded.indices)


def _halved(texts: pa.Array, wanted: pa.DataType) -> pa.Array:
    """Halved until what fails stands alone."""
    try:
        return texts.cast(wanted)
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return pa.nulls(1, wanted)
    half = len(texts) // 2
    return pa.concat_arrays([_halved(texts[:half], wanted), _halved(texts[half:], wanted)])


def floats_of(texts: pa.Array, decimal: str = ".", thousands: str | None = None) -> pa.Array:
    """Texts as float64, null where they are no numbers; a dollar sign before one says nothing.

    `thousands` may separate all groups of three digits before the decimals.
    """
    if pc.any(pc.match_substring(texts, "$")).as_py():
        texts = pc.replace_substring_regex(texts, r"^([+-]?)\$", r"\1")
    if thousands is not None:
        grouped = rf"^[+-]?\d{{1,3}}(\{thousands}\d{{3}})+(\{decimal}\d*)?$"
        plain = pc.replace_substring(texts, thousands, "")
        texts = pc.if_else(pc.match_substring_regex(texts, grouped), plain, texts)
    if decimal != ".":
        texts = pc.replace_substring(texts, ".", "x")
        texts = pc.replace_substring(texts, decimal, ".")
    numeric = pc.match_substring_regex(texts, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:nan|inf|infinity)$")
    return cast_or_null(pc.if_else(numeric, texts, pa.scalar(None, pa.string())), pa.float64())


def rounded(texts: pa.Array, floats: pa.Array, decimal: str = ".", thousands: str | None = None) -> np.ndarray | None:
    """Where a text is a whole number that its float64 is not; None: nowhere. Decimals and exponents may be rounded."""
    values = floats.to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(np.isfinite(values) & (np.abs(values) >= EXACT_WHOLE))
    if len(rows) == 0:
        return None
    whole = re.compile(rf"[+-]?\$?([\d{re.escape(thousands or '')}]+)({re.escape(decimal)}0*)?")
    lost = np.zeros(len(values), bool)
    for row, text in zip(rows, texts.take(pa.array(rows)).to_pylist(), strict=True):
        if found := whole.fullmatch(text.strip()):
            digits = found[1].replace(thousands or ",", "").lstrip("0")  # Python refuses to read thousands of zeros
            # Programs that write a float with the fewest digits that tell it fill it up with zeros.
            fewest = repr(float(values[row])).partition("e")[0].strip("-").replace(".", "").strip("0")
            lost[row] = digits.rstrip("0") != fewest and int(digits) != abs(int(values[row]))
    return lost if lost.any() else None


def nanoseconds(columns: list[pa.Array], times: Times) -> tuple[np.ndarray, np.ndarray]:
    """A time column (or date and time) as int64 nanoseconds, and which of them are none or out of range.

    They are UTC when the times are epochs or state their offset, else what the clocks of their zone showed; and so are
    dates that are written as instants.
    """
    values, none = _nanoseconds(columns, times)
    if times.midnight is not None:
        return Zone(times.midnight).to_local(values), none
    return values, none


def _nanoseconds(columns: list[pa.Array], times: Times) -> tuple[np.ndarray, np.ndarray]:
    column = columns[0]
    if times.style is TimeStyle.FORMAT:
        return _formatted(_joined(columns, times), times)
    if pa.types.is_string(column.type):
        fits = pc.match_substring_regex(column, _MIDNIGHT)
        texts = pc.if_else(fits, pc.utf8_slice_codeunits(column, 0, 10), pa.scalar(None, pa.string()))
        column = cast_or_null(texts, pa.date32())
    if pa.types.is_decimal(column.type):
        return _fractions(column, times)
    return scaled(column, _factor(column.type, times))


def reject_no_clocks(texts: pa.Array, unread: np.ndarray, field: str, verdict: Verdicts) -> None:
    """Reject rows of which the time could not be read since there is no such time of day: hour 24, second 60."""
    rows = np.flatnonzero(unread)
    shown = pc.match_substring_regex(texts.take(pa.array(rows)), _NO_CLOCK).fill_null(False)
    bad = np.zeros(len(texts), bool)
    bad[rows] = shown.to_numpy(zero_copy_only=False)
    verdict.reject(bad, f"{field} has a time of day that does not exist")


def reject_unread(texts: pa.Array, unread: np.ndarray, field: str, times: Times, verdict: Verdicts) -> None:
    """Reject rows of which the time could not be read: it is beyond what nanoseconds hold, or no time at all."""
    if not unread.any():
        return
    rows = np.flatnonzero(unread)
    lost = texts.take(pa.array(rows))
    if times.style is TimeStyle.EPOCH:
        beyond, written = pc.match_substring_regex(lost, r"^[+-]?\d+(\.\d*)?$"), f"an epoch in {times.unit}"
    elif times.style is TimeStyle.FORMAT:
        beyond, written = pa.array(_is_read(lost, times)), str(times.format)
    else:
        coarse = pa.timestamp("us", "UTC" if times.stated else None)
        beyond, written = pc.is_valid(cast_or_null(lost, coarse)), "ISO 8601"
    bad = np.zeros(len(texts), bool)
    bad[rows[beyond.fill_null(False).to_numpy(zero_copy_only=False)]] = True
    timed = times.style is TimeStyle.ISO and times.stated and times.dates
    why = "has a time of day, and a date was expected" if timed else "is not a time that int64 nanoseconds hold"
    verdict.reject(bad, f"{field} {why}")
    verdict.reject(unread, f"{field} is not a date or time written as {written}")


def swapped(form: str) -> str:
    """A format with day and month the other way round; one that begins with the year has no other way."""
    if form.startswith("%Y"):
        return form
    return re.sub("%[dm]", lambda found: "%m" if found.group() == "%d" else "%d", form)


def in_other_order(columns: list[pa.Array], unread: np.ndarray, times: Times) -> str | None:
    """The first text that can only be read with day and month the other way round; `unread` are those that were not."""
    form = swapped(times.format or "")
    if times.style is not TimeStyle.FORMAT or form == times.format or not unread.any():
        return None
    texts = _joined([column.filter(pa.array(unread)) for column in columns], times)
    read = _is_read(texts, msgspec.structs.replace(times, format=form))
    return str(texts[int(read.argmax())]) if read.any() else None


def _is_read(texts: pa.Array, times: Times) -> np.ndarray:
    import polars as pl

    return np.asarray(_parse(pl.Series(pl.from_arrow(texts)), times, "us").is_not_null().to_numpy())


def joined(columns: list[pa.Array], times: Times) -> pa.Array:
    """The texts of a time: of date and time together where a format reads them as one."""
    return _joined(columns, times) if times.style is TimeStyle.FORMAT else columns[-1].cast(pa.string())


class Verdicts(Protocol):
    """What takes note of rows: see `validate.Verdict`."""

    def reject(self, bad: np.ndarray, reason: str) -> None:
        """Rows where `bad` is true are bad."""

    def remark(self, count: int, what: str) -> None:
        """Rows that are taken, but of which the user should know."""


def in_one_unit(column: pa.Array, times: Times, verdict: Verdicts | None) -> pa.Array:
    """Epochs of which some rows may have another unit than the file: each by its magnitude.

    Where the unit was guessed, all of the sample lay between 1973 and 2286 in that unit, and a number lies between
    these in one unit at most: by its 9 or 10 digits in seconds, 12 or 13 in milliseconds, and so on. One that lies
    there in none is rejected.
    """
    if not times.guessed or not pa.types.is_integer(column.type) or len(column) == 0:
        return column
    low, high = band(times.unit or "s")
    ends = pc.min_max(column).as_py()
    if ends["min"] is None or (ends["min"] >= low and ends["max"] < high):
        return column
    values = column.fill_null(low).cast(pa.int64()).to_numpy()
    nanos = np.zeros(len(values), np.int64)
    unclear = np.ones(len(values), bool)
    for unit, factor in UNIT_NS.items():
        low, high = band(unit)
        rows = (values >= low) & (values < high)
        nanos[rows] = values[rows] * factor
        unclear &= ~rows
        if unit != times.unit and verdict is not None:
            verdict.remark(
                int(rows.sum()), f"rows whose epochs are in {unit}, by their magnitude, and not in {times.unit}"
            )
    if verdict is not None:
        verdict.reject(
            unclear, f"timestamp is an epoch neither in {times.unit} (from 1973 on) nor clearly in another unit"
        )
    unclear |= column.is_null().to_numpy(zero_copy_only=False)
    return pa.array(nanos, mask=unclear).view(pa.timestamp("ns", "UTC"))


def band(unit: str) -> tuple[int, int]:
    """From 1973 until before 2286 in epochs of that unit: 9 or 10 digits in seconds. No two units overlap."""
    per_second = SECOND_NS // UNIT_NS[unit]
    return 10**8 * per_second, min(10**10 * per_second, MAX_TIME_NS)


def fixed_point(column: pa.Array, decimals: int) -> pa.Array:
    """Whole numbers as multiples of 10**-decimals, each the float64 next to it; the largest int64 is no price."""
    values = column.fill_null(_NO_PRICE).cast(pa.int64()).to_numpy()
    floats = values / 10.0**decimals  # exact operands below 2**53, so that the quotient is the nearest float64
    for row in np.flatnonzero(np.abs(values) > 2**53):
        value = int(values[row])
        floats[row] = np.nan if value == _NO_PRICE else float(Decimal(value).scaleb(-decimals))
    return pa.array(floats, mask=column.is_null().to_numpy(zero_copy_only=False))


def renamed(texts: pa.Array, values: Mapping[str, str] | None) -> pa.Array:
    """Texts with those that stand for something replaced by that, whatever their case."""
    if not values:
        return texts
    encoded = texts.dictionary_encode()
    names = [
        None if text is None else values.get(text.lower(), text) or None for text in encoded.dictionary.to_pylist()
    ]
    return pa.array(names, pa.string()).take(encoded.indices)


def float_times(column: pa.Array, unit: str) -> pa.Array:
    """Epochs as floats, as nanoseconds; what float64 cannot tell apart is rounded to the nearest."""
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    factor = UNIT_NS[unit]
    none = ~(np.abs(values) < MAX_TIME_NS // factor)
    values = np.where(none, 0, values)
    whole = np.floor(values)
    nanos = whole.astype(np.int64) * factor + np.rint((values - whole) * factor).astype(np.int64)
    return pa.array(nanos, mask=none).view(pa.timestamp("ns"))


def _factor(type_: pa.DataType, times: Times) -> int:
    if pa.types.is_timestamp(type_):
        return UNIT_NS[type_.unit]
    if pa.types.is_date32(type_):
        return DAY_NS
    return UNIT_NS["ms" if pa.types.is_date64(type_) else times.unit or "ns"]


def scaled(column: pa.Array, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole units as nanoseconds; a view when the units are nanoseconds and none is missing."""
    width = pa.int32() if pa.types.is_date32(column.type) else pa.int64()
    missing = pc.is_null(column).to_numpy(zero_copy_only=False) if column.null_count else np.zeros(len(column), bool)
    values = (column.cast(width) if pa.types.is_integer(column.type) else column.view(width)).fill_null(0).to_numpy()
    limit = MAX_TIME_NS // factor
    if factor > 1:
        values = values.astype(np.int64)
        missing |= (values >= limit) | (values <= -limit)
        values = np.where(missing, 0, values) * factor
    return values, missing


def _fractions(column: pa.Array, times: Times) -> tuple[np.ndarray, np.ndarray]:
    """Epochs with decimals as nanoseconds; what is finer is cut off."""
    factor = UNIT_NS[times.unit or "s"]
    limit = Decimal(MAX_TIME_NS // factor)
    out = pc.or_(pc.greater_equal(column, limit), pc.less_equal(column, -limit)).fill_null(True)
    column = pc.if_else(out, pa.scalar(Decimal(0), column.type), column)
    scaled = pc.multiply(column, pa.scalar(Decimal(factor), pa.decimal128(10, 0)))
    return scaled.cast(pa.decimal128(33, 0), safe=False).cast(pa.int64()).to_numpy(), out.to_numpy(zero_copy_only=False)


def _joined(columns: list[pa.Array], times: Times) -> pa.Array:
    """Date and time as one text; times without separators get back the zeros that spreadsheets drop."""
    texts = [pc.utf8_trim_whitespace(column.cast(pa.string())) for column in columns]
    if len(texts) == 1:
        return texts[0]
    form = (times.format or "").split(" ")[-1]
    if width := {"%H%M%S": 6, "%H%M": 4}.get(form):
        texts[1] = pc.utf8_lpad(texts[1], width, "0")
    return pc.binary_join_element_wise(*texts, " ")


def _formatted(texts: pa.Array, times: Times) -> tuple[np.ndarray, np.ndarray]:
    """By Polars, whose parser says null of what does not fit; in microseconds first, since nanoseconds wrap there."""
    import polars as pl

    series = pl.Series(pl.from_arrow(texts))
    coarse = _parse(series, times, "us")
    out = (coarse.is_null() | ~coarse.to_physical().is_between(_ISO_MIN_US, _ISO_MAX_US) | _leaps(series)).to_numpy()
    if "%.f" in (times.format or "") or "%9f" in (times.format or ""):
        values = _parse(series, times, "ns").to_physical().fill_null(0).to_numpy()
    else:
        values = np.where(out, 0, coarse.to_physical().fill_null(0).to_numpy()) * 1000
    return np.where(out, 0, values), out


def _leaps(series: pl.Series) -> pl.Series:
    """Where second 60 is, which Polars takes for the first of the next minute, as another row may have it."""
    leaps = series.str.contains("60", literal=True).fill_null(False)
    if leaps.any():
        leaps = leaps & series.set(~leaps, None).str.contains(_NO_CLOCK).fill_null(False)
    return leaps


def _parse(series: pl.Series, times: Times, unit: Literal["us", "ns"]) -> pl.Series:
    return series.str.to_datetime(times.format, time_unit=unit, strict=False)


def exact_floats(column: pa.Array) -> tuple[pa.Array, pa.Array | None]:
    """A number column of a Parquet file as float64, and where a value has no float64 of its own (None: nowhere).

    Decimals go through Polars, which rounds them correctly; pyarrow was wrong in the last bit.
    """
    type_ = column.type
    if pa.types.is_float64(type_):
        return column, None
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        texts = pc.utf8_trim_whitespace(column.cast(pa.string()))
        floats = floats_of(texts)
        lost = pc.and_(pc.is_null(floats), pc.invert(pc.is_in(texts, pa.array([*NULLS, None]))))
        inexact = rounded(texts, floats)
        return floats, lost if inexact is None else pc.or_(lost, pa.array(inexact))
    if pa.types.is_decimal(type_):
        import polars as pl

        return pl.Series(pl.from_arrow(column)).cast(pl.Float64).to_arrow(), None
    if pa.types.is_integer(type_):
        floats = column.cast(pa.float64(), safe=False)
        lost = pc.or_(
            pc.not_equal(floats.cast(type_, safe=False), column), pc.greater_equal(pc.abs(floats), _TOO_LARGE)
        )
        return floats, lost.fill_null(False) if pc.any(lost).as_py() else None
    return column.cast(pa.float64()), None
