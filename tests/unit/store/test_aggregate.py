"""Aggregates made by reading: whatever the batches, symbol by symbol. What they must be is in the contract suite."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import InvalidRequest
from tapehouse.model import MINUTE_NS, NAME, TIMESTAMP, Interval, Kind
from tapehouse.store.aggregate import aggregate_by_reading, aggregate_schema
from tapehouse.store.base import Aggregation, Reading, Selection

EDGES = np.arange(0, 100 * MINUTE_NS, 10 * MINUTE_NS)


class Rows:
    """Answers reads from a table cut into batches, and remembers what was asked and whether it was closed."""

    def __init__(self, table: pa.Table, cuts: list[int] = []) -> None:  # noqa: B006 never changed
        self.table, self.cuts = table, cuts
        self.asked: list[Selection] = []
        self.closed = 0

    def read(self, selection: Selection) -> Reading:
        self.asked.append(selection)
        chosen = self.table.select(list(selection.columns or ()))
        return Reading(chosen.schema, 1, self._batches(chosen), self._close)

    def _batches(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        bounds = [0, *sorted(min(cut, table.num_rows) for cut in self.cuts), table.num_rows]
        for start, end in pairwise(bounds):
            # Each batch has a dictionary of its own, as batches may.
            part = table.slice(start, end - start).combine_chunks()
            names = part["symbol"].cast(pa.string()).combine_chunks().dictionary_encode()
            part = part.set_column(0, "symbol", names.cast(NAME))
            yield from part.to_batches() or [pa.RecordBatch.from_pylist([], part.schema)]

    def _close(self) -> None:
        self.closed += 1


def bars(symbols: str, rows: int) -> pa.Table:
    total = len(symbols) * rows
    price = np.arange(1.0, total + 1)
    return pa.table(
        {
            "symbol": pa.array(np.repeat(list(symbols), rows), pa.string()).dictionary_encode(),
            "timestamp": pa.array(np.tile(np.arange(rows) * MINUTE_NS, len(symbols))).cast(TIMESTAMP),
            **dict.fromkeys(("open", "high", "low", "close", "volume", "vwap"), price),
            "trades": pa.array(np.arange(total)),
        }
    )


def aggregate(rows: Rows, *measures: str, edges: Any = EDGES, groups: Any = None, **selection: Any) -> pa.Table:
    wanted = Selection(**{"interval": Interval.M1, **selection})
    return aggregate_by_reading(rows.read, wanted, lambda _: edges, Aggregation(measures=measures, groups=groups))


@given(st.lists(st.integers(0, 90), max_size=8))
def test_however_the_batches_are_cut(cuts: list[int]) -> None:
    table, measures = bars("ABC", 30), ("open", "close", "vwap", "trades", "count", "return")
    assert aggregate(Rows(table, cuts), *measures).equals(aggregate(Rows(table), *measures))
    groups = {"g": ["A", "C"], "h": ["B"]}
    whole = aggregate(Rows(table), "volume", "return", groups=groups)
    assert aggregate(Rows(table, cuts), "volume", "return", groups=groups).equals(whole)


@pytest.mark.parametrize(
    ("measure", "columns"),
    [
        ("count", set()),
        ("close", {"close"}),
        ("vwap", {"vwap", "close", "volume"}),
        ("volatility", {"open", "close"}),
        ("trades", {"trades"}),
    ],
)
def test_only_the_columns_that_a_measure_needs_are_read(measure: str, columns: set[str]) -> None:
    rows = Rows(bars("AB", 20))
    assert aggregate(rows, measure).column_names == ["symbol", "timestamp", measure]
    assert set(rows.asked[0].columns or ()) == {"symbol", "timestamp"} | columns


def test_a_group_is_read_as_its_members_that_were_asked_for() -> None:
    rows = Rows(bars("A", 20))
    aggregate(rows, "volume", groups={"g": ["C", "A"], "h": ["A", "B"]})
    aggregate(rows, "volume", groups={"g": ["C", "A"], "h": ["A", "B"]}, symbols=("A", "Z"))
    assert [selection.symbols for selection in rows.asked] == [("A", "B", "C"), ("A",)]


def test_the_reading_is_closed_whatever_happens() -> None:
    rows = Rows(bars("AB", 20))
    aggregate(rows, "close")
    with pytest.raises(ZeroDivisionError):
        aggregate_by_reading(
            rows.read, Selection(interval=Interval.M1), lambda _: 1 // 0, Aggregation(measures=("close",))
        )
    assert rows.closed == 2


def test_nothing_is_read_for_a_question_that_makes_no_sense() -> None:
    rows = Rows(bars("A", 20))
    for wrong in ({"kind": Kind.QUOTES, "interval": None}, {"interval": None}):
        with pytest.raises(InvalidRequest):
            aggregate(rows, "close", **wrong)
    assert rows.asked == []


def test_members_of_a_group_need_the_same_buckets() -> None:
    edges = {"A": EDGES, "B": EDGES[:5]}
    with pytest.raises(InvalidRequest, match="different buckets"):
        aggregate_by_reading(
            Rows(bars("AB", 20)).read,
            Selection(interval=Interval.M1),
            edges.__getitem__,
            Aggregation(measures=("volume",), groups={"g": ["A", "B"]}),
        )


def test_rows_outside_the_buckets_do_not_count() -> None:
    found = aggregate(Rows(bars("A", 30)), "count", edges=np.array([10, 20]) * MINUTE_NS)
    assert found["count"].to_pylist() == [10]


def test_without_rows_the_schema_is_the_same() -> None:
    for groups in (None, {"g": ["A"]}):
        aggregation = Aggregation(measures=("volume", "count"), groups=groups)
        found = aggregate(Rows(bars("A", 0)), *aggregation.measures, groups=groups)
        assert (found.schema, found.num_rows) == (aggregate_schema(aggregation), 0)
