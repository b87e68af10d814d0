"""Spans of the archive: every nanosecond belongs to exactly one."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.model import MAX_TIME_NS, MIN_TIME_NS, Interval, Kind
from tapehouse.store.archive.spans import Dataset
from tapehouse.store.duckdb.catalog import DATASETS


def ns(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[arg-type, misc]


@given(st.sampled_from(DATASETS), st.integers(MIN_TIME_NS, MAX_TIME_NS - 1))
def test_a_time_lies_in_its_span_and_in_no_other(dataset: Dataset, time: int) -> None:
    span = dataset.span_at(time)
    start, end = dataset.bounds(span)
    assert start <= time < end
    if dataset.unit is not None:
        assert dataset.bounds(span + 1)[0] == end
        assert dataset.span_at(start) == span
        assert dataset.span_at(end - 1) == span


@pytest.mark.parametrize(
    ("interval", "before", "boundary"),
    [
        (Interval.S30, "2024-02-29", ns(2024, 3, 1)),
        (Interval.M1, "2024-02", ns(2024, 3, 1)),
        (Interval.M30, "1969-12", ns(1970, 1, 1)),
        (Interval.H4, "2023", ns(2024, 1, 1)),
    ],
)
def test_one_nanosecond_decides(interval: Interval, before: str, boundary: int) -> None:
    dataset = Dataset(Kind.BARS, interval)
    spans = dataset.span_of(np.array([boundary - 1, boundary, boundary + 1]))
    assert spans[1] == spans[2] == spans[0] + 1
    assert dataset.folder(int(spans[0])) == f"bars/{interval}/{before}"


def test_days_and_longer_lie_in_one_span() -> None:
    dataset = Dataset(Kind.BARS, Interval.D1)
    assert dataset.bounds(dataset.span_at(0)) == (MIN_TIME_NS, MAX_TIME_NS)
    assert dataset.folder(0) == "bars/1d/all"


def test_trades_lie_in_days() -> None:
    dataset = Dataset(Kind.TRADES)
    assert dataset.folder(dataset.span_at(ns(2024, 1, 2))) == "trades/2024-01-02"


def test_a_stored_code_stands_for_its_data_set() -> None:
    assert [Dataset.decode(d.kind, d.code) for d in DATASETS] == list(DATASETS)
