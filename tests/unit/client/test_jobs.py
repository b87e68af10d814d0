"""Loads through every kind of client, and what is known of them afterwards; and servers that stop telling."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from tests.unit.client.conftest import Serve

from tapehouse import AsyncClient, Client
from tapehouse.bulk.base import Held, Progress
from tapehouse.client.jobs import following
from tapehouse.client.jobs.sending import Sent
from tapehouse.errors import Conflict, InvalidRequest, NotFound, NotSupported, Unavailable, UnreadableFile
from tapehouse.jobs.base import Job, State

PATIENCE_S = 20.0
HEADER = "symbol,date,open,high,low,close,volume\n"
DAYS = HEADER + "".join(f"A,2024-01-{day:02d},100,102,99,{100 + day % 3},1000\n" for day in range(1, 29))


@pytest.fixture
def days(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "days.csv").write_text(DAYS)
    return tmp_path / "files" / "days.csv"


def test_a_load_a_certificate_and_an_undo(client: Any, days: Path) -> None:
    told: list[int] = []
    report = client.load(days, interval="1d", batch="days", progress=lambda done: told.append(done.rows))
    assert (report.batch, report.totals.inserted, report.complete) == ("days", 28, True)
    assert report.files[0].file.name == "days.csv"
    assert sum(report.grades.values()) == 1
    assert not told or told[-1] == 28
    assert client.bars("A").height == 28
    again = client.load([str(days)], interval="1d")
    assert (again.totals.unchanged, again.totals.inserted) == (28, 0)

    assert client.certify("days").disagreeing == []
    assert client.certify(again.batch).standing.found == [Held(batch="days")]
    assert client.certificate("days").series[0].rows == 28
    assert "days" in [each.batch for each in client.certificates()]
    (quality,) = client.quality("A")
    assert (quality.symbol, quality.looks) == ("A", ())
    assert client.quality("A", kind="trades") == []

    (batch,) = client.batches("days")
    assert (batch.inserted, batch.undone_by) == (28, None)
    undone = client.undo("days")
    assert (undone.removed, undone.left) == (28, 0)
    assert client.symbols() == []
    standing = client.certify("days").standing
    assert (standing.written, standing.current, standing.undone_by) == (28, 0, "undo-days")
    with pytest.raises(Conflict):
        client.undo("days")
    with pytest.raises(NotFound):
        client.certificate("nothing")
    with pytest.raises(NotFound):
        client.certify("nothing")


def test_the_quality_of_what_is_stored_is_checked_anew(client: Any, days: Path) -> None:
    client.load(days, interval="1d")
    gone = client.delete("A", interval="1d", end="2024-01-02")
    assert (gone.deleted, client.quality("A")[0].stale) == (1, True)
    (quality,) = client.check_quality("A", kind="bars", interval="1d", validate="full")
    assert (quality.tally.inspected, quality.stale, quality.looks) == (27, False, ())
    assert client.quality() == [quality]
    assert client.check_quality("none") == []
    with pytest.raises(InvalidRequest, match="off would look at nothing"):
        client.check_quality(validate="off")


def test_a_frame_is_loaded_like_a_file(client: Any) -> None:
    frame = pl.read_csv(DAYS.encode(), try_parse_dates=True)
    report = client.load(frame, interval="1d", source="mine", validate="full")
    assert report.totals.inserted == 28
    assert client.bars("A", columns="all")["source"].unique().to_list() == ["mine"]


def test_a_folder_keeps_its_names(client: Any, days: Path) -> None:
    (days.parent / "B").mkdir()
    (days.parent / "B" / "2024.csv").write_text(DAYS.replace("symbol,", "").replace("A,", ""))
    report = client.load(days.parent / "B", interval="1d", symbol_from="folder")
    assert report.totals.inserted == 28
    assert client.symbols() == ["B"]


def test_what_cannot_be_loaded(client: Any, days: Path) -> None:
    with pytest.raises(NotFound):
        client.load(days.parent / "nothing.csv")
    days.write_text("this,is\nno,history\n")
    with pytest.raises(Exception, match=r"days\.csv"):
        client.load(days)
    with pytest.raises(InvalidRequest, match="there is no option 'intervall'"):
        client.load(days, intervall="1d")
    with pytest.raises(InvalidRequest, match="validate is one of"):
        client.load(days, validate="some")


def test_what_is_sent_is_told_before_what_is_loaded(serve: Serve, days: Path) -> None:
    (days.parent / "more.csv").write_text(DAYS.replace("A,", "B,") * 2_000)
    told: list[Progress] = []
    with Client(serve().url) as client:
        client.load(days.parent, interval="1d", progress=told.append)
    sent = [each for each in told if each.sending]
    assert told[: len(sent)] == sent
    total = sum(path.stat().st_size for path in days.parent.iterdir())
    assert (sent[-1].bytes_done, sent[-1].bytes_total, sent[-1].files) == (total, total, 2)
    assert sorted({each.file_number for each in sent}) == [1, 2]
    done = [each.bytes_done for each in sent]
    assert len(done) > 10
    assert done == sorted(done)
    assert sum(b"sending" in msgspec.json.encode(each) for each in told) == len(sent)


def test_jobs_of_a_server(serve: Serve, days: Path) -> None:
    with Client(serve().url) as client:
        client.load(days, interval="1d")
        (job,) = client.jobs()
        assert (job.state, job.what, job.report) == (State.DONE, ("days.csv",), None)
        assert client.job(job.id).report is not None
        assert client.cancel_job(job.id).state is State.DONE
        with pytest.raises(NotFound):
            client.job("nothing")


def test_without_a_server_there_are_only_old_jobs() -> None:
    with Client("memory://") as client:
        assert client.jobs() == []
        for ask in (client.job, client.cancel_job):
            with pytest.raises(NotSupported, match="nobody runs jobs here"):
                ask("x")


def test_a_file_is_sent_as_long_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    read: list[int] = []
    sent = Sent(path, read.append)
    assert sent.seek(0, 2) == 10
    with path.open("ab") as more:
        more.write(b"more")
    assert (sent.read(4), sent.tell(), sent.read(), sent.read(), sent.tell()) == (b"0123", 4, b"456789", b"", 10)
    sent.seek(0)
    assert read == [4, 6, -10]
    assert sent.read(2) == b"01"
    sent.seek(0)
    path.write_bytes(b"")
    with pytest.raises(UnreadableFile, match="shorter"):
        sent.read()
    path.unlink()
    with pytest.raises(UnreadableFile):
        Sent(path)
    with pytest.raises(OSError, match="beginning"):
        sent.seek(5)


JOB = {"id": "j", "state": "running", "version": 1, "batch": "b", "created": 1}
DONE = JOB | {"state": "done", "version": 2, "report": {"batch": "b", "files": [], "totals": {}}}


class Script:
    """A server that answers one connection after the other as it is told, and then no more."""

    def __init__(self, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self._run, args=(answers,))
        self._thread.start()

    def _run(self, answers: tuple[bytes, ...]) -> None:
        for answer in answers:
            connection, _ = self._listener.accept()
            with connection:
                self.asked.append(connection.recv(65_536).decode().split("\r\n")[0])
                connection.sendall(answer)
        self._listener.close()

    def join(self) -> None:
        self._thread.join()


def answer(body: str, kind: str = "application/json", more: int = 0) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body) + more}\r\nconnection: close\r\n\r\n"
    return (head + body).encode()


def events(*jobs: dict[str, Any], more: int = 0) -> bytes:
    text = ": here\n\n" + "".join(f"id: {job['version']}\ndata: {json.dumps(job)}\n\n" for job in jobs)
    return answer(text, "text/event-stream", more)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Script]]:
    monkeypatch.setattr(following, "_PAUSES_S", (0.0, 0.0))
    made: list[Script] = []

    def start(*answers: bytes) -> Script:
        made.append(Script(*answers))
        return made[-1]

    yield start
    for each in made:
        each.join()


def test_a_server_that_stops_telling_is_asked_again(script: Callable[..., Script], days: Path) -> None:
    server = script(
        answer(json.dumps(JOB)), events(JOB, more=99), answer(json.dumps(JOB)), events(JOB), answer(json.dumps(DONE))
    )
    with Client(server.url) as client:
        assert client.load(days).batch == "b"
    assert [line.split("?")[0] for line in server.asked] == [
        "POST /v1/jobs/load",
        "GET /v1/jobs/j/events",
        "GET /v1/jobs/j",
        "GET /v1/jobs/j/events",
        "GET /v1/jobs/j",
    ]


def test_a_server_that_went_away_leaves_the_name_of_the_job(script: Callable[..., Script], days: Path) -> None:
    server = script(answer(json.dumps(JOB)))
    with Client(server.url) as client, pytest.raises(Unavailable, match="The job j may still run"):
        client.load(days)


@pytest.mark.parametrize("text", ["data: {}\n\n", "data: {\n\n"])
def test_events_that_are_none(script: Callable[..., Script], days: Path, text: str) -> None:
    kind = "text/event-stream"
    server = script(answer(json.dumps(JOB)), *[answer(text, kind), answer(json.dumps(JOB))] * 2, answer(text, kind))
    with Client(server.url) as client, pytest.raises(Unavailable, match="not what a Tapehouse server sends"):
        client.load(days)


@pytest.mark.parametrize(
    ("job", "error", "words"),
    [
        ({"state": "failed", "error": {"code": "not_found", "message": "no such file"}}, NotFound, "no such file"),
        (
            {"state": "interrupted", "error": {"code": "unavailable", "message": "it died"}, "resume": "do this"},
            Unavailable,
            "it died; do this",
        ),
    ],
)
def test_how_a_job_ended(
    script: Callable[..., Script], days: Path, job: dict[str, Any], error: type[Exception], words: str
) -> None:
    server = script(answer(json.dumps(JOB | job)))
    with Client(server.url) as client, pytest.raises(error, match=words):
        client.load(days)


def test_one_that_was_cancelled_before_it_began(script: Callable[..., Script], days: Path) -> None:
    server = script(answer(json.dumps(JOB | {"state": "cancelled"})))
    with Client(server.url) as client:
        report = client.load(days)
    assert report.interrupted
    assert report.totals.read == 0


def test_a_check_of_quality_that_somebody_cancelled(script: Callable[..., Script]) -> None:
    server = script(answer(json.dumps(JOB | {"state": "cancelled"})))
    with Client(server.url) as client, pytest.raises(Unavailable, match="the job j was cancelled"):
        client.check_quality()


@pytest.mark.parametrize(("state", "error"), [("cancelled", KeyboardInterrupt), ("done", None), ("failed", NotFound)])
def test_ctrl_c_of_work_that_is_of_use_as_a_whole(state: str, error: type[BaseException] | None) -> None:
    asked: list[str] = []
    ended = {"state": state, "error": {"code": "not_found", "message": "gone"} if state == "failed" else None}

    def run(operation: Any) -> Any:
        asked.append(type(operation).__name__)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return msgspec.convert(JOB | (ended if asked[-1] == "Watch" else {}), Job)

    with contextlib.nullcontext() if error is None else pytest.raises(error):
        following.follow_whole(run, msgspec.convert(JOB, Job))
    assert asked == ["Watch", "CancelJob", "Watch"]


def test_a_task_that_is_cancelled_leaves_the_grades_as_they_were(
    tmp_path: Path, days: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()

    async def cancel() -> None:
        async with AsyncClient(tmp_path / "data") as client:
            checking = asyncio.ensure_future(client.check_quality())
            assert await asyncio.to_thread(began.wait, PATIENCE_S)
            checking.cancel()
            asyncio.get_running_loop().call_later(0.01, go_on.set)
            with pytest.raises(asyncio.CancelledError):
                await checking

    with Client(tmp_path / "data", create=True) as client:
        client.load(days, interval="1d", validate="off")
        store: Any = client.store
        read = store.read

        def slow(*given: Any) -> Any:
            began.set()
            assert go_on.wait(PATIENCE_S)
            return read(*given)

        monkeypatch.setattr(store, "read", slow)
        asyncio.run(cancel())
        assert client.quality() == []
