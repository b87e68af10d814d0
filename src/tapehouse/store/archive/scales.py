"""Which columns of which symbols may share a file: how many decimal digits hold every value of them exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tapehouse.store.archive.columns import RESCALED_BELOW, decimal_scale, fits, one_chunk

_PRICES = {"open", "high", "low", "close", "price", "bid", "ask"}


class Scale(NamedTuple):
    """The decimal digits that hold a column exactly, None where it stays float64, and its largest magnitude."""

    digits: int | None
    largest: float

    def holds_at(self, digits: int) -> bool:
        """Whether the column is exact with that many digits too, which are not fewer than its own."""
        return digits == self.digits or self.largest * 10.0**digits < RESCALED_BELOW


def scales_of(table: pa.Table, fields: Sequence[Any]) -> dict[str, Scale]:
    """The scale of each float column that has values; prices share their digits."""
    scales: dict[str, Scale] = {}
    prices: dict[str, np.ndarray] = {}
    for field in fields:
        if field.type != pa.float64() or table[field.name].null_count == table.num_rows:
            continue
        column = one_chunk(table[field.name])
        values = (column.drop_null() if column.null_count else column).to_numpy()
        if field.name in _PRICES:
            prices[field.name] = values
        else:
            scales[field.name] = Scale(decimal_scale(values), _largest(values))
    digits = _digits_of_all(prices.values())
    return {**{name: Scale(digits, _largest(values)) for name, values in prices.items()}, **scales}


def _digits_of_all(columns: Iterable[np.ndarray]) -> int | None:
    most = 0
    known: list[tuple[np.ndarray, int]] = []
    for values in columns:
        digits = decimal_scale(values, most)
        if digits is None:
            return None
        most = digits
        known.append((values, digits))
    # More digits, which a later column needs, can be too many for an earlier one of large numbers.
    return most if all(digits == most or fits(values, most) for values, digits in known) else None


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())


class JointScales:
    """The scales of symbols that share a file, where a column has the same digits for all of them."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Scale]] = {}

    @property
    def digits(self) -> dict[str, int | None]:
        """The digits of each column in the file."""
        return {name: _most(scales) for name, scales in self._columns.items()}

    def take(self, scales: Mapping[str, Scale]) -> bool:
        """Add another symbol, if every column of all of them stays exact."""
        joined = {name: [*self._columns.get(name, ()), scale] for name, scale in scales.items()}
        if not all(map(_exact, joined.values())):
            return False
        self._columns |= joined
        return True


def _most(scales: Sequence[Scale]) -> int | None:
    digits = [scale.digits for scale in scales]
    return None if None in digits else max(d for d in digits if d is not None)


def _exact(scales: Sequence[Scale]) -> bool:
    digits = _most(scales)
    return digits is None or all(scale.holds_at(digits) for scale in scales)


def repeating_columns(rows: pa.Table, digits: Mapping[str, int | None]) -> set[str]:
    """The columns that stay float64 and say each value twice or more on average, as prices in cents times a factor do:
    a dictionary of them is much smaller than their bytes."""
    found = set()
    for name, held in digits.items():
        if held is None:
            values = one_chunk(rows[name]).drop_null().to_numpy()
            if 2 * len(np.unique(values)) <= len(values):
                found.add(name)
    return found
