"""What the log says of jobs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tapehouse.bulk.base import Counts, Problem
from tapehouse.jobs.announced import log_begun, log_ended, log_left
from tapehouse.jobs.base import Job, State
from tapehouse.logs import JsonFormatter

TOTALS = {name: getattr(Counts(read=30, inserted=28, quarantined=2), name) for name in Counts.__struct_fields__}
JOB = Job(id="j", batch="b", what=("days.csv", "two\nlines.csv"), created=1)
ENDED = {"started": 2_000_000_000, "ended": 3_500_000_000}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "tapehouse.jobs"):
        yield caplog


def line(log: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The one line that was logged, as JSON has it."""
    (record,) = log.records
    found: dict[str, Any] = json.loads(JsonFormatter().format(record))
    del found["time"]
    assert found.pop("logger") == "tapehouse.jobs.announced"
    return found


def job(**what: Any) -> Job:
    return Job(**{name: getattr(JOB, name) for name in JOB.__struct_fields__} | what)


def test_a_job_that_begins(log: pytest.LogCaptureFixture) -> None:
    log_begun(job(state=State.RUNNING, started=2))
    assert line(log) == {
        "level": "info",
        "message": r"load j began: batch b 'days.csv' 'two\nlines.csv'",
        "job": "j",
        "kind": "load",
        "batch": "b",
        "what": ["days.csv", "two\nlines.csv"],
    }


def test_a_load_that_is_done(log: pytest.LogCaptureFixture) -> None:
    log_ended(job(state=State.DONE, report={"totals": TOTALS}, files=2, refused=1, **ENDED))
    said = line(log)
    assert said.pop("message") == (
        r"load j done: batch b 'days.csv' 'two\nlines.csv', 30 rows read, 28 inserted, 2 quarantined, "
        "1 of 2 files not loaded to their end, 1.5 s"
    )
    counts = {"rows": 30, "inserted": 28, "quarantined": 2, "replaced": 0, "unchanged": 0, "rejected": 0}
    assert said == counts | {
        "level": "info",
        "job": "j",
        "kind": "load",
        "batch": "b",
        "state": "done",
        "set_aside": 0,
        "unwritten": 0,
        "seconds": 1.5,
        "files": 2,
        "refused": 1,
    }


def test_a_load_that_failed_is_a_warning(log: pytest.LogCaptureFixture) -> None:
    error = Problem("store_full", "no space left")
    log_ended(job(state=State.FAILED, error=error, resume="go on", report={"totals": TOTALS}, **ENDED))
    said = line(log)
    assert said["level"] == "warning"
    assert (said["state"], said["error"], said["resume"], said["rows"]) == ("failed", "store_full", "go on", 30)
    assert said["message"].endswith("1.5 s; no space left; go on")


def test_a_job_that_never_began(log: pytest.LogCaptureFixture) -> None:
    log_ended(job(state=State.CANCELLED, ended=3, what=()))
    assert line(log) == {
        "level": "info",
        "message": "load j cancelled before it began: batch b",
        "job": "j",
        "kind": "load",
        "batch": "b",
        "state": "cancelled",
    }


def test_a_check_of_quality_says_its_grades(log: pytest.LogCaptureFixture) -> None:
    log_ended(job(kind="quality", batch="", what=(), state=State.DONE, report={"grades": {"A": 2}}, **ENDED))
    said = line(log)
    assert said["message"] == "quality j done: everything, 1.5 s"
    assert said["grades"] == {"A": 2}


def test_one_that_waits_for_the_next_process(log: pytest.LogCaptureFixture) -> None:
    log_left(job(what=tuple("vwxyz")))
    assert line(log)["message"] == "load j stays queued for the next start: batch b 'v' 'w' 'x' ..."
