"""What a load that refuses conflicts says: which files differ, where, in what, and how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tapehouse import bulk
from tapehouse.errors import Conflict
from tapehouse.model import Kind, OnConflict
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore

HEADER = "symbol,timestamp,open,high,low,close,volume"
TRADES = "symbol,timestamp,price,size,id"
APART = "what was stored before this load is not involved"


@pytest.fixture(params=["memory", "duckdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = DuckDBStore(tmp_path / "data")
    yield opened
    opened.close()


def bar(minute: int, close: float = 11.0) -> str:
    return f"A,2024-01-02T00:{minute:02}:00Z,10,12,9,{close},100"


def load(store: Any, folder: Path, files: dict[str, list[str]], header: str = HEADER, **more: Any) -> Any:
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        if rows:
            (folder / name).write_text("\n".join([header, *rows]) + "\n")
    options = bulk.LoadOptions(**{"on_conflict": OnConflict.ERROR, "batch": "b", "block_bytes": 200, **more})
    paths = [folder / name for name in files]
    return bulk.load(paths, store, options, quarantine_dir=folder / "q")


def refused(*args: Any, **more: Any) -> str:
    with pytest.raises(Conflict) as caught:
        load(*args, **more)
    return caught.value.message


@pytest.mark.parametrize("batch_rows", [1_000, 4], ids=["in one commit", "commits apart"])
def test_rows_of_one_file_differ(store: Any, batch_rows: int, tmp_path: Path) -> None:
    rows = [*map(bar, range(20)), bar(3, 10.5)]
    said = refused(store, tmp_path / "in", {"a.csv": rows}, batch_rows=batch_rows)
    assert said.startswith("a.csv has two rows that differ: A at 2024-01-02T00:03:00Z: close 1")
    assert APART in said
    assert "resume b to go on with another on_conflict: replace" in said
    report = load(store, tmp_path / "in", {"a.csv": []}, resume="b", on_conflict=OnConflict.REPLACE)
    assert report.complete


@pytest.mark.parametrize("batch_rows", [1_000, 4], ids=["in one commit", "commits apart"])
def test_rows_of_two_files_differ(store: Any, batch_rows: int, tmp_path: Path) -> None:
    files = {"a.csv": [*map(bar, range(10))], "b.csv": [*map(bar, range(10, 20)), bar(3, 10.5)]}
    said = refused(store, tmp_path / "in", files, batch_rows=batch_rows)
    either = ("a.csv and b.csv", "11.0 and 10.5"), ("b.csv and a.csv", "10.5 and 11.0")
    where = "have rows that differ: A at 2024-01-02T00:03:00Z: close"
    assert any(said.startswith(f"{names} {where} {values};") for names, values in either), said
    assert APART in said


def test_files_that_differ_in_nothing_but_where_they_are_from(store: Any, tmp_path: Path) -> None:
    said = refused(store, tmp_path / "in", {"a.csv": [bar(0)], "b.csv": [bar(0)]}, interval="1m")
    assert "rows that differ: A at 2024-01-02T00:00:00Z: source file:" in said


def test_trades_of_one_id_differ(store: Any, tmp_path: Path) -> None:
    rows = ["A,2024-01-02T14:30:00Z,10,1,x", "A,2024-01-02T14:30:00Z,10,7,y", "A,2024-01-02T14:30:00Z,10,2,x"]
    said = refused(store, tmp_path / "in", {"a.csv": rows}, TRADES, kind=Kind.TRADES)
    assert "a.csv has two rows that differ: A at 2024-01-02T14:30:00Z: size " in said
    assert "7" not in said.partition("size ")[2].partition(";")[0]


def test_what_is_stored_differs(store: Any, tmp_path: Path) -> None:
    load(store, tmp_path / "old", {"a.csv": [bar(3, 10.5)]}, batch="old", source="x", interval="1m")
    said = refused(store, tmp_path / "in", {"a.csv": [*map(bar, range(10))]}, source="y")
    expected = "a.csv differs from what is stored: A at 2024-01-02T00:03:00Z: close 11.0 and 10.5; stored from x"
    assert said.startswith(expected)
    assert APART not in said
