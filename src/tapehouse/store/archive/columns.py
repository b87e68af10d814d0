"""How columns become Parquet and come back, exactly.

A float64 column is written as DECIMAL(18, s) when every value of it is the float64 nearest to some decimal of s digits:
then `ticks / 10**s` gives each value back bit by bit, since both are exact float64 (ticks < 2**53, s <= 12) and IEEE
division rounds correctly. Otherwise it stays float64. Nothing is rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PRECISION = 18
LARGEST_SCALE = 12
_EXACT_INTEGERS = 2.0**53
RESCALED_BELOW = 2.0**51
"""A value that fits some scale fits every larger one at which it has fewer ticks than this.

Value and product are each off by at most 2**-53 of the ticks, so that less than half a tick is lost before rounding.
"""
_SAMPLE_ROWS = 64


def decimal_scale(values: np.ndarray, at_least: int = 0) -> int | None:
    """The fewest decimal digits (from `at_least`) that hold every value exactly, None when no number of digits does."""
    if len(values) == 0:
        return at_least
    sample = values[:: max(1, len(values) // _SAMPLE_ROWS)]
    for scale in range(at_least, LARGEST_SCALE + 1):
        if fits(sample, scale) and fits(values, scale):
            return scale
    return None


def fits(values: np.ndarray, scale: int) -> bool:
    """Whether decimals of that many digits give every value back bit by bit."""
    with np.errstate(over="ignore"):
        ticks = np.rint(values * 10.0**scale)
    if not np.all(np.abs(ticks) < _EXACT_INTEGERS):
        return False
    back = (ticks + 0.0) / 10.0**scale
    # Compared as bits: -0.0, which the sum has made 0.0, has no decimal of its own.
    return bool(np.array_equal(back.view("i8"), values.view("i8")))


def to_decimal(values: np.ndarray, scale: int, valid: np.ndarray | None = None) -> Any:
    """An Arrow decimal64 array of those values, which must fit the scale exactly; `valid` masks nulls out.

    Raises `ValueError` when they do not: what is written here replaces the rows it was made from.
    """
    if not fits(values, scale):
        raise ValueError(f"values up to {np.abs(values).max()!r} do not fit {scale} decimal digits")
    ticks = np.rint(values * 10.0**scale).astype("i8")
    mask = None if valid is None else pa.array(valid).buffers()[1]
    return pa.Array.from_buffers(pa.decimal64(PRECISION, scale), len(ticks), [mask, pa.py_buffer(ticks)])


def to_float(array: Any) -> Any:
    """A float64 array of a decimal one, each value the float64 nearest to its decimal; other types pass through.

    Not `array.cast(float64)`, which is wrong in the last bit for 13 to 31 % of prices.
    """
    if not pa.types.is_decimal(array.type):
        return array
    ticks = _ticks(array)
    floats = ticks if array.type.scale == 0 else ticks / 10.0**array.type.scale
    return pa.Array.from_buffers(
        pa.float64(), len(array), [_validity(array), pa.py_buffer(np.ascontiguousarray(floats, "f8"))]
    )


def _ticks(array: Any) -> np.ndarray:
    width = array.type.bit_width // 64
    words = np.frombuffer(array.buffers()[1], "<i8")[array.offset * width : (array.offset + len(array)) * width]
    # 18 digits fit into the low word, whose sign is then the number's.
    return words[::width].astype("f8")


def _validity(array: Any) -> Any:
    if array.null_count == 0:
        return None
    # Of a slice the bits begin anywhere in the buffer; a copy's begin with it.
    return pa.concat_arrays([pc.is_valid(array)]).buffers()[1]


def rows_within(rows: pa.Table, start: int, end: int) -> pa.Table:
    """The rows, sorted by time, whose times are in `[start, end)`; nothing is copied."""
    times = one_chunk(rows["timestamp"]).view(pa.int64()).to_numpy()
    if len(times) == 0 or (times[0] >= start and times[-1] < end):
        return rows
    low, high = np.searchsorted(times, [start, end])
    return rows.slice(low, high - low)


def one_chunk(column: Any) -> Any:
    """A chunked array as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks()
