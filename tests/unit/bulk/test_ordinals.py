"""Numbering equal records over blocks, against a plain count."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.bulk.ordinals import Ordinals
from tapehouse.model import Kind

Row = tuple[str, int, float, str | None]
rows = st.tuples(
    st.sampled_from("AB"), st.integers(0, 4), st.sampled_from([1.0, 2.0, -0.0, 0.0]), st.sampled_from([None, "x"])
)


def table(part: list[Row]) -> pa.Table:
    symbols, times, prices, ids = ([row[place] for row in part] for place in range(4))
    return pa.table(
        {
            "symbol": pa.array(symbols, pa.string()).dictionary_encode(),
            "timestamp": pa.array(times, pa.timestamp("ns", "UTC")),
            "price": prices,
            "size": pa.array([5.0] * len(part)),
            "id": pa.array(ids, pa.string()),
        }
    )


def numbered(parts: list[list[Row]], ordinals: Ordinals) -> list[int]:
    found = []
    for part in parts:
        done = ordinals.add(table(part))
        found += done.column("ordinal").to_pylist() if "ordinal" in done.column_names else [0] * len(part)
    return found


@given(parts=st.lists(st.lists(rows, min_size=1, max_size=12), max_size=8))
def test_ordinals_count_equal_rows_over_all_blocks(parts: list[list[Row]]) -> None:
    seen: Counter[Row] = Counter()
    expected = []
    for row in (row for part in parts for row in part):
        expected.append(seen[row] if row[3] is None else 0)
        seen[row] += row[3] is None
    assert numbered(parts, Ordinals(Kind.TRADES)) == expected


def test_what_is_further_back_than_the_window_is_uncertain_and_counted() -> None:
    ordinals = Ordinals(Kind.TRADES, window_rows=3)
    parts: list[list[Row]] = [[("A", n, 1.0, None), ("A", n, 2.0, None)] for n in (1, 2, 3, 4)]
    assert numbered([*parts, [("A", 1, 1.0, None), ("B", 1, 1.0, None), ("A", 9, 1.0, None)]], ordinals) == [0] * 11
    assert ordinals.uncertain == 1


def test_bars_have_none() -> None:
    assert "ordinal" not in Ordinals(Kind.BARS).add(table([("A", 1, 1.0, None)])).column_names
