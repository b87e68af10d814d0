"""What a batch brought, read a bounded number of rows at a time beside compactions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from tests.contract.stores import T0, M, bar, bars

from tapehouse.model import Interval, Kind
from tapehouse.store.duckdb import DuckDBStore, batches

SYMBOLS = ("A", "B", "C", "D")
ROWS = 300
PART = 100


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DuckDBStore:
    """A third archived (two files), a third hot, rows of another batch everywhere between."""
    monkeypatch.setattr(batches, "ROWS_PER_HOT_QUERY", PART)
    monkeypatch.setattr(batches, "ROWS_PER_RUN", PART)
    store = DuckDBStore(tmp_path / "data")
    for first in range(0, ROWS, 50):
        for batch, shift in (("other", 0), ("wanted", 1)):
            rows = [bar(s, T0 + 2 * n * M + shift, n) for s in SYMBOLS for n in range(first, first + 50)]
            store.write(Kind.BARS, bars(*rows), interval=Interval.M1, batch=batch)
        if first in (50, 100):
            store.compact(everything=True)
    return store


def check(table: pa.Table) -> None:
    found = sorted(zip(table["symbol"].to_pylist(), table["close"].to_pylist(), strict=True))
    assert found == [(symbol, n) for symbol in SYMBOLS for n in range(ROWS)]
    assert set(table["commit"].to_pylist()) == set(range(2, 13, 2))


def test_a_bounded_number_of_rows_is_held(store: DuckDBStore) -> None:
    with store.written("wanted", Kind.BARS, Interval.M1) as reading:
        parts = list(reading)
    # A symbol's hot rows of one span, or its row group, is the least that can be read at once.
    assert max(part.num_rows for part in parts) <= 2 * PART
    check(pa.Table.from_batches(parts))
    store.close()


@pytest.mark.parametrize("begun", [False, True])
def test_a_compaction_meanwhile_changes_nothing(store: DuckDBStore, begun: bool) -> None:
    reading = store.written("wanted", Kind.BARS, Interval.M1)
    parts = iter(reading)
    found = [next(parts)] if begun else []
    store.compact(everything=True)
    store.compact(everything=True)
    check(pa.Table.from_batches([*found, *parts]))
    assert store.stats()["open_readings"] == 0
    check(store.written("wanted", Kind.BARS, Interval.M1).table())
    store.close()
