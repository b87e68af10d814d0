"""A job, followed to its end, and what its end means. The two loops are the same but for `await`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tapehouse.bulk.base import Certificate, Counts, LoadReport, OnProgress, Progress
from tapehouse.client.jobs.operations import AskJob, CancelJob, Watch
from tapehouse.client.wire import error_named
from tapehouse.errors import TapehouseError, Unavailable
from tapehouse.jobs.base import Job, State

_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""How long to wait before looking again for a server that stopped telling."""


def follow(run: Callable[[Any], Any], job: Job, on_progress: OnProgress | None = None) -> Job:
    """The job once it is over. Ctrl-C cancels it, a second one leaves it to itself.

    A server that stops telling is looked for again for a few seconds, then `Unavailable` says how the job is found.
    """
    return _followed(run, job, on_progress)[0]


def follow_whole(run: Callable[[Any], Any], job: Job) -> None:
    """As `follow`, for work that has no report of a part of it: raises the error that ended it.

    That is `KeyboardInterrupt` once a job that Ctrl-C cancelled here is over.
    """
    job, asked_to_end = _followed(run, job)
    if asked_to_end and job.state is State.CANCELLED:
        raise KeyboardInterrupt
    check_done(job)


def _followed(run: Callable[[Any], Any], job: Job, on_progress: OnProgress | None = None) -> tuple[Job, bool]:
    """The job once it is over, and whether Ctrl-C asked it to end."""
    watcher = _Watcher(on_progress)
    asked_to_end = False
    while not job.state.is_over:
        try:
            job = run(Watch(id=job.id, on_change=watcher))
        except KeyboardInterrupt:
            if asked_to_end:
                raise
            asked_to_end = True
            job = run(CancelJob(id=job.id))
        except Unavailable as exc:
            time.sleep(watcher.pause(job, exc))
            job = _or_same(run, job)
    return job, asked_to_end


async def follow_async(run: Callable[[Any], Awaitable[Any]], job: Job, on_progress: OnProgress | None = None) -> Job:
    """As `follow`; when the task is cancelled, so is the job."""
    watcher = _Watcher(on_progress)
    try:
        while not job.state.is_over:
            try:
                job = await run(Watch(id=job.id, on_change=watcher))
            except Unavailable as exc:
                await asyncio.sleep(watcher.pause(job, exc))
                try:
                    job = await run(AskJob(id=job.id))
                except Unavailable:
                    continue
    except asyncio.CancelledError:
        await asyncio.shield(asyncio.ensure_future(run(CancelJob(id=job.id))))
        raise
    return job


def _or_same(run: Callable[[Any], Any], job: Job) -> Job:
    try:
        found: Job = run(AskJob(id=job.id))
    except Unavailable:
        return job
    return found


class _Watcher:
    """Passes progress on, once each, and counts how often the server was lost without any."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._last: Progress | None = None
        self._lost = 0

    def __call__(self, job: Job) -> None:
        self._lost = 0
        if job.progress is not None and job.progress != self._last and self._on_progress is not None:
            self._last = job.progress
            self._on_progress(job.progress)

    def pause(self, job: Job, exc: Unavailable) -> float:
        """How long to wait; raises when that was often enough."""
        if self._lost == len(_PAUSES_S):
            raise Unavailable(
                f"{exc.message}. The job {job.id} may still run: `tapehouse jobs` shows it", job=job.id
            ) from exc
        self._lost += 1
        return _PAUSES_S[self._lost - 1]


def report_of(job: Job) -> LoadReport:
    """What became of a load; raises the error that ended it."""
    _check(job)
    if job.report is None:  # it was cancelled before it began
        return LoadReport(batch=job.batch, files=[], totals=Counts(), interrupted=True)
    return msgspec.convert(job.report, LoadReport)


def certificate_of(job: Job) -> Certificate:
    """What a check found; raises the error that ended it."""
    _check(job)
    if job.report is None:
        raise Unavailable(f"the job {job.id} was {job.state}")
    return msgspec.convert(job.report, Certificate)


def check_done(job: Job) -> None:
    """Raises the error that ended a job, also when that was somebody who cancelled it."""
    _check(job)
    if job.state is not State.DONE:
        raise Unavailable(f"the job {job.id} was {job.state}; what it had done stays", job=job.id)


def _check(job: Job) -> None:
    if job.state not in (State.FAILED, State.INTERRUPTED):
        return
    code, message = (job.error.code, job.error.message) if job.error else (TapehouseError.code, f"it {job.state}")
    details = {"job": job.id} | ({"report": job.report} if job.report else {})
    if job.resume and job.state is State.INTERRUPTED:
        message += f"; {job.resume}"
    raise error_named(code, message, **details)
