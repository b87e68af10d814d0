"""How the times of a file are written, from a sample of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from tapehouse.bulk.base import Times, TimeStyle
from tapehouse.bulk.formats.convert import (
    UNIT_NS,
    band,
    cast_or_null,
    in_one_unit,
    in_other_order,
    nanoseconds,
    swapped,
    time_type,
)
from tapehouse.errors import UnrecognisedFile
from tapehouse.model import DAY_NS

_ISO = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?(Z|[+-]\d\d(:?\d\d)?)?$")
_OFFSET = re.compile(r"(Z|[+-]\d\d(:?\d\d)?)$")
_STATED = re.compile(r".*[ T]\d\d.*(Z|[+-]\d\d(:?\d\d)?)$")
_PLAIN_NUMBER = re.compile(r"-?\d{1,19}$")
_FRACTION = re.compile(r"-?\d{1,12}\.\d{1,9}$")

_DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y", "%d-%m-%Y", "%d.%m.%Y"),
    *("%m.%d.%Y", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%b %d %Y", "%d-%B-%Y", "%d %B %Y", "%B %d, %Y"),
    *("%m/%d/%y", "%d/%m/%y", "%m-%d-%y", "%d-%m-%y", "%d.%m.%y", "%d-%b-%y", "%d%b%Y"),
)
_CLOCKS = ("%H:%M:%S", "%H:%M", "%H:%M:%S%.f", "%I:%M:%S %p", "%I:%M %p", "%H%M%S", "%H%M", "%H%M%S%3f")
_ZONES = ("", " UTC", " GMT", "Z", "%:z", " %:z", "%z", " GMT%z", " UTC%z")
_TWO_DIGITS = {"%m", "%d", "%H", "%I", "%M", "%S"}
_SHAPES = {"%Y": r"\d{4}", "%y": r"\d\d", "%b": "[A-Za-z]{3}", "%B": "[A-Za-z]{3,}", "%p": "[AaPp][Mm]"}
_SHAPES |= {"%.f": r"(\.\d+)?", "%3f": r"\d{3}", "%z": r"[+-]\d{4}", "%:z": r"[+-]\d\d:\d\d"}
_EARLIEST, _LATEST = (int(np.datetime64(day, "ns").astype(np.int64)) for day in ("1700-01-01", "2200-01-01"))
_CLEAR_SHARE = 0.95
_MAGNITUDE = "by their magnitude"
_MAGNITUDES = (("s", 10**11), ("ms", 10**14), ("us", 10**17), ("ns", 2**63))


class Reading(NamedTuple):
    """How times are read, the sample's times so read (nanoseconds; bad ones left out), which those are, and why.

    `whole_days`: every one is a midnight, as the file writes it.
    """

    times: Times
    values: np.ndarray
    good: np.ndarray
    why: str
    whole_days: bool


def reading_of(
    texts: Sequence[str], clocks: Sequence[str] | None, said: str | None = None, *, day_first: bool = False
) -> Reading:
    """How the sample's times (or its dates and `clocks`) are written; `UnrecognisedFile` when nothing or too much fits.

    `said` is the user's `--time-format`; with `day_first`, no date begins with its month.
    """
    columns = [[text.strip() for text in each] for each in (texts, clocks) if each is not None]
    if said:
        return _said(columns, said)
    if len(columns) == 1 and (reading := _epoch(columns[0]) or _iso(columns[0])):
        return reading
    return _format(columns, day_first=day_first)


def read_as(columns: Sequence[Sequence[str]], times: Times) -> tuple[np.ndarray, np.ndarray]:
    """The nanoseconds of the sample's good rows, and which rows these are."""
    arrays = [cast_or_null(pa.array(each, pa.string()), time_type(times)) for each in columns]
    arrays = [in_one_unit(each, times, None) for each in arrays]
    values, missing = nanoseconds(arrays, times)
    missing = missing | (values < _EARLIEST) | (values > _LATEST)
    return values[~missing], np.flatnonzero(~missing)


def is_clear(times: Times) -> bool:
    """Whether other files with times like these may be read alike without asking which is day and which month."""
    return times.style is not TimeStyle.FORMAT or (times.format or "").startswith("%Y") or "%b" in (times.format or "")


def _reading(columns: Sequence[Sequence[str]], times: Times, why: str) -> Reading:
    values, good = read_as(columns, times)
    written = values
    if times.stated and times.style is TimeStyle.ISO:
        clocks = [_OFFSET.sub("", columns[0][row]) for row in good]
        written, _ = read_as([clocks], msgspec.structs.replace(times, stated=False))
    return Reading(times, values, good, why, bool((written % DAY_NS == 0).all()))


def _said(columns: list[list[str]], said: str) -> Reading:
    if said in UNIT_NS:
        times = Times(style=TimeStyle.EPOCH, unit=said, fractional=any("." in text for text in columns[0]))
    else:
        dates = not re.search(r"%[HIMSTRXcs]", said)
        times = Times(style=TimeStyle.FORMAT, format=said, stated="z" in said or said.endswith("Z"), dates=dates)
    reading = _reading(columns, times, "--time-format")
    if not len(reading.good):
        raise UnrecognisedFile(f"--time-format {said!r} fits none of the times, such as {columns[0][0]!r}")
    return reading


def _epoch(texts: list[str]) -> Reading | None:
    """Digits are epochs by their magnitude, unless they are dates: 20240102, 202401021430, 20240102143000."""
    numbers = [text for text in texts if _PLAIN_NUMBER.match(text) or _FRACTION.match(text)]
    if len(numbers) < max(1, len(texts) // 2):
        return None
    middle = abs(float(sorted(numbers, key=float)[len(numbers) // 2]))
    if all(len(text) in (8, 12, 14) and text[:2] in ("19", "20") for text in numbers):
        return None
    unit = next(unit for unit, limit in _MAGNITUDES if middle < limit)
    fractional = any("." in text for text in numbers)
    times = Times(style=TimeStyle.EPOCH, unit=unit, fractional=fractional, guessed=not fractional and _clear(numbers))
    reading = _reading([texts], times, "")
    if len(reading.good) < max(1, len(texts) // 2):
        return None
    return reading._replace(why=_by_magnitude(texts, reading))


def _by_magnitude(texts: Sequence[str], reading: Reading) -> str:
    shown = np.datetime_as_string(reading.values[:1].view("M8[ns]"), unit="s")[0]
    return f"{_MAGNITUDE}: {texts[reading.good[0]]} is {shown}Z"


def _clear(numbers: list[str]) -> bool:
    """Whether all but a few have a magnitude that an epoch of one unit has between 1973 and 2286."""
    bands = [band(unit) for unit in UNIT_NS]
    clear = sum(any(low <= int(text) < high for low, high in bands) for text in numbers)
    return clear >= len(numbers) * _CLEAR_SHARE


def reading_with(columns: Sequence[Sequence[str]], times: Times, why: str) -> Reading:
    """The reading of other texts as such times, for the same reason, which names one of them."""
    texts = [[text.strip() for text in each] for each in columns]
    reading = _reading(texts, times, why)
    if why.startswith(_MAGNITUDE) and len(reading.good):
        return reading._replace(why=_by_magnitude(texts[0], reading))
    return reading


def _iso(texts: list[str]) -> Reading | None:
    fitting = [text for text in texts if _ISO.match(text)]
    if len(fitting) <= len(texts) // 2:
        return None
    stated = sum(bool(_STATED.match(text)) for text in fitting)
    if 0 < stated < len(fitting) and stated < len(fitting) * 0.9 and stated > len(fitting) * 0.1:
        raise UnrecognisedFile("some times state an offset from UTC and others do not, so that they cannot be compared")
    dates = all(len(text) == 10 for text in fitting)
    times = Times(style=TimeStyle.ISO, stated=stated > len(fitting) // 2, dates=dates)
    reading = _reading([texts], times, "ISO 8601")
    return reading if len(reading.good) else None


def _format(columns: list[list[str]], *, day_first: bool) -> Reading:
    """The format that fits most of the sample; when day and month can be taken for each other, it is refused."""
    formats = [form for form in _formats(columns) if not (day_first and form.startswith("%m"))]
    fitting = [_fit(columns, form) for form in formats]
    fitting = [reading for reading in fitting if len(reading.good) > len(columns[0]) // 2]
    if not fitting:
        shown = " ".join(each[0] for each in columns)
        raise UnrecognisedFile(
            f"the times are not understood, for example {shown!r}: say how they are written with --time-format, "
            "for example --time-format '%d.%m.%Y %H:%M', or which column they are in with --map timestamp=COLUMN"
        )
    best = max(fitting, key=lambda reading: len(reading.good))
    _check_order(columns, best)
    for other in fitting:
        if len(other.good) == len(best.good) and not np.array_equal(other.values, best.values):
            raise UnrecognisedFile(
                f"day and month can be taken for each other in {columns[0][best.good[0]]!r}: "
                f"say --time-format {best.times.format!r} or --time-format {other.times.format!r}",
                formats=[best.times.format, other.times.format],
                more=True,
            )
    return best


def _check_order(columns: list[list[str]], best: Reading) -> None:
    """`UnrecognisedFile` when a row can only be read with day and month the other way round than the others."""
    unread = np.ones(len(columns[0]), bool)
    unread[best.good] = False
    if (text := in_other_order([pa.array(each) for each in columns], unread, best.times)) is not None:
        raise UnrecognisedFile(
            f"day and month contradict each other: most rows are {best.times.format!r}, such as "
            f"{columns[0][best.good[0]]!r}, and {text!r} is {swapped(best.times.format or '')!r}; mend the file, or "
            f"say --time-format {best.times.format!r} when the others are wrong, which then go to quarantine",
            formats=[best.times.format, swapped(best.times.format or "")],
        )


def _formats(columns: list[list[str]]) -> list[str]:
    """The formats that look like the first text; the whole sample decides among these."""
    if len(columns) == 2:
        clocks = [form + zone for form in _clocks(columns[1]) for zone in _ZONES[:4]]
        return [f"{date} {clock}" for date in _DATES if _looks(columns[0][0], date) for clock in clocks]
    text = columns[0][0]
    dates = [form for form in _DATES if _pattern(form).match(text)]
    tails = [f"{joint}{clock}{zone}" for joint in (" ", "T", ", ", "") for clock in _CLOCKS for zone in _ZONES]
    return [date + tail for date in dates for tail in ("", *tails) if _looks(text, date + tail)]


def _clocks(texts: Sequence[str]) -> Sequence[str]:
    """Times of day without separators may have lost zeros in front, so that the longest tells what they are."""
    if not all(text.isdecimal() for text in texts if text):
        return _CLOCKS
    longest = max(map(len, texts))
    return ("%H%M",) if longest <= 4 else ("%H%M%S",) if longest <= 6 else ("%H%M%S%3f",)


def _looks(text: str, form: str) -> bool:
    return _pattern(form).fullmatch(text) is not None


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """What texts of a format look like; in one without separators every number has all its digits."""
    digits = r"\d\d" if form in ("%Y%m%d", "%d%b%Y") or "%H%M" in form else r"\d\d?"
    parts = re.split(r"(%:z|%\.f|%3f|%[a-zA-Z])", form)
    return re.compile("".join(_SHAPES.get(part, digits if part in _TWO_DIGITS else re.escape(part)) for part in parts))


def _fit(columns: Sequence[Sequence[str]], form: str) -> Reading:
    zone = "z" in form or form.endswith(("Z", "UTC", "GMT"))
    dates = not re.search(r"%[HI]", form)
    times = Times(style=TimeStyle.FORMAT, format=form, stated=zone, dates=dates, guessed=swapped(form) != form)
    return _reading(columns, times, f"written {form}")
