"""Which files and row groups of a span hold a symbol, against a look at every one of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.model import Interval, Kind
from tapehouse.store.archive.files import ArchiveFile
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.duckdb.catalog import Shelf

MINUTES = Dataset(Kind.BARS, Interval.M1)
Group = tuple[int, int, int]
"""A symbol, the first and the last time of its rows."""

groups = st.tuples(st.integers(0, 5), st.integers(0, 20), st.integers(0, 5)).map(lambda g: (g[0], g[1], g[1] + g[2]))
files = st.lists(st.lists(groups, min_size=1, max_size=8), max_size=6)


def a_file(number: int, held: list[Group]) -> ArchiveFile:
    symbols, first, last = (np.array(column) for column in zip(*sorted(held), strict=True))
    places = np.arange(len(held), dtype="i4")
    return ArchiveFile(
        number, MINUTES, 7, False, f"{number}.parquet", 1, 1, 1, None,
        symbols.astype("i4"), places, np.ones(len(held), "i4"), first.astype("i8"), last.astype("i8"),
    )  # fmt: skip


def looked_through(held: tuple[ArchiveFile, ...], symbol: int, start: int, end: int) -> list[tuple[int, list[int]]]:
    found = []
    for file in held:
        columns = zip(file.symbols.tolist(), file.first.tolist(), file.last.tolist(), strict=True)
        of = [i for i, (s, first, last) in enumerate(columns) if s == symbol and first < end and last >= start]
        found += [(file.id, of)] if of else []
    return found


@given(files, files, st.integers(0, 6), st.integers(0, 25), st.integers(0, 25))
def test_all_groups_of_a_symbol_are_found(
    before: list[list[Group]], after: list[list[Group]], symbol: int, start: int, end: int
) -> None:
    shelf = Shelf()
    for numbers, held in enumerate((before, after)):
        those = tuple(a_file(100 * numbers + i, groups) for i, groups in enumerate(held))
        shelf = shelf.replaced(7, those, floor=numbers)
        found = [(file.id, of) for file, of in shelf.groups_of(7, symbol, start, end)]
        assert found == looked_through(those, symbol, start, end)


def test_another_span_is_another_matter() -> None:
    shelf = Shelf().replaced(7, [a_file(1, [(0, 0, 9)])], 1)
    assert [file.id for file, _ in shelf.groups_of(7, 0, 0, 5)] == [1]
    assert shelf.groups_of(8, 0, 0, 5) == []
    more = shelf.replaced(8, [a_file(2, [(0, 0, 9)])], 2)
    assert [file.id for file, _ in more.groups_of(8, 0, 0, 5)] == [2]
    assert [file.id for file, _ in more.groups_of(7, 0, 0, 5)] == [1]
    assert shelf.groups_of(8, 0, 0, 5) == []
