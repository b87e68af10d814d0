"""Times from text and Python objects, and back to text: exact to the nanosecond.

A bound is an instant (int, UTC nanoseconds) or a calendar date, which means midnight in the zone of each instrument.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from tapehouse.errors import InvalidTime, NotFound
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, SECOND_NS

EXPECTED = (
    "RFC 3339 (2024-01-02T14:30:00Z), a date (2024-01-02, 2024-01 or 2024), "
    "or epoch digits (10: seconds, 13: milliseconds, 16: microseconds, 19: nanoseconds)"
)
FIRST_DATE = date(1677, 9, 22)
"""The first date whose midnight int64 nanoseconds hold."""
LAST_DATE = date(2262, 4, 11)

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_NANOS_OF_DIGITS = {10: SECOND_NS, 13: 1_000_000, 16: 1_000, 19: 1}
_DIGITS = re.compile(r"-?\d+", re.ASCII)
_SHORTEST_AS_OF = 13
"""Digits of an `as_of` from which on it is a time, milliseconds; fewer are a commit number."""
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)
# A `+` that nobody escaped reaches us as a space; nothing else can be meant by a space before the offset.
_DATE_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:([Zz])|([+ -])(\d\d):?(\d\d))?",
    re.ASCII,
)


def parse_bound(text: str, field: str) -> int | date:
    """What `text` means; raises `InvalidTime` that names the field, what was given and what is expected.

    An instant without an offset is UTC. `2024` and `2024-01` are the first day of the year and of the month.
    """
    text = text.strip()
    try:
        if match := _DATE_TIME.fullmatch(text):
            return _checked(_instant(*match.groups()), text, field)
        if match := _DATE.fullmatch(text):
            year, month, day = match.groups()
            return _checked_date(date(int(year), int(month or 1), int(day or 1)), text, field)
    except ValueError as exc:
        raise _invalid(text, field, str(exc)) from exc
    if _DIGITS.fullmatch(text) and (nanos := _NANOS_OF_DIGITS.get(len(text.lstrip("-")))):
        return _checked(int(text) * nanos, text, field)
    raise _invalid(text, field)


def parse_as_of(text: str, field: str) -> int:
    """A commit number, of up to 12 digits, or a time as nanoseconds; a date is its midnight in UTC.

    Raises `NotFound` for a negative number, and `InvalidTime`.
    """
    text = text.strip()
    if _DIGITS.fullmatch(text) and len(text.lstrip("-")) < _SHORTEST_AS_OF:
        if int(text) < 0:
            raise NotFound(f"there is no commit {text}; the first is 1", commit=int(text))
        return int(text)
    bound = parse_bound(text, field)
    return bound if isinstance(bound, int) else parse_as_of(f"{bound.isoformat()}T00:00:00Z", field)


def as_bound(value: Any, field: str) -> int | date:
    """What a Python value means: text, int (nanoseconds), date, datetime (naive: UTC), pandas or numpy timestamp."""
    missing = isinstance(value, datetime | np.datetime64) and value != value  # NaT alone is unlike itself
    if missing or isinstance(value, bool):
        raise _invalid(str(value), field)
    if isinstance(value, int | np.integer):
        return _checked(int(value), str(value), field)
    if isinstance(value, np.datetime64):
        return parse_bound(str(value), field)
    if isinstance(value, datetime):
        return _checked(_of_datetime(value), str(value), field)
    if isinstance(value, date):
        return _checked_date(value, str(value), field)
    if isinstance(value, str):
        return parse_bound(value, field)
    raise _invalid(repr(value), field)


def format_time(ns: int) -> str:
    """RFC 3339 in UTC, with 3, 6 or 9 digits of fraction when there is any: `2024-01-02T14:30:00.250Z`."""
    seconds, nanos = divmod(ns, SECOND_NS)
    whole = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()
    if not nanos:
        return f"{whole}Z"
    digits = f"{nanos:09d}"
    return f"{whole}.{digits[: _digits_needed(nanos)]}Z"


def format_times(ns: np.ndarray, *, nine_digits: bool = False) -> pa.Array:
    """`format_time` of each of int64 nanoseconds, as an Arrow large_string array.

    With `nine_digits` each has all digits of its fraction, so that the texts sort as the times do.
    """
    seconds, fraction = np.divmod(ns, SECOND_NS)
    text = np.empty((len(ns), 30), np.uint8)
    _write_seconds(text, seconds)
    if not fraction.any() and not nine_digits:
        text[:, 19] = ord("Z")
        return _strings(np.ascontiguousarray(text[:, :20]).ravel(), np.full(len(ns), 20))
    if nine_digits:
        digits = np.full(len(ns), 9)
    else:
        digits = np.select([fraction == 0, fraction % 1_000_000 == 0, fraction % 1_000 == 0], [0, 3, 6], 9)
    lengths = np.where(digits == 0, 20, 21 + digits)
    text[:, 19] = ord(".")
    _write_digits(text[:, 20:29], fraction)
    text[np.arange(len(ns)), lengths - 1] = ord("Z")
    return _strings(text[np.arange(30) < lengths[:, None]], lengths)


def _write_seconds(text: np.ndarray, seconds: np.ndarray) -> None:
    days, second = np.divmod(seconds, 86_400)
    distinct, which = np.unique(days, return_inverse=True)
    dates = np.datetime_as_string(distinct.astype("M8[D]")).astype("S10")
    text[:, :10] = dates.view(np.uint8).reshape(-1, 10)[which]
    text[:, 10] = ord("T")
    text[:, [13, 16]] = ord(":")
    for column, value in ((11, second // 3_600), (14, second // 60 % 60), (17, second % 60)):
        _write_digits(text[:, column : column + 2], value)


def _write_digits(text: np.ndarray, values: np.ndarray) -> None:
    for column in reversed(range(text.shape[1])):
        values, digit = np.divmod(values, 10)
        text[:, column] = digit + ord("0")


def _strings(characters: np.ndarray, lengths: np.ndarray) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    buffers = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(characters)]
    return pa.Array.from_buffers(pa.large_string(), len(lengths), buffers)


def _digits_needed(nanos: int) -> int:
    if nanos % 1_000_000 == 0:
        return 3
    return 6 if nanos % 1_000 == 0 else 9


def _instant(
    year: str,
    month: str,
    day: str,
    hour: str,
    minute: str,
    second: str | None,
    fraction: str | None,
    _utc: str | None,
    sign: str | None,
    offset_hours: str | None,
    offset_minutes: str | None,
) -> int:
    moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0))
    nanos = int((fraction or "").ljust(9, "0"))
    offset = _offset_seconds(sign, offset_hours, offset_minutes)
    return (_seconds(moment) - offset) * SECOND_NS + nanos


def _offset_seconds(sign: str | None, hours: str | None, minutes: str | None) -> int:
    if sign is None or hours is None or minutes is None:
        return 0
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError("an offset has at most 23 hours and 59 minutes")
    seconds = 3_600 * int(hours) + 60 * int(minutes)
    return -seconds if sign == "-" else seconds


def _seconds(naive: datetime) -> int:
    days = naive.toordinal() - _EPOCH_ORDINAL
    return 86_400 * days + 3_600 * naive.hour + 60 * naive.minute + naive.second


def _of_datetime(value: datetime) -> int:
    offset = value.utcoffset() or timedelta()
    # A pandas Timestamp is a datetime with a `nanosecond` besides.
    nanos = 1_000 * (value.microsecond - offset.microseconds) + int(getattr(value, "nanosecond", 0))
    return (_seconds(value) - 86_400 * offset.days - offset.seconds) * SECOND_NS + nanos


def _checked(ns: int, given: str, field: str) -> int:
    if not MIN_TIME_NS <= ns <= MAX_TIME_NS:
        raise _out_of_range(given, field)
    return ns


def _checked_date(day: date, given: str, field: str) -> date:
    if not FIRST_DATE <= day <= LAST_DATE:
        raise _out_of_range(given, field)
    return day


def _invalid(given: str, field: str, why: str | None = None) -> InvalidTime:
    shown = given[:64]
    reason = f" ({why})" if why else ""
    return InvalidTime(f"{field}: {shown!r} is not a time{reason}; expected {EXPECTED}", field=field, given=shown)


def _out_of_range(given: str, field: str) -> InvalidTime:
    shown = given[:64]
    return InvalidTime(
        f"{field}: {shown!r} is out of range; int64 nanoseconds hold 1677-09-21 to 2262-04-11 and nothing beyond",
        field=field,
        given=shown,
    )
