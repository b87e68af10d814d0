"""Sums of float64 that do not depend on the order of the numbers, so that a bar that was built trade by trade as they
came is, to the last bit, the bar of the sorted trades.

A number is split into whole, 40, 80 and 120 binary places behind the point, as integers (limbs), which add up exactly.
The sum as float64 is a function of the exact sum alone. Numbers from 2^60 on, and bits below 2^-120, are beyond that:
`reduce` sums the former with `math.fsum`, which does not depend on the order either, and the latter count nothing.
"""

from __future__ import annotations

import math

import numpy as np

LIMBS = 4
_BITS = 40
_UNIT = 2.0**_BITS
_MASK = (1 << _BITS) - 1
_LARGEST = 2.0**60
_EXACT_INTEGER = 2.0**53


def split(values: np.ndarray) -> np.ndarray:
    """The limbs of finite numbers below 2^60; shape (LIMBS, n), int64. As many as 8 million can be added up."""
    limbs = np.zeros((LIMBS, len(values)), np.int64)
    whole = np.trunc(values)  # towards zero, since what is left is exact then
    limbs[0] = whole
    rest = values - whole
    for limb in limbs[1:]:
        if not rest.any():
            break
        rest = rest * _UNIT
        whole = np.trunc(rest)
        limb[:] = whole
        rest = rest - whole
    return limbs


def carry(limbs: np.ndarray) -> np.ndarray:
    """The same sums with all limbs but the first below 2^40, in place; shape (LIMBS, ...)."""
    for place in range(LIMBS - 1, 0, -1):
        limbs[place - 1] += limbs[place] >> _BITS
        limbs[place] &= _MASK
    return limbs


def total(limbs: np.ndarray) -> np.ndarray:
    """The sums as float64, from limbs that were carried; shape (...)."""
    negative = limbs[0] < 0
    if negative.any():  # else the fraction would be taken off a larger number, and lose bits
        limbs = carry(np.where(negative, -limbs, limbs))
    found: np.ndarray = limbs[LIMBS - 1].astype(np.float64)
    for place in range(LIMBS - 2, -1, -1):
        found = limbs[place] + found / _UNIT
    return np.where(negative, -found, found)


def reduce(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The sum of each run of `values` that begins at one of `starts` (ascending) and ends where the next one begins.

    NaN where a value of the run is not finite.
    """
    if not len(starts):
        return values[:0].astype(np.float64)
    largest = np.abs(values).max(initial=0.0)
    if not largest < _LARGEST:
        return _reduce_slowly(values, starts)
    if largest * len(values) < _EXACT_INTEGER and (np.floor(values) == values).all():
        whole: np.ndarray = np.add.reduceat(values, starts)
        return whole
    return total(carry(reduce_limbs(values, starts)))


def reduce_limbs(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The limbs of the sum of each run; as `split`, but of each limb only its sums are kept."""
    limbs = np.zeros((LIMBS, len(starts)), np.int64)
    rest, whole = values, np.empty(len(values), np.int64)
    for place, limb in enumerate(limbs):
        if place:
            rest = rest * _UNIT
        floats = np.trunc(rest)
        np.copyto(whole, floats, casting="unsafe")
        np.add.reduceat(whole, starts, out=limb)
        rest = np.subtract(rest, floats, out=floats)
        if not rest.any():
            break
    return limbs


def _reduce_slowly(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    runs = np.split(values, starts[1:])
    return np.array([math.fsum(run) if np.isfinite(run).all() else math.nan for run in runs])
