"""Exports that did not come to their end, folders that hold something already, and disks that are full."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.export.parts import T0, Held, bars, filled, read_file, stored

from tapehouse.errors import Conflict, NotFound, StoreFull, Unavailable
from tapehouse.export import files, journal
from tapehouse.export.base import MANIFEST, UNFINISHED, Existing, ExportOptions, FileEntry, Manifest, Partition
from tapehouse.export.run import export
from tapehouse.export.verify import verify
from tapehouse.model import Interval, Kind
from tapehouse.query.base import Request

BY_MONTH = ExportOptions(partition=(Partition.SYMBOL, Partition.MONTH))


class Failing(Held):
    """A source whose answers break off after some batches, all in all."""

    def __init__(self, store: Any, batches: int) -> None:
        super().__init__(store)
        self.left = batches

    @contextmanager
    def rows(self, request: Request) -> Iterator[Any]:
        with super().rows(request) as rows:
            yield SimpleNamespace(schema=rows.schema, commit=rows.commit, batches=self._some(rows, request))

    def _some(self, rows: Any, request: Request) -> Iterator[pa.RecordBatch]:
        for batch in rows.batches:
            for row in range(0, batch.num_rows, 7):
                if request.limit is None:
                    self.left -= 1
                    if self.left < 0:
                        raise Unavailable("cut off")
                yield batch.slice(row, 7)


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def same_files(one: Manifest, two: Manifest) -> bool:
    def plain(files: tuple[FileEntry, ...]) -> list[tuple[str, str]]:
        return [(file.path, file.sha256) for file in files]

    return plain(one.files) == plain(two.files) and one.content == two.content and one.rows == two.rows


@pytest.mark.parametrize(
    "options", [ExportOptions(), BY_MONTH, ExportOptions(partition=()), ExportOptions(format="csv.gz")]
)
def test_an_export_that_breaks_off_anywhere_goes_on(tmp_path: Path, options: ExportOptions) -> None:
    store = filled()
    whole = export(Held(store), tmp_path / "whole", options, threads=1)
    for batches in range(0, 40, 3):
        folder = tmp_path / str(batches)
        try:
            export(Failing(store, batches), folder, options, threads=2)
        except Unavailable:
            assert (folder / UNFINISHED).exists()
            assert not (folder / MANIFEST).exists()
            left = names_in(folder) - {UNFINISHED}
            assert left <= {file.path for file in whole.files}, "nothing half-written is left"
            for file in whole.files:
                if file.path in left:
                    assert files.digest_of(folder / file.path).sha256 == file.sha256
            assert not verify(folder).ok
            assert same_files(export(Held(store), folder, existing=Existing.RESUME), whole)
        assert names_in(folder) == {MANIFEST, *(file.path for file in whole.files)}
        assert verify(folder).ok


def test_resuming_is_of_the_same_commit_and_writes_no_file_twice(tmp_path: Path) -> None:
    store = filled()
    before = stored(store, Kind.BARS, Interval.M1)
    with pytest.raises(Unavailable):
        export(Failing(store, 16), tmp_path, BY_MONTH, threads=1)
    there = {name: (tmp_path / name).stat().st_mtime_ns for name in names_in(tmp_path) - {UNFINISHED}}
    assert there
    store.write(Kind.BARS, bars("AAPL", [T0], close=[100.5]), interval=Interval.M1)
    store.delete(Kind.BARS, ["CON"], interval=Interval.M1)
    manifest = export(Held(store), tmp_path, existing=Existing.RESUME)
    assert manifest.commit == store.head() - 2
    found = [row for file in manifest.files if file.interval is Interval.M1 for row in read_file(tmp_path / file.path)]
    assert sorted(found, key=lambda row: (row["symbol"], row["timestamp"])) == before
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in there} == there


def test_resuming_is_of_the_same_export_and_store(tmp_path: Path) -> None:
    store = filled()
    with pytest.raises(Unavailable):
        export(Failing(store, 5), tmp_path, BY_MONTH)
    with pytest.raises(Conflict, match="unfinished"):
        export(Held(store), tmp_path, BY_MONTH)
    with pytest.raises(Conflict, match="another one"):
        export(Held(store), tmp_path, ExportOptions(format="csv"), existing=Existing.RESUME)
    with pytest.raises(Conflict, match="another store"):
        export(Held(filled()), tmp_path, existing=Existing.RESUME)
    manifest = export(Held(store), tmp_path, BY_MONTH, existing=Existing.RESUME)
    assert export(Held(store), tmp_path, existing=Existing.RESUME) == manifest
    with pytest.raises(Conflict, match="another export"):
        export(Held(store), tmp_path, ExportOptions(format="csv"), existing=Existing.RESUME)
    with pytest.raises(NotFound, match="no unfinished export"):
        export(Held(store), tmp_path / "new", existing=Existing.RESUME)


def test_a_whole_file_that_was_lost_since_is_written_again(tmp_path: Path) -> None:
    store = filled()
    whole = export(Held(store), tmp_path / "whole", BY_MONTH)
    with pytest.raises(Unavailable):
        export(Failing(store, 25), tmp_path / "out", BY_MONTH, threads=1)
    lost = sorted(names_in(tmp_path / "out") - {UNFINISHED})
    (tmp_path / "out" / lost[0]).unlink()
    (tmp_path / "out" / lost[1]).write_bytes(b"x")
    assert same_files(export(Held(store), tmp_path / "out", existing=Existing.RESUME), whole)


def test_nothing_is_overwritten_without_being_told(tmp_path: Path) -> None:
    store = filled()
    first = export(Held(store), tmp_path, ExportOptions(symbols=("AAPL",)))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(Conflict, match="--overwrite"):
        export(Held(store), tmp_path)
    assert verify(tmp_path).ok
    second = export(Held(store), tmp_path, ExportOptions(symbols=("CON",)), existing=Existing.OVERWRITE)
    assert names_in(tmp_path) == {MANIFEST, "mine.txt", *(file.path for file in second.files)}
    assert not {file.path for file in first.files} & {file.path for file in second.files}


def test_files_that_no_export_wrote_are_left_alone(tmp_path: Path) -> None:
    store = filled()
    (tmp_path / "bars_1m").mkdir()
    mine = tmp_path / "bars_1m" / "AAPL_1m.parquet"
    mine.write_text("mine")
    with pytest.raises(Conflict, match="bars_1m"):
        export(Held(store), tmp_path)
    assert names_in(tmp_path) == {"bars_1m/AAPL_1m.parquet"}
    assert mine.read_text() == "mine"
    export(Held(store), tmp_path, existing=Existing.OVERWRITE)
    assert verify(tmp_path).ok


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    class Meddled(Held):
        def rows(self, request: Request) -> Any:
            if request.limit is None:
                (tmp_path / "bars_1m").mkdir(exist_ok=True)
                (tmp_path / "bars_1m" / "AAPL_1m.parquet").write_text("mine")
            return super().rows(request)

    with pytest.raises(Conflict, match="AAPL_1m"):
        export(Meddled(filled()), tmp_path, ExportOptions(intervals=(Interval.M1,)))
    assert (tmp_path / "bars_1m" / "AAPL_1m.parquet").read_text() == "mine"


def test_overwriting_that_breaks_off_is_unfinished_and_goes_on(tmp_path: Path) -> None:
    store = filled()
    export(Held(store), tmp_path, ExportOptions(format="csv"))
    with pytest.raises(Unavailable):
        export(Failing(store, 9), tmp_path, existing=Existing.OVERWRITE)
    assert not (tmp_path / MANIFEST).exists()
    with pytest.raises(Unavailable):
        export(Failing(store, 12), tmp_path, BY_MONTH, existing=Existing.OVERWRITE)
    manifest = export(Held(store), tmp_path, existing=Existing.RESUME)
    assert manifest.options == BY_MONTH
    assert names_in(tmp_path) == {MANIFEST, *(file.path for file in manifest.files)}


def test_two_exports_to_one_folder(tmp_path: Path) -> None:
    store = filled()

    class Second(Held):
        def rows(self, request: Request) -> Any:
            if request.limit is None:
                for existing in Existing:
                    with pytest.raises(Conflict, match="another process"):
                        export(Held(store), tmp_path, existing=existing)
            return super().rows(request)

    assert export(Second(store), tmp_path, threads=1).rows
    assert verify(tmp_path).ok


def test_a_journal_whose_last_line_was_cut_off(tmp_path: Path) -> None:
    store = filled()
    with pytest.raises(Unavailable):
        export(Failing(store, 20), tmp_path, BY_MONTH, threads=1)
    text = (tmp_path / UNFINISHED).read_bytes()
    for end in (len(text) - 1, len(text) - 30, text.index(b"\n") + 1):
        (tmp_path / UNFINISHED).write_bytes(text[:end])
    with pytest.raises(Conflict, match="is there already"):
        # A file that the journal does not name may be anybody's.
        export(Held(store), tmp_path, existing=Existing.RESUME)
    export(Held(store), tmp_path, existing=Existing.OVERWRITE)
    assert verify(tmp_path).ok


@pytest.mark.parametrize("call", ["write_part", "append", "part_replace", "write_text"])
def test_killed_at_any_step(tmp_path: Path, call: str) -> None:
    store = filled()
    whole = export(Held(store), tmp_path / "whole", BY_MONTH)
    for count in (1, 2, 9):
        folder = tmp_path / f"{call}-{count}"
        child = multiprocessing.get_context("fork").Process(target=_killed, args=(store, folder, call, count))
        child.start()
        child.join(60)
        if child.exitcode == 0:
            continue
        assert child.exitcode == -signal.SIGKILL
        assert not (folder / MANIFEST).exists()
        assert not verify(folder).ok if (folder / UNFINISHED).exists() else True
        existing = Existing.RESUME if (folder / UNFINISHED).stat().st_size else Existing.REFUSE
        assert same_files(export(Held(store), folder, BY_MONTH, existing=existing), whole)
        assert names_in(folder) == {MANIFEST, *(file.path for file in whole.files)}


def _killed(store: Any, folder: Path, call: str, count: int) -> None:
    """An export whose process kills itself before and, when it comes by again, after the call."""
    left = [count]
    place, name = {
        "write_part": ("tapehouse.export.writing", "write_part"),
        "append": ("tapehouse.export.journal", "append"),
        "part_replace": ("tapehouse.export.journal", "part_of"),
        "write_text": ("tapehouse.export.journal", "write_text"),
    }[call]
    module = __import__(place, fromlist=[name])
    real = getattr(module, name)

    def stopping(*args: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    setattr(module, name, stopping)
    export(Held(store), folder, BY_MONTH, threads=1)
    os._exit(0)


@pytest.mark.parametrize("format_", ["parquet", "arrow", "csv", "jsonl.gz", "csv.zip", "csv.xz", "csv.zst"])
def test_a_full_disk_stops_it_and_leaves_no_half_file(
    tmp_path: Path, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, left = filled(), [1_000]
    write = files.Sink.write

    def full(sink: files.Sink, data: Any) -> int:
        left[0] -= len(memoryview(data).cast("B"))
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(sink, data)

    options = ExportOptions(format=format_)
    with monkeypatch.context() as patched:
        patched.setattr(files.Sink, "write", full)
        with pytest.raises(StoreFull, match="--resume"):
            export(Held(store), tmp_path, options)
    assert not [name for name in names_in(tmp_path) if "part" in name]
    export(Held(store), tmp_path, existing=Existing.RESUME)
    assert verify(tmp_path).ok


def test_a_journal_that_cannot_be_written_to_is_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"before\n")
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:10])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            journal.append(fd, journal.Done(series="bars 1m", symbols=("A",)))
    os.close(fd)
    assert path.read_bytes() == b"before\n"


def test_a_stores_own_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "owner.lock").touch()
    for folder in (tmp_path, tmp_path / "archive" / "out"):
        with pytest.raises(Conflict, match="data folder"):
            export(Held(filled()), folder)
    assert names_in(tmp_path) == {"owner.lock"}
