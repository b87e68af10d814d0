"""Values of files as float64 and nanoseconds."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.bulk.base import Times, TimeStyle
from tapehouse.bulk.formats.convert import (
    UNIT_NS,
    band,
    cast_or_null,
    exact_floats,
    fixed_point,
    float_times,
    floats_of,
    in_one_unit,
    nanoseconds,
    reject_no_clocks,
    renamed,
    time_type,
)
from tapehouse.bulk.validate import Verdict
from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS

EPOCH = {unit: Times(style=TimeStyle.EPOCH, unit=unit) for unit in ("s", "ms", "us", "ns")}


@given(st.lists(st.one_of(st.integers(-5, 5).map(str), st.text(max_size=3), st.none()), max_size=12))
def test_what_does_not_cast_is_null_and_nothing_else(texts: list[str | None]) -> None:
    found = cast_or_null(pa.array(texts, pa.string()), pa.int64()).to_pylist()
    for text, value in zip(texts, found, strict=True):
        alone = pa.array([text], pa.string())
        try:
            assert value == alone.cast(pa.int64())[0].as_py()
        except pa.ArrowInvalid:
            assert value is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_bit_by_bit(value: float) -> None:
    for text in (repr(value), f"{value:.17e}"):
        found = floats_of(pa.array([text]))[0].as_py()
        assert math.copysign(1, found) == math.copysign(1, value)
        assert found == value


@pytest.mark.parametrize("text", ["", "x", "1,5", "1_000", "0x10", "--1", "1e", "1 2", "$", "5$", "$$5", "€5", "5%"])
def test_what_is_no_number(text: str) -> None:
    assert floats_of(pa.array([text])).null_count == 1


def test_a_dollar_sign_says_nothing() -> None:
    assert floats_of(pa.array(["$5.25", "-$1", "$-1", "+$2", None])).to_pylist() == [5.25, -1, -1, 2, None]


@pytest.mark.parametrize(
    ("text", "is_no_clock"),
    [
        ("2024-01-01 24:00:00", True),
        ("2024-01-01T23:59:60Z", True),
        ("2024-01-01 12:60", True),
        ("2024.01.02 25:00:00.123", True),
        ("24:00", True),
        ("20240101 240000", True),
        ("20240101 235960123", True),
        ("246000", True),
        ("2024-02-30 12:00:00", False),
        ("2024-02-30", False),
        ("20240230", False),
        ("20240230 120000", False),
        ("235959", False),
        ("x", False),
    ],
)
def test_times_of_day_that_do_not_exist(text: str, is_no_clock: bool) -> None:
    verdict = Verdict(3)
    reject_no_clocks(pa.array(["2024-01-01 24:00", text, None]), np.array([False, True, True]), "time", verdict)
    assert verdict.reasons_of_bad() == ["time has a time of day that does not exist"] * is_no_clock


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("%Y.%m.%d %H:%M:%S", "2024.06.01 12:59:59", "2024.06.01 12:59:60"),
        ("%Y%m%d %H%M%S%3f", "20120601 160659123", "20120601 125960123"),
        ("%m/%d/%Y %I:%M:%S %p", "06/01/2024 12:59:59 PM", "06/01/2024 12:59:60 PM"),
    ],
)
def test_second_60_is_not_the_next_minute(form: str, good: str, bad: str) -> None:
    values, none = nanoseconds([pa.array([good, bad, None])], Times(style=TimeStyle.FORMAT, format=form))
    assert none.tolist() == [False, True, True]
    assert values[0] != 0


def test_a_decimal_comma_and_no_point_beside_it() -> None:
    assert floats_of(pa.array(["1,5", "-0,25", "1.5", "1.000,5"]), ",").to_pylist() == [1.5, -0.25, None, None]


@given(st.decimals(-(10**9), 10**9, places=7))
def test_decimals_are_the_nearest_float(value: Decimal) -> None:
    found, lost = exact_floats(pa.array([value], pa.decimal128(38, 7)))
    assert lost is None
    assert found[0].as_py() == float(value)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
def test_integers_that_no_float_holds_are_lost(value: int) -> None:
    _, lost = exact_floats(pa.array([value, 5], pa.int64()))
    assert lost is not None
    assert lost.to_pylist() == [True, False]
    assert exact_floats(pa.array([2**53, 2**60, None], pa.int64()))[1] is None


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("s", 1, 1_000_000_000),
        ("ms", -1, -1_000_000),
        ("us", MAX_TIME_NS // 1_000 - 1, (MAX_TIME_NS // 1_000 - 1) * 1_000),
        ("ns", MAX_TIME_NS - 1, MAX_TIME_NS - 1),
        ("ns", MIN_TIME_NS, MIN_TIME_NS),
    ],
)
def test_epochs(unit: str, value: int, expected: int) -> None:
    values, none = nanoseconds([pa.array([value], pa.int64())], EPOCH[unit])
    assert (list(values), list(none)) == ([expected], [False])


@pytest.mark.parametrize(("unit", "value"), [("s", 10**10), ("ms", -(10**15)), ("us", 2**62)])
def test_epochs_that_nanoseconds_do_not_hold(unit: str, value: int) -> None:
    assert list(nanoseconds([pa.array([value, 0, None], pa.int64())], EPOCH[unit])[1]) == [True, False, True]


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999))
def test_fractional_epochs_are_exact(seconds: int, nanos: int) -> None:
    times = Times(style=TimeStyle.EPOCH, unit="s", fractional=True)
    column = cast_or_null(pa.array([f"{seconds}.{nanos:09}", "99999999999"]), time_type(times))
    values, none = nanoseconds([column], times)
    assert values[0] == seconds * 1_000_000_000 + nanos
    assert list(none) == [False, True]


def test_epochs_as_floats_are_rounded_to_what_they_can_mean() -> None:
    found = float_times(pa.array([1_704_205_800.25, 1e30, math.nan, None]), "s")
    assert found.cast(pa.int64()).to_pylist() == [1_704_205_800_250_000_000, None, None, None]


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("%Y%m%d", "20240102", 1_704_153_600_000_000_000),
        ("%m/%d/%Y %I:%M %p", "01/02/2024 2:30 PM", 1_704_205_800_000_000_000),
        ("%d.%m.%Y %H:%M:%S%.f", "02.01.2024 14:30:00.123456789", 1_704_205_800_123_456_789),
        ("%Y%m%d %H%M%S%3f", "20240102 143000250", 1_704_205_800_250_000_000),
        ("%Y-%m-%dT%H:%M:%S%:z", "2024-01-02T15:30:00+01:00", 1_704_205_800_000_000_000),
    ],
)
def test_formats(form: str, text: str, expected: int) -> None:
    times = Times(style=TimeStyle.FORMAT, format=form)
    values, none = nanoseconds([pa.array([text, "nonsense", None])], times)
    assert values[0] == expected
    assert list(none) == [False, True, True]


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%d/%m/%Y %H:%M:%S%.f"])
def test_formatted_times_that_nanoseconds_do_not_hold(form: str) -> None:
    tail = " 00:00:00" if "%H" in form else ""
    texts = [f"02/01/1600{tail}", f"02/01/2300{tail}", f"02/01/2024{tail}"]
    assert list(nanoseconds([pa.array(texts)], Times(style=TimeStyle.FORMAT, format=form))[1]) == [True, True, False]


def test_date_and_time_in_two_columns_get_back_their_zeros() -> None:
    times = Times(style=TimeStyle.FORMAT, format="%Y%m%d %H%M%S")
    values, none = nanoseconds([pa.array([20240102, 20240102]), pa.array([93000, 0])], times)
    assert list(values) == [1_704_187_800_000_000_000, 1_704_153_600_000_000_000]
    assert not none.any()


def test_dates_with_an_offset_keep_the_date_as_written() -> None:
    times = Times(style=TimeStyle.ISO, stated=True, dates=True)
    texts = ["2024-01-02 00:00:00-05:00", "2024-07-02T00:00:00Z", "2024-07-02 09:30:00-04:00", "2024-02-30 00:00:00Z"]
    values, none = nanoseconds([pa.array(texts)], times)
    assert list(values[:2]) == [1_704_153_600_000_000_000, 1_719_878_400_000_000_000]
    assert list(none) == [False, False, True, True]


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 2), min_size=1, max_size=20), st.integers(1, 18))
def test_prices_in_fixed_point_are_the_nearest_floats(values: list[int], decimals: int) -> None:
    found = fixed_point(pa.array([*values, None], pa.int64()), decimals).to_pylist()
    assert found == [*(float(Decimal(value).scaleb(-decimals)) for value in values), None]


def test_the_largest_number_is_no_price() -> None:
    assert math.isnan(fixed_point(pa.array([2**63 - 1]), 9)[0].as_py())


_INSTANTS = st.integers(10**17, 9 * 10**18)


@given(st.lists(st.tuples(_INSTANTS, st.sampled_from(list(UNIT_NS))), min_size=1, max_size=20))
def test_epochs_of_any_mixture_of_units_are_what_they_were(written: list[tuple[int, str]]) -> None:
    times = Times(style=TimeStyle.EPOCH, unit="ms", guessed=True)
    column = pa.array([instant // UNIT_NS[unit] for instant, unit in written], pa.int64())
    verdict = Verdict(len(written))
    values, none = nanoseconds([in_one_unit(column, times, verdict)], times)
    assert list(values) == [instant // UNIT_NS[unit] * UNIT_NS[unit] for instant, unit in written]
    assert not none.any()
    assert sum(verdict.remarks.values()) == sum(unit != "ms" for _, unit in written)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_an_epoch_is_of_one_unit_at_most_and_else_is_rejected(value: int) -> None:
    units = [unit for unit in UNIT_NS if band(unit)[0] <= value < band(unit)[1]]
    assert len(units) <= 1
    verdict = Verdict(1)
    in_one_unit(pa.array([value]), Times(style=TimeStyle.EPOCH, unit="s", guessed=True), verdict)
    assert len(verdict.bad) == 1 - len(units)


def test_a_unit_that_was_said_is_not_doubted() -> None:
    column = pa.array([1_704_205_800, 1_704_205_800_000])
    assert in_one_unit(column, Times(style=TimeStyle.EPOCH, unit="s"), Verdict(2)) is column


def test_texts_that_stand_for_something() -> None:
    side = {"true": "sell", "false": "buy", "n": ""}
    found = renamed(pa.array(["True", "FALSE", "N", "x", None]), side)
    assert found.to_pylist() == ["sell", "buy", None, "x", None]
