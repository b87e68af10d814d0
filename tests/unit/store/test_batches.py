"""What a batch brought, read a bounded number of rows at a time, and undone beside writers and compactions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.contract.stores import T0, D, M, bar, bars, closes, write

from tapehouse import failpoints
from tapehouse.errors import Conflict, StoreError, StoreFull
from tapehouse.model import Interval, Kind
from tapehouse.store.duckdb import DuckDBStore, batches, compactor, reads

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
            rows = [bar(s, T0 + (2 * n + shift) * M, n) for s in SYMBOLS for n in range(first, first + 50)]
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


def undo_after(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> tuple[Any, int]:
    """Undo `wanted` while somebody else writes; returns what it did, and how often it was found out."""
    prepare, calls = store._batches.prepare, 0

    def overtaken(batch: str) -> Any:
        nonlocal calls
        calls += 1
        prepared = prepare(batch)
        if calls == 1:
            meanwhile()
        return prepared

    monkeypatch.setattr(store._batches, "prepare", overtaken)
    return store.undo("wanted"), calls


def test_an_undo_takes_the_next_number_after_writes_beside_it(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = T0 + 10_000 * M
    undone, calls = undo_after(
        store,
        monkeypatch,
        lambda: (write(store, bar("A", later, 1)), write(store, bar("A", T0, 1), interval=Interval.H1)),
    )
    assert (calls, undone.commits[0].number, undone.removed) == (1, 15, 4 * ROWS)
    assert [(s.symbol, s.rows, s.last) for s in store.coverage(Kind.BARS, ["A"])] == [
        ("A", ROWS + 1, later),
        ("A", 1, T0),
    ]
    assert len(closes(store, symbols=("A",))) == ROWS + 1
    store.close()


def test_an_undo_that_was_overtaken_is_found_out_again(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    undone, calls = undo_after(store, monkeypatch, lambda: write(store, bar("A", T0 + M, 77)))
    assert (calls, undone.removed, undone.left) == (2, 4 * ROWS - 1, 1)
    assert undone.examples == [(Kind.BARS, Interval.M1, "A", T0 + M, 13)]
    assert [s.rows for s in store.coverage()] == [ROWS + 1, ROWS, ROWS, ROWS]
    store.close()


def test_an_undo_that_another_undo_overtook_is_a_conflict(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    undo = store.undo
    with pytest.raises(Conflict):
        undo_after(store, monkeypatch, lambda: undo("wanted"))
    assert store.head() == 13
    store.close()


@pytest.mark.parametrize("action", ["error", "full"])
@pytest.mark.parametrize("name", ["undo.planned", "undo.commits.inserted", "undo.entries.inserted"])
def test_an_undo_that_fails_changes_nothing(
    store: DuckDBStore, name: str, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [store.coverage(), store.batches(), closes(store)]
    monkeypatch.setitem(failpoints._ARMED, name, (action, 1))
    with pytest.raises(StoreFull if action == "full" else StoreError):
        store.undo("wanted")
    assert [store.coverage(), store.batches(), closes(store)] == before
    assert store.undo("wanted").removed == 4 * ROWS
    store.close()
    store = DuckDBStore(store.folder)
    assert [s.rows for s in store.coverage()] == [ROWS] * 4
    store.close()


def test_an_undo_whose_commit_failed_but_is_in_the_database_is_taken_back(store: DuckDBStore) -> None:
    before = closes(store)
    store._engine.connection.execute(
        "BEGIN; INSERT INTO undos VALUES (13, 2, 12); INSERT INTO deletes VALUES (13, 'bars', 6, 0, 0, 1); COMMIT"
    )
    store._engine._reopen()
    store.close()
    store = DuckDBStore(store.folder)
    assert closes(store) == before
    store.close()


def test_an_undo_during_a_compaction_holds_and_is_archived_by_the_next(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(name: str) -> None:
        if name == "compact.files.synced" and store.head() == 12:
            store.undo("wanted")

    with monkeypatch.context() as patch:
        patch.setattr(compactor, "failpoint", at)
        store.compact(everything=True)
    for _ in range(2):
        assert [s.rows for s in store.coverage()] == [ROWS] * 4
        assert len(closes(store)) == 4 * ROWS
        store.compact(everything=True)
    assert store.compact(everything=True).files_written == 0
    store.close()


@pytest.mark.parametrize("busy", [10, 1_000_000])
def test_an_undo_reads_busy_symbols_span_by_span(
    store: DuckDBStore, busy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "ROWS_PER_HOT_QUERY", busy)
    write(store, *(bar("A", T0 + n * D, n) for n in range(1, 91)), batch="long")
    write(store, *(bar("A", T0 + n * D, 1_000 + n) for n in range(40, 50)), batch="since")
    undone = store.undo("long")
    assert (undone.removed, undone.left, undone.commits[0].deleted) == (80, 10, 80)
    store.close()
