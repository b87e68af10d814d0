"""Jobs: their states, their order, their limits, and what is left of them by a process that ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from tapehouse.bulk import journal
from tapehouse.bulk.base import Problem, Progress
from tapehouse.errors import NotFound, Overloaded, StoreFull, Unavailable
from tapehouse.jobs.base import LOADS, Control, Ended, Job, State, Work
from tapehouse.jobs.runner import KEPT_JOBS, Runner
from tapehouse.store.memory import MemoryStore

PATIENCE_S = 20.0


def progress(rows: int) -> Progress:
    return Progress(
        file="a.csv",
        file_number=1,
        files=1,
        bytes_done=rows,
        bytes_total=100,
        rows=rows,
        quarantined=0,
        rows_per_s=1.0,
        eta_s=None,
    )


def again_with(batch: str) -> str:
    return f'load the same files again with --resume {batch} (over HTTP: with the option "resume": "{batch}")'


class Held:
    """Work that runs until it is let go, or asked to stop."""

    def __init__(self) -> None:
        self.running, self.let_go = threading.Event(), threading.Event()
        self.control: Any = None

    def __call__(self, control: Control) -> Ended:
        self.control = control
        self.running.set()
        while not self.let_go.wait(0.005):
            if control.stop.is_set():
                return Ended(whole=False, report={"rows": 1})
        return Ended(report={"rows": 2})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def make(store: MemoryStore) -> Iterator[Callable[..., Runner]]:
    made: list[Runner] = []

    def runner(**limits: int) -> Runner:
        made.append(Runner(store, **limits))
        return made[-1]

    yield runner
    for each in made:
        each.stop()
        each.close()


@pytest.fixture
def runner(make: Callable[..., Runner]) -> Runner:
    return make()


def over(runner: Runner, id: str) -> Job:
    """The job once it is over, waited for as listeners do."""
    changed = threading.Event()
    unlisten = runner.listen(id, changed.set)
    while not (job := runner.job(id)).state.is_over:
        assert changed.wait(PATIENCE_S), job
        changed.clear()
    unlisten()
    return job


def test_work_is_done_and_reported(runner: Runner) -> None:
    cleaned = threading.Event()
    made = runner.submit("load", lambda control: Ended(report={"rows": 3}), batch="b", what=["a"], after=cleaned.set)
    assert made.state is State.QUEUED
    job = over(runner, made.id)
    assert (job.state, job.report, job.batch, job.what) == (State.DONE, {"rows": 3}, "b", ("a",))
    assert job.started is not None
    assert job.ended is not None
    assert made.created <= job.started <= job.ended
    assert cleaned.is_set()
    assert job.resume is None


def test_one_runs_at_a_time_and_the_others_wait_in_order(runner: Runner) -> None:
    first, second, third = Held(), Held(), Held()
    jobs = [runner.submit("load", work, batch=name) for work, name in ((first, "1"), (second, "2"), (third, "3"))]
    assert first.running.wait(PATIENCE_S)
    assert [runner.job(job.id).state for job in jobs] == [State.RUNNING, State.QUEUED, State.QUEUED]
    assert not second.running.is_set()
    first.let_go.set()
    assert second.running.wait(PATIENCE_S)
    assert not third.running.is_set()
    second.let_go.set()
    third.let_go.set()
    assert [over(runner, job.id).state for job in jobs] == [State.DONE] * 3
    assert [job.batch for job in runner.jobs()] == ["3", "2", "1"]


def test_several_run_at_once_when_they_may(make: Callable[..., Runner]) -> None:
    runner = make(running=2)
    first, second = Held(), Held()
    for work in (first, second):
        runner.submit("load", work, batch="b")
    assert first.running.wait(PATIENCE_S)
    assert second.running.wait(PATIENCE_S)


def test_too_many_that_wait_are_refused(make: Callable[..., Runner]) -> None:
    runner = make(waiting=1)
    held = Held()
    runner.submit("load", held, batch="runs")
    assert held.running.wait(PATIENCE_S)
    runner.submit("load", Held(), batch="waits")
    with pytest.raises(Overloaded, match="1 jobs wait already"):
        runner.submit("load", Held(), batch="refused")
    assert [job.batch for job in runner.jobs()] == ["waits", "runs"]


def test_what_runs_is_cancelled_after_its_step(runner: Runner) -> None:
    held = Held()
    job = runner.submit("load", held, batch="b")
    assert held.running.wait(PATIENCE_S)
    assert runner.cancel(job.id).state in (State.RUNNING, State.CANCELLED)
    ended = over(runner, job.id)
    assert ended.state is State.CANCELLED
    assert ended.report == {"rows": 1}
    assert ended.resume == again_with("b")
    assert runner.cancel(job.id) == ended


def test_what_waits_is_cancelled_at_once_and_never_begun(runner: Runner) -> None:
    held, waiting, cleaned = Held(), Held(), threading.Event()
    runner.submit("load", held, batch="runs")
    assert held.running.wait(PATIENCE_S)
    job = runner.submit("load", waiting, batch="waits", after=cleaned.set)
    assert runner.cancel(job.id).state is State.CANCELLED
    assert cleaned.is_set()
    held.let_go.set()
    over(runner, runner.submit("load", lambda control: Ended(), batch="later").id)
    assert not waiting.running.is_set()


def test_an_error_of_ours_is_told_and_one_of_nobody_is_not(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    def full(control: Control) -> Ended:
        raise StoreFull("no space left", report={"rows": 7})

    def broken(control: Control) -> Ended:
        raise KeyError("secret")

    failed = over(runner, runner.submit("load", full, batch="b").id)
    assert failed.state is State.FAILED
    assert failed.error == Problem("store_full", "no space left")
    assert failed.report == {"rows": 7}
    assert failed.resume == again_with("b")
    crashed = over(runner, runner.submit("load", broken, batch="b").id)
    assert crashed.error is not None
    assert crashed.error.code == "internal"
    assert "secret" not in crashed.error.message
    assert "secret" in caplog.text


def test_listeners_miss_states_in_between_but_never_the_last(runner: Runner) -> None:
    held = Held()
    job = runner.submit("load", held, batch="b")
    assert held.running.wait(PATIENCE_S)
    woken: list[int] = []
    unlisten = runner.listen(job.id, lambda: woken.append(runner.job(job.id).version))
    for rows in range(5):
        held.control.progress(progress(rows))
    newest = runner.job(job.id)
    assert newest.progress is not None
    assert newest.progress.rows == 4
    assert woken == sorted(set(woken))
    assert woken[-1] == newest.version
    unlisten()
    held.control.progress(progress(9))
    assert woken[-1] == newest.version
    unlisten()
    held.let_go.set()
    assert over(runner, job.id).state is State.DONE


def test_no_such_job(runner: Runner) -> None:
    for ask in (runner.job, runner.cancel, lambda id: runner.listen(id, print)):
        with pytest.raises(NotFound, match="no job 'x'"):
            ask("x")


def test_stopping_interrupts_and_says_how_to_go_on(make: Callable[..., Runner]) -> None:
    runner = make()
    held = Held()
    runs, waits = (runner.submit("load", work, batch=name) for work, name in ((held, "runs"), (Held(), "waits")))
    assert held.running.wait(PATIENCE_S)
    runner.stop()
    assert runner.job(waits.id).state is State.INTERRUPTED
    assert over(runner, runs.id).state is State.INTERRUPTED
    runner.close()
    assert runner.job(runs.id).resume == again_with("runs")
    with pytest.raises(Unavailable, match="stops"):
        runner.submit("load", held, batch="late")


def test_jobs_survive_their_process(make: Callable[..., Runner], store: MemoryStore) -> None:
    former = make()
    done = over(former, former.submit("load", lambda control: Ended(report={"rows": 3}), batch="done").id)
    held = Held()
    runs = former.submit("load", held, batch="ran")
    assert held.running.wait(PATIENCE_S)
    waits = former.submit("load", held, batch="waited")

    store.put_documents(LOADS, {"ran": b"{}"})

    later = make()  # as if the process had died: nobody told the former one to stop
    assert later.job(done.id) == done
    ran, waited = later.job(runs.id), later.job(waits.id)
    assert ran.state is waited.state is State.INTERRUPTED
    assert ran.error == Problem("unavailable", "the process that ran it ended; what it had written stays")
    assert ran.resume == again_with("ran")
    assert waited.error == Problem("unavailable", "its process ended before it began")
    assert waited.resume == "load the same files again"
    assert make().job(runs.id) == later.job(runs.id)


def test_what_ran_without_having_begun_its_load_has_nothing_to_resume(make: Callable[..., Runner]) -> None:
    former, held = make(), Held()
    job = former.submit("load", held, batch="recognising")
    assert held.running.wait(PATIENCE_S)
    assert make().job(job.id).resume == "load the same files again"


def test_the_collection_of_loads_is_the_one_of_the_journal() -> None:
    assert LOADS == journal.LOADS


@pytest.mark.parametrize("stopped", [False, True])
def test_what_was_queued_is_done_by_the_next_process(make: Callable[..., Runner], *, stopped: bool) -> None:
    former, held, cleaned = make(), Held(), threading.Event()
    former.submit("load", held, batch="runs")
    assert held.running.wait(PATIENCE_S)
    names = [b'"first"', b'"second"']
    jobs = [former.submit("load", Held(), batch="b", after=cleaned.set, asked=name) for name in names]
    cancelled = former.submit("load", Held(), batch="b", asked=b'"cancelled"')
    former.cancel(cancelled.id)
    if stopped:
        woken = threading.Event()
        former.listen(jobs[0].id, woken.set)
        former.stop()
        former.close()
        assert woken.is_set()
        assert former.stopping
        assert [former.job(job.id) for job in jobs] == jobs
    make()  # another that dies before it restarts anything
    done: list[bytes] = []

    def again(asked: bytes) -> tuple[Work, Callable[[], None]]:
        return lambda control: done.append(asked) or Ended(), cleaned.set  # type: ignore[func-returns-value]

    later = make()
    assert [later.job(job.id).state for job in jobs] == [State.QUEUED] * 2
    assert not cleaned.is_set()
    later.restart(again)
    assert [over(later, job.id).state for job in jobs] == [State.DONE] * 2
    assert done == names
    assert cleaned.is_set()
    after = make()
    after.restart(again)
    assert [after.job(job.id).state for job in jobs] == [State.DONE] * 2
    assert done == names


def test_versions_never_go_back(make: Callable[..., Runner]) -> None:
    former, held = make(), Held()
    runs = former.submit("load", held, batch="runs")
    waits = former.submit("load", held, batch="waits", asked=b"1")
    assert held.running.wait(PATIENCE_S)
    for rows in range(100):
        held.control.progress(progress(rows))
    seen = former.job(runs.id).version
    assert seen > 100
    later = make()
    assert later.job(runs.id).version > seen
    assert make().job(waits.id).version > later.job(waits.id).version > waits.version


def test_jobs_that_an_earlier_version_kept_are_read(make: Callable[..., Runner], store: MemoryStore) -> None:
    old = Job(id="old", batch="b", created=1, version=3, state=State.DONE)
    store.put_documents("jobs", {"old": msgspec.json.encode(old)})
    assert make().job("old") == old


def test_old_ones_are_forgotten(make: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapehouse.jobs.runner.KEPT_JOBS", 3)
    runner = make()
    for number in range(6):
        over(runner, runner.submit("load", lambda control: Ended(), batch=str(number)).id)
    assert [job.batch for job in runner.jobs()] == ["5", "4", "3"]
    assert [job.batch for job in make().jobs()] == ["5", "4", "3"]
    assert KEPT_JOBS > 3


class Full(MemoryStore):
    """A store that has no space left for documents, from a time on."""

    full = False

    def put_documents(self, *given: Any) -> None:
        if self.full:
            raise StoreFull("no space left")
        super().put_documents(*given)


def test_a_job_that_cannot_be_kept_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    store = Full()
    runner = Runner(store)
    held = Held()
    job = runner.submit("load", held, batch="b")
    assert held.running.wait(PATIENCE_S)
    store.full = True
    with pytest.raises(StoreFull):
        runner.submit("load", Held(), batch="refused")
    assert [each.batch for each in runner.jobs()] == ["b"]
    held.let_go.set()
    assert over(runner, job.id).state is State.DONE
    assert "could not be kept" in caplog.text
    runner.close()
