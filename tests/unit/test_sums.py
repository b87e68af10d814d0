"""Sums do not depend on the order, and are as near to the exact sum as a float64 can be, or next to that."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse import sums

NUMBERS = st.one_of(
    st.floats(-1e15, 1e15, allow_nan=False),
    st.floats(-1e-3, 1e-3, allow_nan=False),
    st.integers(-(10**15), 10**15).map(float),
    st.decimals(0, 10**6, places=8).map(float),
)


def one(values: list[float]) -> float:
    return float(sums.reduce(np.array(values), np.array([0]))[0])


@given(values=st.lists(NUMBERS, min_size=1, max_size=30), seed=st.integers(0, 1_000))
def test_the_order_does_not_matter(values: list[float], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(values).tolist()
    assert one(values) == one(shuffled)


@given(values=st.lists(NUMBERS, min_size=1, max_size=30), cut=st.integers(0, 30))
def test_parts_that_are_added_up_later_give_the_same(values: list[float], cut: int) -> None:
    limbs = sum(
        (sums.split(np.array(part)).sum(axis=1) for part in (values[:cut], values[cut:])),
        np.zeros(sums.LIMBS, np.int64),
    )
    assert float(sums.total(sums.carry(limbs))) == one(values)


@given(values=st.lists(NUMBERS, min_size=1, max_size=30))
def test_it_is_the_exact_sum(values: list[float]) -> None:
    exact, found = math.fsum(values), one(values)
    assert abs(found - exact) <= max(math.ulp(exact), 2.0**-115)


@given(values=st.lists(st.integers(-(2**40), 2**40).map(float), min_size=1, max_size=30))
def test_whole_numbers_are_exact(values: list[float]) -> None:
    assert one(values) == sum(map(int, values))


def test_runs_are_summed_apart() -> None:
    values = np.array([0.1, 0.2, 0.3, 5.0, 1e16, 0.5])
    assert sums.reduce(values, np.array([0, 3, 4])).tolist() == [0.6, 5.0, 1e16]
    assert sums.reduce(values, np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_makes_its_run_none(value: float) -> None:
    found = sums.reduce(np.array([1.5, value, 2.5]), np.array([0, 2]))
    assert math.isnan(found[0])
    assert found[1] == 2.5


def test_huge_numbers_are_summed_too() -> None:
    assert one([1e300, 1.0, -1e300]) == 1.0
