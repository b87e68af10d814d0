"""What the log says of jobs: that each begins, and what became of it."""

from __future__ import annotations

import logging
from typing import Any

from tapehouse.jobs.base import Job, State

_NAMED = 3
_COUNTS = ("inserted", "replaced", "unchanged", "rejected", "quarantined", "set_aside", "unwritten")

logger = logging.getLogger(__name__)


def log_begun(job: Job) -> None:
    """A line when it begins; its fields are `job`, `kind`, `batch` and `what`."""
    logger.info("%s %s began: %s", job.kind, job.id, _of(job), extra=_fields(job) | {"what": list(job.what)})


def log_ended(job: Job) -> None:
    """A line when it is over, a warning when it failed.

    Its fields are `job`, `kind`, `batch`, `state` and, where there are such, `seconds`, `rows` (read) and what became
    of them (`bulk.base.Counts`), `files` and `refused` ones, `grades`, `error` (a code) and `resume`.
    """
    level = logging.WARNING if job.state is State.FAILED else logging.INFO
    fields = _fields(job) | {"state": str(job.state)} | _outcome(job)
    logger.log(level, "%s %s %s: %s", job.kind, job.id, _ended(job), _said(job, fields), extra=fields)


def log_left(job: Job) -> None:
    """A line when it has not begun, and waits for the next process."""
    logger.info("%s %s stays queued for the next start: %s", job.kind, job.id, _of(job), extra=_fields(job))


def _fields(job: Job) -> dict[str, Any]:
    return {"job": job.id, "kind": job.kind, "batch": job.batch}


def _outcome(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {}
    report = job.report or {}
    if job.started is not None and job.ended is not None:
        found["seconds"] = round((job.ended - job.started) / 1e9, 3)
    if totals := report.get("totals"):
        found |= {"rows": totals["read"]} | {name: totals[name] for name in _COUNTS}
    if job.files:
        found |= {"files": job.files, "refused": job.refused}
    if "grades" in report:
        found["grades"] = report["grades"]
    if job.error is not None:
        found["error"] = job.error.code
    if job.resume is not None:
        found["resume"] = job.resume
    return found


def _ended(job: Job) -> str:
    if job.started is None:
        return f"{job.state} before it began"
    return str(job.state)


def _said(job: Job, fields: dict[str, Any]) -> str:
    """The outcome in words; what is 0 is left out."""
    words = [_of(job)]
    if "rows" in fields:
        words += [f"{fields['rows']:,} rows read", *(f"{fields[name]:,} {name}" for name in _COUNTS if fields[name])]
    if job.refused:
        words.append(f"{job.refused:,} of {job.files:,} files not loaded to their end")
    if "seconds" in fields:
        words.append(f"{fields['seconds']:,.1f} s")
    text = ", ".join(words)
    said = [each for each in (job.error and job.error.message, job.resume) if each]
    return "; ".join([text, *said])


def _of(job: Job) -> str:
    """What it is about; names are quoted, since a line break in one would begin a line of its own."""
    named = [repr(each) for each in job.what[:_NAMED]] + ["..."] * (len(job.what) > _NAMED)
    return " ".join([f"batch {job.batch}"] * bool(job.batch) + named) or "everything"
