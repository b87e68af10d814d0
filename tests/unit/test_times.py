"""Times from text and objects, and back."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import InvalidTime, NotFound
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, SECOND_NS
from tapehouse.times import as_bound, format_time, format_times, parse_as_of, parse_bound

INSTANTS = st.integers(MIN_TIME_NS, MAX_TIME_NS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-02T14:30:00Z", 1_704_205_800 * SECOND_NS),
        ("2024-01-02T14:30:00", 1_704_205_800 * SECOND_NS),
        ("2024-01-02t14:30:00z", 1_704_205_800 * SECOND_NS),
        ("2024-01-02 14:30", 1_704_205_800 * SECOND_NS),
        ("2024-01-02T09:30:00-05:00", 1_704_205_800 * SECOND_NS),
        ("2024-01-02T20:00:00+0530", 1_704_205_800 * SECOND_NS),
        ("2024-01-02T20:00:00 05:30", 1_704_205_800 * SECOND_NS),
        ("2024-01-02T14:30:00.5Z", 1_704_205_800_500_000_000),
        ("2024-01-02T14:30:00.000000001Z", 1_704_205_800_000_000_001),
        ("2024-01-02T14:30:00.123456789+00:00", 1_704_205_800_123_456_789),
        ("1704205800", 1_704_205_800 * SECOND_NS),
        ("1704205800123", 1_704_205_800_123_000_000),
        ("1704205800123456", 1_704_205_800_123_456_000),
        ("1704205800123456789", 1_704_205_800_123_456_789),
        ("-1704205800", -1_704_205_800 * SECOND_NS),
        ("-1704205800123456789", -1_704_205_800_123_456_789),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("1677-09-21T00:12:43.145224193Z", MIN_TIME_NS),
        ("2262-04-11T23:47:16.854775807Z", MAX_TIME_NS),
        ("2024-02-29", date(2024, 2, 29)),
        ("2024-02", date(2024, 2, 1)),
        ("2024", date(2024, 1, 1)),
        (" 2024-01-02 ", date(2024, 1, 2)),
        ("1677-09-22", date(1677, 9, 22)),
        ("2262-04-11", date(2262, 4, 11)),
    ],
)
def test_parse(text: str, expected: int | date) -> None:
    parsed = parse_bound(text, "start")
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "",
        "now",
        "2024-13",
        "2023-02-29",
        "2024-01-02T25:00:00Z",
        "2024-01-02T14:30:60Z",
        "2024-01-02T14:30:00+24:00",
        "2024-01-02T14:30:00.1234567891Z",
        "2024-01-02T14:30:00 EST",
        "0000",
        "01/02/2024",
        "12345",
        "17042058001",
        "1704205800.5",
        "--1704205800",
        "\u0662\u0660\u0662\u0664",
        "NaN",
        "x" * 10_000,
    ],
)
def test_what_is_not_a_time(text: str) -> None:
    with pytest.raises(InvalidTime, match=r"^start: .* is not a time.*expected RFC 3339") as caught:
        parse_bound(text, "start")
    assert caught.value.details == {"field": "start", "given": text[:64]}
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "text",
    [
        "1677-09-21T00:12:43.145224192Z",
        "2262-04-11T23:47:16.854775808Z",
        "1677-09-21",
        "2262-04-12",
        "1500",
        "9999-12-31",
        "0001-01-01T00:00:00+10:00",
        "9999-12-31T23:59:59Z",
        "9999999999999999999",
        "-9999999999999999999",
        "9999999999999",
    ],
)
def test_out_of_range_says_why(text: str) -> None:
    with pytest.raises(InvalidTime, match=r"end: .* out of range; int64 nanoseconds hold 1677-09-21 to 2262-04-11"):
        parse_bound(text, "end")


@given(ns=INSTANTS)
def test_format_and_parse_are_inverse(ns: int) -> None:
    assert parse_bound(format_time(ns), "start") == ns


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (500_000_000, "1970-01-01T00:00:00.500Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (MIN_TIME_NS, "1677-09-21T00:12:43.145224193Z"),
        (MAX_TIME_NS, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_format(ns: int, text: str) -> None:
    assert format_time(ns) == text


UNITS = st.sampled_from([1, 1_000, 1_000_000, SECOND_NS, 60 * SECOND_NS])


@given(times=st.lists(st.tuples(INSTANTS, UNITS)))
def test_formatting_an_array_is_formatting_each(times: list[tuple[int, int]]) -> None:
    ns = [-(-time // unit) * unit if time < 0 else time // unit * unit for time, unit in times]
    assert format_times(np.array(ns, np.int64)).to_pylist() == [format_time(time) for time in ns]


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, SECOND_NS])
def test_formatting_an_array_of_one_precision(unit: int) -> None:
    ns = (np.arange(-3, 4) * 2 + 1) * unit
    assert format_times(ns).to_pylist() == [format_time(time) for time in ns.tolist()]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 1, 2, 14, 30), 1_704_205_800 * SECOND_NS),
        (datetime(2024, 1, 2, 14, 30, 0, 1, tzinfo=UTC), 1_704_205_800_000_001_000),
        (datetime(2024, 1, 2, 9, 30, tzinfo=timezone(timedelta(hours=-5))), 1_704_205_800 * SECOND_NS),
        (date(2024, 1, 2), date(2024, 1, 2)),
        (pd.Timestamp("2024-01-02T14:30:00.123456789Z"), 1_704_205_800_123_456_789),
        (pd.Timestamp("2024-01-02T09:30", tz="America/New_York"), 1_704_205_800 * SECOND_NS),
        (np.datetime64("2024-01-02T14:30:00.000000001"), 1_704_205_800_000_000_001),
        (np.datetime64("2024-01-02"), date(2024, 1, 2)),
        (np.int64(5), 5),
        (5, 5),
        ("2024", date(2024, 1, 1)),
    ],
)
def test_objects(value: Any, expected: int | date) -> None:
    bound = as_bound(value, "start")
    assert bound == expected
    assert type(bound) is type(expected)


@pytest.mark.parametrize("value", [True, 1.5, None, [], pd.NaT, np.datetime64("NaT")])
def test_objects_that_are_no_time(value: Any) -> None:
    with pytest.raises(InvalidTime, match=r"start: .* is not a time"):
        as_bound(value, "start")


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        -(2**63),
        date(1600, 1, 1),
        datetime(9999, 1, 1),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_objects_out_of_range(value: Any) -> None:
    with pytest.raises(InvalidTime, match="out of range"):
        as_bound(value, "start")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("2024", 2024),
        (" 999999999999 ", 999_999_999_999),
        ("1704205800123", 1_704_205_800_123_000_000),
        ("-1704205800123", -1_704_205_800_123_000_000),
        ("2024-01-02", 1_704_153_600 * SECOND_NS),
        ("2024-01-02T14:30:00Z", 1_704_205_800 * SECOND_NS),
        ("1969-12-31", -86_400 * SECOND_NS),
    ],
)
def test_as_of_is_a_commit_or_a_time(text: str, expected: int) -> None:
    assert parse_as_of(text, "as_of") == expected


def test_a_negative_commit_is_none() -> None:
    with pytest.raises(NotFound, match="there is no commit -1; the first is 1"):
        parse_as_of("-1", "as_of")


@pytest.mark.parametrize("text", ["", "1.5", "+1", "lately", "1" * 14, "9" * 100, "--1"])
def test_what_is_neither_a_commit_nor_a_time(text: str) -> None:
    with pytest.raises(InvalidTime, match="as_of"):
        parse_as_of(text, "as_of")
