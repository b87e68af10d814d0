"""Loads as jobs, with the real loader: which files they may read, and what is left of an upload."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tapehouse import bulk
from tapehouse.bulk.base import Cell, Counts, Description, FileReport, LoadOptions, LoadReport, Problem, RecognisedFile
from tapehouse.bulk.certificate import certify
from tapehouse.bulk.checked import check_stored
from tapehouse.bulk.checks.base import Assessment
from tapehouse.bulk.recognise.known import sent_descriptions
from tapehouse.errors import Forbidden, InvalidRequest
from tapehouse.jobs import loads
from tapehouse.jobs.base import Control, Ended, Job, LoadRequest, State
from tapehouse.jobs.loads import LoadJobs
from tapehouse.jobs.runner import Runner
from tapehouse.jobs.spool import Spool
from tapehouse.model import Interval, Kind
from tapehouse.store.memory import MemoryStore

PATIENCE_S = 20.0
ROWS = "symbol,date,open,high,low,close,volume\nA,2024-01-02,1,2,0.5,1.5,10\nA,2024-01-03,1,2,0.5,1.5,10\n"
DAILY = LoadOptions(interval="1d")
OWN = Description(
    name="Broker X",
    kind=Kind.BARS,
    shape=(Cell.TEXT, Cell.DATE, *[Cell.NUMBER] * 5),
    columns=dict(zip(("symbol", "date", "close", "open", "high", "low", "volume"), "1234567", strict=True)),
    interval=Interval("1d"),
)
HEADLESS = "A,2024-01-02,1.5,1,2,0.5,10\nA,2024-01-03,1.5,1,2,0.5,10\n"


class Here:
    """A store, and jobs that load into it."""

    def __init__(self, folder: Path, *folders: Path) -> None:
        self.store = MemoryStore()
        self.runner = Runner(self.store)
        self.spool = folder / "spool"
        spool = Spool(self.spool, upload_bytes=1_000_000, total_bytes=1_000_000)
        self.loads = LoadJobs(
            self.runner,
            self._load,
            partial(certify, self.store),
            spool,
            [str(each) for each in folders],
            assess=partial(check_stored, self.store),
            read_formats=sent_descriptions,
            own_formats=(OWN,),
        )
        self._quarantine = folder / "quarantine"

    def _load(self, paths: Sequence[str], options: LoadOptions, *, validate: str, **how: Any) -> LoadReport:
        assert validate == "sample"
        return bulk.load(paths, self.store, options, quarantine_dir=self._quarantine, **how)

    def over(self, job: Job) -> Job:
        changed = threading.Event()
        self.runner.listen(job.id, changed.set)
        while not (now := self.runner.job(job.id)).state.is_over:
            assert changed.wait(PATIENCE_S)
            changed.clear()
        return now

    def rows(self) -> int:
        return sum(series.rows for series in self.store.coverage(Kind.BARS))


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A folder that may be loaded from, with a file; beside it one that may not."""
    for name in ("allowed", "secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "days.csv").write_text(ROWS)
    return tmp_path / "allowed"


@pytest.fixture
def here(tmp_path: Path, allowed: Path) -> Iterator[Here]:
    found = Here(tmp_path, allowed)
    yield found
    found.runner.stop()
    found.runner.close()


def request(*paths: Path | str) -> LoadRequest:
    return LoadRequest(paths=tuple(map(str, paths)), options=DAILY)


def test_files_that_were_refused_are_counted_and_the_first_named(here: Here, allowed: Path) -> None:
    for number in range(loads.PROBLEMS_NAMED + 2):
        (allowed / f"bad{number:02}.csv").write_text("date,open\n2024-01-02,1\n" * 1_000)
    job = here.over(here.loads.load(request(allowed), anywhere=False))
    assert (job.state, job.files, job.refused) == (State.DONE, loads.PROBLEMS_NAMED + 3, loads.PROBLEMS_NAMED + 2)
    assert [each.message[:10] for each in job.problems] == [f"bad{n:02}.csv:" for n in range(loads.PROBLEMS_NAMED)]
    assert here.rows() == 2
    assert job.progress is not None
    assert job.progress.bytes_done == job.progress.bytes_total > 1_000
    assert job.progress.eta_s == 0


def test_a_file_is_loaded_and_the_report_kept(here: Here, allowed: Path) -> None:
    job = here.over(here.loads.load(request(allowed / "days.csv"), anywhere=False))
    assert job.state is State.DONE, job.error
    assert job.report is not None
    assert job.report["totals"]["inserted"] == 2
    assert job.report["batch"] == job.batch
    assert here.rows() == 2
    assert job.progress is not None
    assert job.progress.rows == 2


def test_folders_and_patterns_within_are_allowed(here: Here, allowed: Path) -> None:
    for path in (allowed, allowed / "*.csv", allowed / ".." / "allowed" / "days.csv"):
        assert here.over(here.loads.load(request(path), anywhere=False)).state is State.DONE


@pytest.mark.parametrize(
    "path", ["../secret/days.csv", "../secret", "../secret/*.csv", "../*", "/etc/passwd", "link.csv", "folder", "dir/*"]
)
def test_no_way_leads_out(here: Here, allowed: Path, path: str) -> None:
    (allowed / "link.csv").symlink_to(allowed.parent / "secret" / "days.csv")
    (allowed / "dir").symlink_to(allowed.parent / "secret", target_is_directory=True)
    (allowed / "folder").mkdir()
    os.symlink("../../secret/days.csv", allowed / "folder" / "inner.csv")
    with pytest.raises(Forbidden, match=r"out of the folders that may be loaded from: .*allowed"):
        here.loads.load(request(allowed / path), anywhere=False)
    assert here.rows() == 0


def test_without_allowed_folders_nothing_is(tmp_path: Path, allowed: Path) -> None:
    found = Here(tmp_path)
    with pytest.raises(Forbidden, match="load_folders"):
        found.loads.load(request(allowed / "days.csv"), anywhere=False)
    assert found.over(found.loads.load(request(allowed / "days.csv"), anywhere=True)).state is State.DONE
    found.runner.close()


@pytest.mark.parametrize("paths", [[], [""], ["a\0b"]])
def test_paths_that_are_none(here: Here, paths: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="path"):
        here.loads.load(request(*paths), anywhere=True)


def test_a_file_that_is_not_there_fails_the_job(here: Here, allowed: Path) -> None:
    job = here.over(here.loads.load(request(allowed / "nothing.csv"), anywhere=False))
    assert job.state is State.FAILED
    assert job.error is not None
    assert job.error.code == "not_found"


def test_an_upload_is_loaded_and_removed(here: Here) -> None:
    upload = here.loads.upload()
    upload.begin("year/days.csv")
    upload.write(ROWS.encode())
    upload.end()
    job = here.over(here.loads.load_upload(upload, DAILY))
    assert job.state is State.DONE, job.error
    assert job.what == ("year/days.csv",)
    assert job.report is not None
    assert [file["file"]["path"] for file in job.report["files"]] == ["year/days.csv"]
    assert here.rows() == 2
    assert list(here.spool.iterdir()) == []


def test_loads_know_the_layouts_of_the_server(here: Here, allowed: Path) -> None:
    (allowed / "days.csv").write_text(HEADLESS)
    upload = here.loads.upload()
    upload.begin("days.csv")
    upload.write(HEADLESS.encode())
    upload.end()
    by_path = LoadRequest(paths=(str(allowed),))
    for job in (here.loads.load(by_path, anywhere=False), here.loads.load_upload(upload, LoadOptions())):
        ended = here.over(job)
        assert ended.report is not None, ended.error
        assert ended.report["files"][0]["file"]["recognised"] == "Broker X"
    assert here.rows() == 2


def test_a_layout_that_is_sent_goes_before_one_of_the_server(here: Here, allowed: Path) -> None:
    (allowed / "days.csv").write_text(HEADLESS)
    theirs = msgspec.structs.replace(OWN, name="Theirs")
    ended = here.over(
        here.loads.load(LoadRequest(paths=(str(allowed),), options=LoadOptions(formats=(theirs,))), anywhere=False)
    )
    assert ended.report is not None, ended.error
    assert ended.report["files"][0]["file"]["recognised"] == "Theirs"


class Next(Here):
    """The next process on the store of another, which died."""

    def __init__(self, died: Here, folder: Path, *folders: Path) -> None:
        super().__init__(folder, *folders)
        self.store = died.store
        self.runner = self.loads.jobs = Runner(self.store)


@pytest.fixture
def waiting(here: Here) -> Iterator[Here]:
    """One whose jobs all wait."""
    go_on, runs = threading.Event(), threading.Event()

    def hold(control: Control) -> Ended:
        runs.set()
        assert go_on.wait(PATIENCE_S)
        return Ended()

    here.runner.submit("load", hold, batch="runs")
    assert runs.wait(PATIENCE_S)
    yield here
    for job in here.runner.jobs():
        here.runner.cancel(job.id)
    go_on.set()


def test_what_waits_outlives_its_process(waiting: Here, tmp_path: Path, allowed: Path) -> None:
    upload, lost, unfinished = (waiting.loads.upload() for _ in range(3))
    for each in (upload, lost, unfinished):
        each.begin("year/days.csv")
        each.write(HEADLESS.encode())
        each.end()
    options = msgspec.structs.replace(DAILY, batch="mine", on_conflict="prefer", prefer=("a",), formats=(OWN,))
    sent = waiting.loads.load_upload(upload, LoadOptions())
    cut = waiting.loads.load_upload(lost, LoadOptions())
    (lost.folder / "year" / "days.csv").write_text("A,")
    path = waiting.loads.load(LoadRequest(paths=(str(allowed),), options=options), anywhere=False)
    closed = waiting.loads.load(request(allowed), anywhere=False)
    check = waiting.loads.assess(Assessment(symbols=("A",)))
    certified = waiting.loads.certify(sent.batch)

    later = Next(waiting, tmp_path, allowed)
    assert later.runner.job(sent.id).state is State.QUEUED
    later.loads.restart()
    ended = {job.id: later.over(job) for job in (sent, cut, path, closed, check, certified)}
    later.runner.close()
    assert [ended[job.id].state for job in (sent, path, check)] == [State.DONE] * 3, ended
    report = ended[sent.id].report
    assert report is not None
    assert [file["file"]["path"] for file in report["files"]] == ["year/days.csv"]
    assert (ended[sent.id].batch, ended[sent.id].what) == (sent.batch, ("year/days.csv",))
    assert ended[cut.id].state is State.FAILED
    assert ended[cut.id].error == Problem(
        "unreadable_file",
        "year/days.csv waited to be loaded and is no longer whole: 2 of its 56 bytes are there; send it again",
    )
    assert list(later.spool.iterdir()) == []


def test_what_waits_is_allowed_by_the_settings_of_the_process_that_does_it(
    waiting: Here, tmp_path: Path, allowed: Path
) -> None:
    job = waiting.loads.load(request(allowed / "days.csv"), anywhere=False)
    trusted = waiting.loads.load(request(allowed / "days.csv"), anywhere=True)
    later = Next(waiting, tmp_path)
    later.loads.restart()
    refused = later.over(job)
    assert refused.state is State.FAILED
    assert refused.error is not None
    assert "load_folders" in refused.error.message
    assert later.over(trusted).state is State.DONE
    later.runner.close()


def test_what_another_version_queued_and_is_not_understood_fails(waiting: Here, tmp_path: Path) -> None:
    job = waiting.runner.submit("load", lambda control: Ended(), batch="b", asked=b'{"type":"tape"}')
    later = Next(waiting, tmp_path)
    later.loads.restart()
    failed = later.over(job)
    later.runner.close()
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert "ask for it again" in failed.error.message


def test_an_upload_of_nothing(here: Here) -> None:
    upload = here.loads.upload()
    with pytest.raises(InvalidRequest, match="no file was sent"):
        here.loads.load_upload(upload, DAILY)


def test_a_load_is_stopped_between_writes(here: Here, allowed: Path) -> None:
    (allowed / "more.csv").write_text(ROWS.replace("A,", "B,"))
    began, go_on = threading.Event(), threading.Event()
    write = here.store.write_together

    def slow(*given: Any, **options: Any) -> Any:
        began.set()
        assert go_on.wait(PATIENCE_S)
        return write(*given, **options)

    here.store.write_together = slow  # type: ignore[method-assign]
    options = LoadOptions(interval="1d", batch_rows=2)
    job = here.loads.load(LoadRequest(paths=(str(allowed),), options=options), anywhere=False)
    assert began.wait(PATIENCE_S)
    here.runner.cancel(job.id)
    go_on.set()
    ended = here.over(job)
    assert ended.state is State.CANCELLED
    assert ended.report is not None
    assert ended.report["interrupted"]
    assert here.rows() == ended.report["totals"]["inserted"] == 2
    said = f'load the same files again with --resume {job.batch} (over HTTP: with the option "resume": "{job.batch}")'
    assert ended.resume == said


def test_of_very_many_files_those_are_reported_of_which_there_is_something_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loads, "FILES_REPORTED", 2)

    def file(name: str, **more: Any) -> FileReport:
        return FileReport(file=RecognisedFile(path=name, name=name, source=name, size=1), counts=Counts(), **more)

    files = [file("a"), file("b"), file("c", notes=["odd"]), file("d", problem=Problem("unreadable_file", "cut off"))]
    report = LoadReport(batch="b", files=files, totals=Counts())
    assert loads._shorten(report) == 2
    assert [each.file.name for each in report.files] == ["c", "d"]
    assert loads._shorten(report) == 0


def test_a_check_of_quality_that_is_cancelled_leaves_the_grades_as_they_were(here: Here, allowed: Path) -> None:
    here.over(here.loads.load(request(allowed), anywhere=False))
    began, go_on = threading.Event(), threading.Event()
    read = here.store.read

    def slow(*given: Any) -> Any:
        began.set()
        assert go_on.wait(PATIENCE_S)
        return read(*given)

    here.store.read = slow  # type: ignore[method-assign]
    job = here.loads.assess(Assessment())
    assert began.wait(PATIENCE_S)
    here.runner.cancel(job.id)
    go_on.set()
    ended = here.over(job)
    assert (ended.kind, ended.state, ended.report) == ("quality", State.CANCELLED, {"grades": {}})
    assert ended.resume == "ask for it again"
    assert here.store.documents("quality") == {}


def test_a_check_of_quality_keeps_the_grades(here: Here, allowed: Path) -> None:
    here.over(here.loads.load(request(allowed), anywhere=False))
    job = here.over(here.loads.assess(Assessment(symbols=("A", "none"))))
    assert (job.state, job.what) == (State.DONE, ("A", "none")), job.error
    assert job.report is not None
    assert sum(job.report["grades"].values()) == len(here.store.documents("quality")) == 1
