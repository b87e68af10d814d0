"""Loads that are interrupted, fail for a while, or run twice."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tapehouse import bulk
from tapehouse.bulk import journal
from tapehouse.bulk.base import NEWEST, Counts
from tapehouse.bulk.run import writing
from tapehouse.cli.loads.report import exit_code
from tapehouse.errors import Conflict, InvalidRequest, NotFound, NotSupported, StoreError, StoreFull, Unavailable
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Capability, Selection
from tapehouse.store.memory import MemoryStore

HEADER = "symbol,timestamp,open,high,low,close,volume"
BARS = [f"{'AB'[n % 2]},2024-01-02T{n // 120:02}:{n // 2 % 60:02}:00Z,10,12,9,11,{n}" for n in range(900)]
TRADES = [f"A,2024-01-02T14:30:{n // 100:02}Z,10.5,{100 + n % 3}" for n in range(900)]


def write(folder: Path, name: str, rows: Sequence[str], header: str = HEADER) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return folder / name


def contents(store: MemoryStore, kind: Kind = Kind.BARS) -> Any:
    interval = Interval.M1 if kind is Kind.BARS else None
    value = "volume" if kind is Kind.BARS else "size"
    columns = ("symbol", "timestamp", value, "source")
    return store.read(Selection(kind=kind, interval=interval, columns=columns)).table().to_pydict()


def options(**more: Any) -> bulk.LoadOptions:
    given: dict[str, Any] = {"block_bytes": 1_000, "batch_rows": 100, "batch": "b", "threads": 2, "retries": 2}
    return bulk.LoadOptions(**{**given, **more})


class Stopping(MemoryStore):
    """A store that asks the load to stop, or dies with an error that nobody expects, at one write."""

    def __init__(self, at: int, *, dies: bool = False, before: bool = False) -> None:
        super().__init__()
        self.stop = threading.Event()
        self._left, self._dies, self._before = at, dies, before

    def write_together(self, *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        if self._left == 0 and self._dies and self._before:
            raise KeyboardInterrupt
        written = super().write_together(*args, **kwargs)
        return self._after(written)

    def _after(self, written: Any) -> Any:
        if self._left == 0:
            self.stop.set()
            if self._dies:
                raise KeyboardInterrupt
        return written


@pytest.mark.parametrize("how", ["asked", "killed after a commit", "killed before one"])
@pytest.mark.parametrize("at", [1, 2, 4, 7])
@pytest.mark.parametrize(("kind", "rows", "header"), [
    (Kind.BARS, BARS, HEADER), (Kind.TRADES, TRADES, "symbol,timestamp,price,size")
])  # fmt: skip
def test_a_load_goes_on_where_it_was(
    kind: Kind, rows: list[str], header: str, at: int, how: str, tmp_path: Path
) -> None:
    files = [write(tmp_path / "in", "a.csv", rows[:600], header), write(tmp_path / "in", "b.csv", rows[600:], header)]
    whole = MemoryStore()
    expected = bulk.load(files, whole, options(), quarantine_dir=tmp_path / "q").totals
    store = Stopping(at, dies=how != "asked", before="before" in how)
    if how == "asked":
        first = bulk.load(files, store, options(), quarantine_dir=tmp_path / "q", stop=store.stop)
        assert (first.interrupted, first.resume) == (True, "b")
        assert first.certificate is None
    else:
        with pytest.raises(KeyboardInterrupt):
            bulk.load(files, store, options(), quarantine_dir=tmp_path / "q")
    again = bulk.load(files, store, options(batch=None, resume=NEWEST), quarantine_dir=tmp_path / "q")
    assert contents(store, kind) == contents(whole, kind)
    assert (again.batch, again.complete, again.resume) == ("b", True, None)
    assert again.certificate is not None
    assert again.certificate.rows == 900
    assert again.totals.read == expected.read == 900
    found_again = again.totals.unchanged
    assert found_again <= (200 if "after" in how else 0)
    assert again.totals.inserted + found_again == 900
    assert not store.documents(journal.FILES)


def test_what_was_settled_is_not_read_again(tmp_path: Path) -> None:
    files = [write(tmp_path / "in", name, BARS[start : start + 300]) for start, name in ((0, "a.csv"), (300, "b.csv"))]
    store = Stopping(5)
    bulk.load(files, store, options(), quarantine_dir=tmp_path / "q", stop=store.stop)
    seen: list[bulk.Progress] = []
    report = bulk.load(files, store, options(resume="b"), quarantine_dir=tmp_path / "q", progress=seen.append)
    assert seen[-1].rows < 300
    earlier = report.files[0].earlier
    assert earlier is not None
    assert earlier.inserted == 300
    assert report.totals == Counts(read=600, inserted=600, commits=report.totals.commits)


@pytest.mark.parametrize("at", [1, 3, 5, 6])
@pytest.mark.parametrize("dies", [False, True])
def test_the_reasons_of_all_runs_are_reported(at: int, dies: bool, tmp_path: Path) -> None:
    bars = [row.replace(",12,9,", ",8,9,") if n % 10 == 3 else row for n, row in enumerate(BARS)]
    bars = [row.replace(",11,", ",x,") if n % 40 == 7 else row for n, row in enumerate(bars)]
    files = [write(tmp_path / "in", "a.csv", bars[:600]), write(tmp_path / "in", "b.csv", bars[600:])]
    whole = bulk.load(files, MemoryStore(), options(), quarantine_dir=tmp_path / "whole")
    store = Stopping(at, dies=dies)
    with pytest.raises(KeyboardInterrupt) if dies else contextlib.nullcontext():
        bulk.load(files, store, options(), quarantine_dir=tmp_path / "q", stop=store.stop)
    again = bulk.load(files, store, options(batch=None, resume=NEWEST), quarantine_dir=tmp_path / "q")
    assert again.totals.quarantined == whole.totals.quarantined == 113
    for file, expected in zip(again.files, whole.files, strict=True):
        assert file.rejections == expected.rejections
        assert file.counts.quarantined == sum(each.rows for each in file.rejections)


def test_remarks_of_all_runs_are_reported(tmp_path: Path) -> None:
    files = [write(tmp_path / "in", "a.csv", [row.replace(",12,9,", ",12,-9,") for row in BARS])]
    whole = bulk.load(files, MemoryStore(), options(), quarantine_dir=tmp_path / "whole")
    assert any("(900)" in note for note in whole.files[0].notes), whole.files[0].notes
    store = Stopping(4)
    bulk.load(files, store, options(), quarantine_dir=tmp_path / "q", stop=store.stop)
    again = bulk.load(files, store, options(resume="b"), quarantine_dir=tmp_path / "q")
    assert again.files[0].notes == whole.files[0].notes


def test_the_newest_commit_of_all_runs_is_reported(tmp_path: Path) -> None:
    """Killed after its last commit: the run that resumes it makes none."""
    files = [write(tmp_path / "in", "a.csv", BARS[:100])]
    store = Stopping(1)
    first = bulk.load(files, store, options(), quarantine_dir=tmp_path / "q", stop=store.stop)
    again = bulk.load(files, store, options(resume="b"), quarantine_dir=tmp_path / "q")
    assert again.head == first.head == store.head() == 1


class Full(Stopping):
    """A store that is full from one write on, and cannot even keep documents then when it is `silent`."""

    def __init__(self, at: int, *, silent: bool = False) -> None:
        super().__init__(0)
        self.at, self._silent = at, silent

    def write_together(self, *args: Any, **kwargs: Any) -> Any:
        self.at -= 1
        self._check(self.at < 0)
        return super().write_together(*args, **kwargs)

    def put_documents(self, *args: Any, **kwargs: Any) -> Any:
        self._check(self._silent and self.at < 0)
        return super().put_documents(*args, **kwargs)

    def _check(self, full: bool) -> None:
        if full:
            raise StoreFull("no space left")


@pytest.mark.parametrize("silent", [False, True])
def test_a_load_that_ended_with_an_error_says_so(
    silent: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "in", "a.csv", BARS)
    store = Full(3, silent=silent)
    with pytest.raises(StoreFull, match="resume b to go on"):
        bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")
    (known,) = journal.loads(store)
    assert known.state == ("running" if silent else "stopped")
    assert known.updated >= known.started
    assert ("that the load b stopped could not be written down: no space left" in caplog.text) is silent
    store.at = 1_000
    assert bulk.load([path], store, options(resume="b"), quarantine_dir=tmp_path / "q").totals.read == 900
    assert journal.loads(store)[0].state == "finished"


def test_a_file_that_changed_meanwhile_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.csv", BARS)
    store = Stopping(3)
    bulk.load([path], store, options(), quarantine_dir=tmp_path / "q", stop=store.stop)
    write(tmp_path / "in", "a.csv", [row.replace(",12,9,", ",13,9,") for row in BARS])
    with pytest.raises(NotFound, match="no load of these files"):
        bulk.load([path], store, options(resume=NEWEST), quarantine_dir=tmp_path / "q")
    report = bulk.load([path], store, options(batch="c"), quarantine_dir=tmp_path / "q")
    assert report.totals.replaced >= 300
    assert report.totals.replaced + report.totals.inserted == 900


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.csv", BARS)
    store = MemoryStore()
    for resume in ("nothing", NEWEST):
        with pytest.raises(NotFound):
            bulk.load([path], store, options(resume=resume), quarantine_dir=tmp_path / "q")
    bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")
    other = write(tmp_path / "in", "b.csv", BARS[:10])
    with pytest.raises(InvalidRequest, match="came to its end, and some of these files were not in it"):
        bulk.load([path, other], store, options(resume="b"), quarantine_dir=tmp_path / "q")

    class Forgetful(MemoryStore):
        capabilities = MemoryStore.capabilities - {Capability.DOCUMENTS}

    with pytest.raises(NotSupported, match="load again"):
        bulk.load([path], Forgetful(), options(resume="b"), quarantine_dir=tmp_path / "q")
    assert bulk.load([path], Forgetful(), options(), quarantine_dir=tmp_path / "q").complete


@pytest.mark.parametrize("resume", ["b", NEWEST])
def test_of_a_load_that_came_to_its_end_nothing_is_left(resume: str, tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.csv", BARS)
    store = MemoryStore()
    bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")
    head = store.head()
    report = bulk.load([path], store, options(batch=None, resume=resume), quarantine_dir=tmp_path / "q")
    assert (report.batch, report.complete, exit_code(report, strict=True)) == ("b", True, 0)
    assert report.totals == Counts()
    assert report.files[0].notes == ["load b came to its end: nothing is left to do"]
    assert store.head() == head


def test_a_batch_that_did_not_end_is_not_begun_again(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.csv", BARS)
    store = Stopping(2)
    bulk.load([path], store, options(), quarantine_dir=tmp_path / "q", stop=store.stop)
    with pytest.raises(InvalidRequest, match="resume it"):
        bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")


def test_a_batch_can_have_several_loads(tmp_path: Path) -> None:
    store = MemoryStore()
    for name, rows in (("a.csv", BARS[:400]), ("b.csv", BARS[300:])):
        report = bulk.load([write(tmp_path, name, rows)], store, options(source="x"), quarantine_dir=tmp_path / "q")
        certified = report.certificate
        assert certified is not None
        assert certified.rows == len(rows)
        assert (certified.unchanged, certified.repeated) == (report.totals.unchanged, 0)
    assert report.totals.unchanged == 100


def test_one_file_is_not_loaded_twice_at_once(tmp_path: Path) -> None:
    paths = [write(tmp_path / "in", "a.csv", BARS), write(tmp_path / "in", "b.csv", BARS[:10])]
    errors: list[Conflict] = []

    class Busy(MemoryStore):
        def write_together(self, *args: Any, **kwargs: Any) -> Any:
            for again in (options(batch="second"), options()):
                with pytest.raises(Conflict) as caught:
                    bulk.load([tmp_path / "in" / "a.csv"], self, again, quarantine_dir=tmp_path / "q")
                errors.append(caught.value)
            bulk.load([paths[1]], MemoryStore(), options(), quarantine_dir=tmp_path / "q")
            return super().write_together(*args, **kwargs)

    store = Busy()
    bulk.load(paths[:1], store, options(batch="first", batch_rows=10_000), quarantine_dir=tmp_path / "q")
    assert "a.csv is being loaded already, by first" in errors[0].message
    assert errors[0].details["batch"] == "first"
    assert bulk.load(paths[:1], store, options(batch="third"), quarantine_dir=tmp_path / "q").totals.unchanged == 900


@pytest.mark.parametrize("batch", ["../../x", ".hidden", "", "a b", "x" * 129, "a/b", "é", "*"])
def test_a_batch_has_a_plain_name(batch: str) -> None:
    with pytest.raises(InvalidRequest, match="plain name"):
        bulk.LoadOptions(batch=batch)


class Failing(MemoryStore):
    """Fails some writes in a row, from the third on."""

    def __init__(self, failures: int, error: type[StoreError] | type[Unavailable] = StoreError) -> None:
        super().__init__()
        self.writes, self._failures, self._error = 0, failures, error

    def write_together(self, *args: Any, **kwargs: Any) -> Any:
        self.writes += 1
        if self.writes >= 3 and self._failures:
            self._failures -= 1
            raise self._error("the disk said no")
        return super().write_together(*args, **kwargs)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FIRST_WAIT_S", 0.001)


def test_a_failure_that_passes_is_not_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.csv", BARS)
    report = bulk.load([path], Failing(2, Unavailable), options(), quarantine_dir=tmp_path / "q")
    assert report.complete
    assert report.totals.inserted == 900


def test_a_batch_that_cannot_be_written_is_set_aside_and_can_be_loaded_later(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.csv", BARS)
    store = Failing(3)
    report = bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")
    [aside] = report.set_aside
    assert not report.complete
    assert (report.totals.set_aside, report.totals.inserted) == (aside.rows, 900 - aside.rows)
    assert aside.problem.message == "the disk said no"
    assert report.certificate is not None
    assert report.certificate.rows == 900 - aside.rows
    assert pq.read_table(aside.path).num_rows == aside.rows >= 100
    more = bulk.load([aside.path], store, options(batch="more", source=aside.sources[0]), quarantine_dir=tmp_path / "q")
    assert more.totals.inserted == aside.rows
    whole = MemoryStore()
    bulk.load([path], whole, options(), quarantine_dir=tmp_path / "q")
    assert contents(store) == contents(whole)


def test_a_store_that_is_gone_stops_the_load(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.csv", BARS)
    store = Failing(10_000)
    with pytest.raises(StoreError, match="resume b to go on") as caught:
        bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")
    report = msgspec.convert(caught.value.details["report"], bulk.LoadReport)
    assert len(report.set_aside) == writing.IN_A_ROW - 1
    store._failures = 0
    again = bulk.load([path], store, options(resume="b"), quarantine_dir=tmp_path / "q")
    assert again.totals.inserted + again.totals.set_aside == 900
    assert len(again.set_aside) == writing.IN_A_ROW - 1


def test_a_full_disk_is_not_tried_again(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.csv", BARS)

    class Full(MemoryStore):
        writes = 0

        def write_together(self, *args: Any, **kwargs: Any) -> Any:
            self.writes += 1
            raise StoreFull("no space left")

    store = Full()
    with pytest.raises(StoreFull, match="resume b to go on"):
        bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")
    assert store.writes == 1


def test_small_files_share_commits_and_are_told_apart(tmp_path: Path) -> None:
    for n in range(40):
        rows = [row.replace("A,", f"S{n},", 1) for row in BARS[: 2 * n + 8 : 2]]
        write(tmp_path / "in", f"S{n}.csv", rows)
    (tmp_path / "in" / "wrong.csv").write_text("")
    store = MemoryStore()
    report = bulk.load([tmp_path / "in"], store, options(batch_rows=10_000), quarantine_dir=tmp_path / "q")
    assert store.head() == 1
    counts = {each.file.name: each.counts.inserted for each in report.files}
    assert counts == {**{f"S{n}.csv": n + 4 for n in range(40)}, "wrong.csv": 0}
    assert report.resume == "b"
    table = store.read(Selection(kind=Kind.BARS, interval=Interval.M1, columns=("symbol", "source"))).table()
    assert all(row["source"] == f"file:{row['symbol']}.csv" for row in table.to_pylist())


def test_what_inspects_sees_every_good_row(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.csv", [*BARS, "A,2024-01-03T00:00:00Z,1,1,1,1,x"])
    seen: list[pa.Table] = []

    def inspect(kind: Kind, interval: Interval | None, table: pa.Table) -> None:
        assert (kind, interval) == (Kind.BARS, Interval.M1)
        seen.append(table)

    bulk.load([path], MemoryStore(), options(), quarantine_dir=tmp_path / "q", inspect=inspect)
    assert sum(table.num_rows for table in seen) == 900


def test_a_load_that_was_announced_and_killed_before_it_began_begins_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "days.csv").write_text("symbol,date,open,high,low,close,volume\nA,2024-01-02,1,2,0.5,1.5,10\n")
    store, options = MemoryStore(), bulk.LoadOptions(interval="1d")
    files = bulk.plan([tmp_path / "days.csv"], options)
    again = bulk.LoadOptions(interval="1d", resume="*")
    with pytest.raises(NotFound, match="no load of these files stopped"):
        bulk.load([], store, again, files=files, quarantine_dir=tmp_path / "q")
    journal.announce(store, files)
    report = bulk.load([], store, again, files=files, quarantine_dir=tmp_path / "q")
    assert report.totals.inserted == 1
    assert report.files[0].notes[-1].endswith("begins from the start")
    after = bulk.load([], store, again, files=files, quarantine_dir=tmp_path / "q")
    assert after.files[0].notes[-1].endswith("nothing is left to do")
