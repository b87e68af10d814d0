"""A folder that an earlier version wrote, opened by this one.

`format-N.zip` holds a folder in which the program of format N has taken `steps`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.contract.stores import T0, M, bar, closes, read, trade, trades, write

from tapehouse.model import Instrument, Interval, Kind, OnConflict
from tapehouse.store.base import Capability
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.folder import FORMAT, read_format
from tapehouse.store.memory import MemoryStore

OLD = sorted(Path(__file__).parent.glob("format-*.zip"))


def steps(store: Any) -> None:
    """Archived and hot rows, corrections, losers, deletes and instruments, in batches."""
    write(store, *(bar(s, T0 + n * M, n) for s in "ABC" for n in range(50)), source="x", batch="first")
    write(store, *(bar("A", T0 + n * M, 100 + n) for n in range(10, 20)), source="y", batch="second")
    write(store, bar("B", T0, 7), source="y", on_conflict=OnConflict.KEEP, batch="second")
    store.delete(Kind.BARS, ["C"], interval=Interval.M1, start=T0, end=T0 + 30 * M, batch="second")
    store.put_instruments([Instrument(pattern="*", calendar="24/5")])
    if Capability.COMPACTS in store.capabilities:
        store.compact(everything=True)
    store.write(Kind.TRADES, trades(trade("A", T0, 1, id="7"), trade("A", T0, 1)), source="x", batch="first")
    write(store, *(bar("A", T0 + n * M, 200 + n) for n in range(45, 60)), source="x", batch="third")
    store.delete(Kind.BARS, ["B"], interval=Interval.M1, end=T0 + 10 * M, batch="third")


def contents(store: Any) -> dict[str, Any]:
    """Everything that can be seen of it."""
    return {
        "coverage": store.coverage(),
        "instruments": store.instruments(),
        "batches": [(b.name, b.commits, b.inserted, b.deleted, b.undone_by, b.undoes) for b in store.batches()],
        "bars": [closes(store, as_of=commit) for commit in range(store.head() + 1)],
        "bars of y": closes(store, source="y"),
        "trades": read(store, "price", "id", "ordinal", "source", kind=Kind.TRADES),
    }


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.stem)
def test_a_folder_of_an_earlier_format_is_upgraded(old: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    zipfile.ZipFile(old).extractall(folder)
    before = read_format(folder)
    reference = MemoryStore()
    steps(reference)
    store = DuckDBStore(folder)
    assert before is not None
    assert before < FORMAT == read_format(folder)
    assert contents(store) == contents(reference)
    for change in (
        lambda one: one.undo("second"),
        lambda one: one.put_documents("loads", {"first": b"done"}),
        lambda one: one.undo("first"),
        lambda one: one.undo("undo-second"),
    ):
        change(store)
        change(reference)
        assert contents(store) == contents(reference)
    store.compact(everything=True)
    store.close()
    store = DuckDBStore(folder)
    assert contents(store) == contents(reference)
    assert store.documents("loads") == {"first": b"done"}
    store.close()


def test_there_is_a_folder_of_every_earlier_format() -> None:
    assert [path.stem for path in OLD] == [f"format-{number}" for number in range(1, FORMAT)]
