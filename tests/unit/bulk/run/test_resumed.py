"""What a resumed load makes of files that were written since, of commits that nobody wrote down, and of undone ones."""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bulk.test_resume import BARS, Stopping, contents, options, write

from tapehouse import bulk
from tapehouse.bulk import journal
from tapehouse.bulk.base import NEWEST, FileReport, LoadReport
from tapehouse.bulk.certificate import certificate_of, certify
from tapehouse.errors import InvalidRequest, NotFound, NotSupported
from tapehouse.store.duckdb import DuckDBStore
from tapehouse.store.memory import MemoryStore

PADDING = "x" * 200
WIDE = "symbol,timestamp,open,high,low,close,volume,remark"
LONG = [f"{row},{PADDING}" for row in BARS]
"""Rows of a file of which a fingerprint by its ends does not tell all."""


def interrupted(files: list[Path], at: int, folder: Path, **how: bool) -> Stopping:
    store = Stopping(at, **how)
    if how:
        with pytest.raises(KeyboardInterrupt):
            bulk.load(files, store, options(block_bytes=10_000), quarantine_dir=folder)
    else:
        bulk.load(files, store, options(block_bytes=10_000), quarantine_dir=folder, stop=store.stop)
    return store


def touched(path: Path, text: str | None = None) -> None:
    path.write_text(path.read_text() if text is None else text)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))


def resumed(
    files: list[Path],
    store: MemoryStore,
    folder: Path,
    seen: Callable[[Any], None] | None = None,
    resume: str = NEWEST,
) -> LoadReport:
    how = options(batch=None, resume=resume, block_bytes=10_000)
    return bulk.load(files, store, how, quarantine_dir=folder, progress=seen)


def adds_up(report: LoadReport, store: Any) -> None:
    """With what the store says of the batch, with itself, and with what is certified."""
    totals, commits = report.totals, [each for each in store.commits() if each.batch == report.batch]
    for name in ("inserted", "replaced", "rejected"):
        assert getattr(totals, name) == sum(getattr(each, name) for each in commits), name
    assert totals.commits == len(commits)
    assert totals.read == (
        totals.inserted + totals.replaced + totals.unchanged + totals.rejected + totals.quarantined + totals.set_aside
    )
    assert totals.read == sum(each.counts.read for each in report.files)
    assert certificate_of(store, report.batch).counts == totals
    assert certify(store, report.batch).disagreeing == []


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("at", [2, 4, 7])
def test_a_file_that_was_written_again_with_the_same_content_goes_on(at: int, dies: bool, tmp_path: Path) -> None:
    files = [
        write(tmp_path / "in", "a.csv", LONG[:400], WIDE),
        write(tmp_path / "in", "b.csv", LONG[400:], WIDE),
    ]
    store = interrupted(files, at, tmp_path / "q", **({"dies": True} if dies else {}))
    for path in files:
        touched(path)
    report = resumed(files, store, tmp_path / "q")
    assert report.complete
    assert (report.totals.read, report.totals.inserted, report.totals.unchanged) == (900, 900, 0)
    assert not any(file.notes[1:] for file in report.files), [file.notes for file in report.files]
    adds_up(report, store)
    assert store.documents(journal.FILES) == {}


def test_what_was_settled_of_a_file_that_was_written_again_is_read_but_not_loaded(tmp_path: Path) -> None:
    files = [write(tmp_path / "in", "a.csv", LONG, WIDE)]
    store, seen = interrupted(files, 5, tmp_path / "q"), list[bulk.Progress]()
    touched(files[0])
    report = resumed(files, store, tmp_path / "q", seen.append)
    assert report.files[0].earlier is not None
    assert seen[-1].rows == 900 - report.files[0].earlier.read


def test_a_file_that_is_somewhere_else_now_goes_on(tmp_path: Path) -> None:
    """As one that is uploaded again: another folder, another time."""
    files = [write(tmp_path / "in", "a.csv", LONG, WIDE)]
    store = interrupted(files, 5, tmp_path / "q")
    moved = write(tmp_path / "spool", "a.csv", LONG, WIDE)
    touched(moved)
    report = resumed([moved], store, tmp_path / "q")
    assert (report.complete, report.totals.inserted, report.totals.unchanged) == (True, 900, 0)
    adds_up(report, store)


@pytest.mark.parametrize("where", [10, 450, 880])
def test_a_file_with_other_content_is_read_anew_and_certified(where: int, tmp_path: Path) -> None:
    """In its middle, its size and its ends stay what they were."""
    bad = [row.replace(",12,9,", ",8,9,") if n % 50 == 3 else row for n, row in enumerate(LONG)]
    files = [write(tmp_path / "in", "a.csv", bad, WIDE)]
    store = interrupted(files, 6, tmp_path / "q")
    changed = [row.replace(",10,12,", ",11,12,") if abs(n - where) < 5 else row for n, row in enumerate(bad)]
    touched(files[0], "\n".join([WIDE, *changed]) + "\n")
    report = resumed(files, store, tmp_path / "q", resume="b")
    assert report.complete
    assert report.totals.quarantined == 18
    notes = [note for file in report.files for note in file.notes]
    assert any("stay in the store" in note for note in notes), notes
    adds_up(report, store)
    fresh = MemoryStore()
    bulk.load(files, fresh, options(), quarantine_dir=tmp_path / "q")
    assert contents(store) == contents(fresh)
    assert store.documents(journal.FILES) == {}


def test_a_file_that_is_missing_when_its_load_goes_on_is_said_and_the_rest_certified(tmp_path: Path) -> None:
    files = [write(tmp_path / "in", "a.csv", LONG[:400], WIDE), write(tmp_path / "in", "b.csv", LONG[400:], WIDE)]
    store = interrupted(files, 2, tmp_path / "q")
    report = resumed(files[1:], store, tmp_path / "q")
    [problem] = [file.problem for file in report.files if file.problem is not None]
    assert "a.csv is not among the files any more" in problem.message
    assert not report.complete
    adds_up(report, store)
    assert report.resume == "b"
    whole = resumed(files, store, tmp_path / "q")
    assert whole.complete
    assert (whole.totals.read, whole.totals.inserted) == (900, 900)
    adds_up(whole, store)


def test_two_files_of_one_content_are_told_apart(tmp_path: Path) -> None:
    files = [write(tmp_path / name, "a.csv", LONG, WIDE) for name in ("one", "two")]
    store = Stopping(12)
    how = options(source="s")
    bulk.load(files, store, how, quarantine_dir=tmp_path / "q", stop=store.stop)
    report = bulk.load(files, store, options(source="s", resume="b"), quarantine_dir=tmp_path / "q")
    assert (report.totals.read, report.totals.inserted, report.totals.unchanged) == (1800, 900, 900)
    adds_up(report, store)


@pytest.mark.parametrize("how", [{}, {"on_conflict": "keep"}, {"on_conflict": "prefer", "prefer": ("old",)}])
@pytest.mark.parametrize("at", range(1, 9))
def test_commits_that_a_killed_run_could_not_write_down_are_counted_as_made(
    at: int, how: dict[str, Any], tmp_path: Path
) -> None:
    rows = [row.replace(",12,9,", ",8,9,") if n % 10 == 3 else row for n, row in enumerate(BARS)]
    before, new = MemoryStore(), [*rows[:450], *rows[400:430], *rows[450:]]
    old = write(tmp_path / "old", "a.csv", [row.replace(",10,12,", ",9.5,12,") for row in rows[100:200]])
    files = [write(tmp_path / "in", "a.csv", new[:600]), write(tmp_path / "in", "b.csv", new[600:])]
    bulk.load([old], before, options(batch="old", source="old"), quarantine_dir=tmp_path / "q")
    whole = bulk.load(files, before, options(**how), quarantine_dir=tmp_path / "q")
    store = Stopping(at + 1, dies=True)
    bulk.load([old], store, options(batch="old", source="old", batch_rows=10_000), quarantine_dir=tmp_path / "q")
    with pytest.raises(KeyboardInterrupt):
        bulk.load(files, store, options(**how), quarantine_dir=tmp_path / "q")
    report = bulk.load(files, store, options(batch=None, resume=NEWEST, **how), quarantine_dir=tmp_path / "q")
    adds_up(report, store)
    assert (whole.totals.rejected if how else whole.totals.replaced) > 0
    for name in ("read", "quarantined", "inserted", "replaced", "unchanged", "rejected"):
        assert getattr(report.totals, name) == getattr(whole.totals, name), name


def test_a_load_that_is_killed_again_and_again_is_counted_once(tmp_path: Path) -> None:
    files = [write(tmp_path / "in", "a.csv", BARS)]
    store, batch = MemoryStore(), "b"
    for rows in (300, 70, 110):
        dying = Stopping(2, dies=True)
        for name, value in store.__dict__.items():
            if name not in ("stop", "_left", "_dies", "_before"):
                dying.__dict__[name] = value
        store = dying
        how = options(batch=batch, batch_rows=rows, resume=NEWEST if rows < 300 else None)
        with pytest.raises(KeyboardInterrupt):
            bulk.load(files, store, how, quarantine_dir=tmp_path / "q")
    report = bulk.load(files, store, options(resume="b"), quarantine_dir=tmp_path / "q")
    adds_up(report, store)
    assert (report.totals.inserted, report.totals.unchanged) == (900, 0)


def test_the_name_of_an_undone_batch_is_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / "in", "a.csv", BARS)]
    store = DuckDBStore(tmp_path / "data")
    bulk.load(files, store, options(), quarantine_dir=tmp_path / "q")
    undo = store.undo("b").commits[0].batch
    with pytest.raises(InvalidRequest, match=f"batch b was undone by {undo}.*another name"):
        bulk.load(files, store, options(), quarantine_dir=tmp_path / "q")
    with pytest.raises(InvalidRequest, match=f"undone by {undo}"):
        bulk.load(files, store, options(batch=None, resume="b"), quarantine_dir=tmp_path / "q")
    assert bulk.load(files, store, options(batch="c"), quarantine_dir=tmp_path / "q").totals.inserted == 900
    store.close()


@pytest.mark.parametrize("resume", [NEWEST, "b"])
def test_a_load_that_was_undone_does_not_go_on(resume: str, tmp_path: Path) -> None:
    files = [write(tmp_path / "in", "a.csv", BARS)]
    store, stop = DuckDBStore(tmp_path / "data"), threading.Event()
    seen = lambda told: stop.set() if told.rows > 300 else None  # noqa: E731
    bulk.load(files, store, options(), quarantine_dir=tmp_path / "q", progress=seen, stop=stop)
    undo = store.undo("b").commits[0].batch
    with pytest.raises(InvalidRequest, match=f"undone by {undo}"):
        bulk.load(files, store, options(batch=None, resume=resume), quarantine_dir=tmp_path / "q")
    assert store.head() == max(each.number for each in store.commits())
    store.undo(undo)
    report = bulk.load(files, store, options(batch=None, resume=resume), quarantine_dir=tmp_path / "q")
    assert report.complete
    store.close()


def quarantined(folder: Path) -> list[list[str]]:
    found = []
    for path in folder.rglob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert header == ["file", "line", "reason", "row"]
        found += rows
    return sorted(found)


@pytest.mark.parametrize("damage", [None, "shortened", "removed"])
@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("at", range(1, 7))
def test_bad_rows_are_in_quarantine_once(at: int, dies: bool, damage: str | None, tmp_path: Path) -> None:
    rows = [row.replace(",12,9,", ",8,9,") if n % 10 == 3 else row for n, row in enumerate(BARS)]
    files = [write(tmp_path / "in", "a.csv", rows[:500]), write(tmp_path / "in" / "x", "a.csv", rows[500:])]
    bulk.load(files, MemoryStore(), options(), quarantine_dir=tmp_path / "whole")
    whole = quarantined(tmp_path / "whole")
    store = Stopping(at, dies=dies)
    first = tmp_path / "q" / "b" / "in_a.csv.csv"
    first.parent.mkdir(parents=True)
    first.write_text("file,line,reason,row\nanother,1,load's,row\n")
    if dies:
        with pytest.raises(KeyboardInterrupt):
            bulk.load(files, store, options(), quarantine_dir=tmp_path / "q")
    else:
        bulk.load(files, store, options(), quarantine_dir=tmp_path / "q", stop=store.stop)
    for path in first.parent.glob("*.csv") if damage else ():
        if path != first:
            path.unlink() if damage == "removed" else os.truncate(path, path.stat().st_size // 2)
    report = bulk.load(files, store, options(batch=None, resume=NEWEST), quarantine_dir=tmp_path / "q")
    assert first.read_text().endswith("another,1,load's,row\n")
    first.unlink()
    assert quarantined(tmp_path / "q") == whole
    assert report.totals.quarantined == len(whole) > 0
    assert [len(quarantined_of(file)) for file in report.files] == [file.counts.quarantined for file in report.files]
    adds_up(report, store)


@pytest.mark.parametrize("at", [1, 3, 5])
def test_bad_rows_of_a_file_that_changed_are_those_that_it_has_now(at: int, tmp_path: Path) -> None:
    rows = [row.replace(",12,9,", ",8,9,") if n % 10 == 3 else row for n, row in enumerate(BARS)]
    files = [write(tmp_path / "in", "a.csv", rows)]
    store = Stopping(at, dies=True)
    with pytest.raises(KeyboardInterrupt):
        bulk.load(files, store, options(), quarantine_dir=tmp_path / "q")
    write(tmp_path / "in", "a.csv", [*BARS[:450], *rows[450:]])
    report = bulk.load(files, store, options(batch=None, resume="b"), quarantine_dir=tmp_path / "q")
    kept = quarantined(tmp_path / "q")
    assert len(kept) == report.totals.quarantined == 45
    assert len(list((tmp_path / "q").rglob("*.csv"))) == 1
    assert all(int(line) > 451 for _, line, _, _ in kept)


def quarantined_of(file: FileReport) -> list[str]:
    return [] if file.quarantine is None else Path(file.quarantine).read_text().splitlines()[1:]


NEWER = b'{"batch":"b","state":"running","started":1,"updated":1,"first":0,"files":[],"block_bytes":1,"format":99}'


@pytest.mark.parametrize("key", ["", "file", "load"])
@pytest.mark.parametrize("document", [b"{}", b'{"batch": 1', b"\xff", NEWER])
def test_what_another_version_wrote_down_is_not_gone_on_with(key: str, document: bytes, tmp_path: Path) -> None:
    files = [write(tmp_path / "in", "a.csv", LONG, WIDE)]
    store = interrupted(files, 3, tmp_path / "q")
    [(name, whole)] = [(name, said) for name, said in store.documents(journal.FILES).items() if name != "b/"]
    if key == "load":
        store.put_documents(journal.LOADS, {"b": document})
    elif key == "file":
        store.put_documents(journal.FILES, {name: whole[: len(document)] + document})
    else:
        store.put_documents(journal.FILES, {"b/": document + b"!"})
    with pytest.raises(NotSupported, match=r"load b cannot be read by this version.* under another name"):
        bulk.load(files, store, options(batch=None, resume="b"), quarantine_dir=tmp_path / "q")
    if key == "load":
        with pytest.raises(NotFound, match="load them without resuming"):
            resumed(files, store, tmp_path / "q")
    report = bulk.load(files, store, options(batch="c"), quarantine_dir=tmp_path / "q")
    assert report.totals.read == report.totals.inserted + report.totals.unchanged == 900
