"""Duplicates and conflicts are counted by where the other row was: in the file, another file, or the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tapehouse import bulk
from tapehouse.bulk.certificate import certificate_of, certify
from tapehouse.cli.loads.report import show
from tapehouse.model import OnConflict
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore

HEADER = "symbol,timestamp,open,high,low,close,volume"
PLACES = ("in_file", "between_files", "in_store")


def bar(minute: int, close: float = 11.0) -> str:
    return f"A,2024-01-02T00:{minute:02}:00Z,10,12,9,{close},100"


def load(store: Any, folder: Path, files: dict[str, list[str]], **more: Any) -> Any:
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        (folder / name).write_text("\n".join([HEADER, *rows]) + "\n")
    options = bulk.LoadOptions(**{"block_bytes": 100, "interval": "1m", **more})
    return bulk.load([folder / name for name in files], store, options, quarantine_dir=folder / "q")


def counted(counts: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(counts, f"{name}_{place}") for place in PLACES) for name in ("duplicates", "conflicts")}


@pytest.fixture(params=["memory", "duckdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = DuckDBStore(tmp_path / "data")
    yield opened
    opened.close()


@pytest.mark.parametrize("source", [None, "vendor"], ids=["a source each", "one source"])
@pytest.mark.parametrize("batch_rows", [1_000, 7, 3, 1])
@pytest.mark.parametrize("on_conflict", [OnConflict.REPLACE, OnConflict.KEEP])
def test_what_rows_met(
    store: Any, on_conflict: OnConflict, batch_rows: int, source: str | None, tmp_path: Path
) -> None:
    load(store, tmp_path / "old", {"old.csv": [*map(bar, range(40, 44))]}, source=source)
    files = {
        "a.csv": [*map(bar, range(10)), bar(2), bar(40), bar(41, 10)],
        "b.csv": [*map(bar, range(10, 20)), bar(12), bar(13, 10), bar(3), bar(42), bar(4, 10)],
        "c.csv": [bar(30), bar(15), bar(16, 10)],
    }
    report = load(
        store, tmp_path / "in", files, batch="b", batch_rows=batch_rows, source=source, on_conflict=on_conflict
    )
    assert [counted(file.counts) for file in report.files] == [
        {"duplicates": (1, 0, 1), "conflicts": (0, 0, 1)},
        {"duplicates": (1, 1, 1), "conflicts": (1, 1, 0)},
        {"duplicates": (0, 1, 0), "conflicts": (0, 1, 0)},
    ]
    assert counted(report.totals) == {"duplicates": (2, 2, 2), "conflicts": (1, 2, 1)}
    assert certificate_of(store, "b").counts == report.totals
    certified, standing = report.certificate, certify(store, "b").standing
    assert certified is not None
    assert standing is not None
    assert certified.rows - certified.unchanged == standing.written
    assert standing.written - certified.lost == standing.current


def test_the_summary_says_it(store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(load(store, tmp_path / "in", {"a.csv": [bar(0), bar(0), bar(1)], "b.csv": [bar(0), bar(1, 10)]}))
    said = capsys.readouterr().out.splitlines()
    assert "duplicates, rows whose key another has with the same values: 1 inside one file, 1 between files" in said
    assert "conflicts, rows whose key another has with other values: 1 between files" in said
    assert "certified: 1 series, 5 rows are kept as they were read: 2 current, 2 lost to other rows, 1 repeated" in said


def test_the_summary_tells_what_is_current_from_what_was_there(
    store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(store, tmp_path / "in", {"a.csv": [bar(0), bar(1)]})
    show(load(store, tmp_path / "in", {"a.csv": [bar(0), bar(1), bar(2)]}))
    said = "certified: 1 series, 3 rows are kept as they were read: 1 current, 2 there before"
    assert said in capsys.readouterr().out.splitlines()
