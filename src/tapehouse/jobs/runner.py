"""Runs jobs: a few threads, a bounded queue before them, and documents in the store that outlive the process."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from tapehouse.bulk.base import NEWEST, Problem, Progress
from tapehouse.errors import NotFound, Overloaded, TapehouseError, Unavailable
from tapehouse.jobs.announced import log_begun, log_ended, log_left
from tapehouse.jobs.base import COLLECTION, LOADS, Again, Ended, Job, State, Work, resume_with
from tapehouse.store.base import Capability, KeepsDocuments, Store

KEPT_JOBS = 1_000
"""So many are kept, the newest; those that are not over always are."""

_VERSIONS = 1 << 32
"""More than one process gives one job. Not each is kept: what another process goes on with begins beyond them."""

logger = logging.getLogger(__name__)


class Runner:
    """The jobs of one store (`jobs.base.Jobs`), run by threads of this process."""

    def __init__(self, store: Store, *, running: int = 1, waiting: int = 100) -> None:
        """At most `running` at once, and `waiting` before them.

        What ran when the last process died is interrupted; what was queued is, until `restart`.
        """
        self._ledger = _Ledger(store)
        self._pool = ThreadPoolExecutor(running, "tapehouse-job")
        self._waiting = waiting
        self._lock = threading.RLock()
        self._live: dict[str, _Live] = {}
        self._stopping = False
        self._kept, self._queued = self._read()

    def _read(self) -> tuple[dict[str, Job], list[tuple[Job, bytes]]]:
        """The jobs of former processes, of which none runs now; and the queued ones, with what they were asked."""
        found, queued = {}, []
        for kept in self._ledger.read():
            job, asked = kept.job, kept.asked
            if not job.state.is_over:
                job = msgspec.structs.replace(job, version=job.version + _VERSIONS)
                if job.state is State.QUEUED and asked != _NOTHING:
                    queued.append((job, bytes(asked)))
                    self._ledger.put({job.id: job}, bytes(asked))
                else:
                    job = self._cut_short(job)
                    self._ledger.put({job.id: job})
            found[job.id] = job
        return found, sorted(queued, key=lambda each: each[0].created)

    def _cut_short(self, job: Job) -> Job:
        begun = job.started is not None and self._ledger.has_begun(job)
        why = "the process that ran it ended" if job.started else "its process ended before it began"
        ended = _interrupted(job, why, begun=begun)
        log_ended(ended)
        return ended

    def restart(self, again: Again) -> None:
        """See `jobs.base.Jobs`."""
        queued, self._queued = self._queued, []
        for job, asked in queued:
            live = _Live(job, *again(asked), asked)
            with self._lock:
                self._live[job.id] = live
            self._pool.submit(self._run, live)

    @property
    def stopping(self) -> bool:
        """See `jobs.base.Jobs`."""
        return self._stopping

    def submit(
        self,
        kind: str,
        work: Work,
        *,
        batch: str,
        what: Sequence[str] = (),
        after: Callable[[], None] | None = None,
        asked: bytes | None = None,
    ) -> Job:
        """See `jobs.base.Jobs`."""
        made = Job(id=secrets.token_hex(8), kind=kind, batch=batch, what=tuple(what), created=time.time_ns(), version=1)
        live = _Live(made, work, after, asked)
        with self._lock:
            if self._stopping:
                raise Unavailable("the server stops")
            if sum(not each.begun for each in self._live.values()) >= self._waiting:
                raise Overloaded(f"{self._waiting:,} jobs wait already", limit=self._waiting, retry_after_s=10.0)
            self._live[made.id] = live
            old = self._too_old()
        try:
            self._ledger.put({made.id: made, **dict.fromkeys(old)}, asked)
        except TapehouseError:
            with self._lock:
                del self._live[made.id]
            raise
        with self._lock:
            self._kept[made.id] = made
            for id in old:
                self._kept.pop(id, None)
        self._pool.submit(self._run, live)
        return made

    def jobs(self) -> list[Job]:
        """See `jobs.base.Jobs`."""
        with self._lock:
            found = [self._newest(job) for job in self._kept.values()]
        return sorted(found, key=lambda job: job.created, reverse=True)

    def job(self, id: str) -> Job:
        """See `jobs.base.Jobs`."""
        with self._lock:
            if id not in self._kept:
                raise NotFound(f"there is no job {id[:64]!r}", job=id[:64])
            return self._newest(self._kept[id])

    def cancel(self, id: str) -> Job:
        """See `jobs.base.Jobs`."""
        with self._lock:
            job = self.job(id)
            live = self._live.get(id)
            if live is None:
                return job
            live.cancelled = True
        self._end_soon(live, _ended(job, State.CANCELLED))
        return self.job(id)

    def listen(self, id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """See `jobs.base.Jobs`."""
        with self._lock:
            live = self._live.get(self.job(id).id)
            if live is None:
                return lambda: None
            live.listeners.append(wake)
        return lambda: self._unlisten(live, wake)

    def _unlisten(self, live: _Live, wake: Callable[[], None]) -> None:
        with self._lock:
            if wake in live.listeners:
                live.listeners.remove(wake)

    def stop(self) -> None:
        """See `jobs.base.Jobs`."""
        with self._lock:
            self._stopping = True
            found = list(self._live.values())
        for live in found:
            if live.asked is None or not self._ledger.lasts:
                self._end_soon(live, _interrupted(live.job, "the server stopped before it began", begun=False))
            elif self._begin(live):
                self._leave(live)
            else:
                live.stop.set()

    def _leave(self, live: _Live) -> None:
        """Let it be queued, for the next process; those who watch hear that nothing more comes."""
        with self._lock:
            self._live.pop(live.job.id, None)
            listeners = list(live.listeners)
        log_left(live.job)
        for wake in listeners:
            wake()

    def close(self) -> None:
        """See `jobs.base.Jobs`."""
        with self._lock:
            self._stopping = True
        self._pool.shutdown()

    def _end_soon(self, live: _Live, as_: Job) -> None:
        """Ask one that runs to end; one that waits ends like that."""
        live.stop.set()
        if self._begin(live):
            self._end(live, as_)

    def _begin(self, live: _Live) -> bool:
        """Whether nobody has begun to run it, or to end it before it ran."""
        with self._lock:
            begun, live.begun = live.begun, True
        return not begun

    def _run(self, live: _Live) -> None:
        if not self._begin(live):
            return
        self._change(live, state=State.RUNNING, started=time.time_ns())
        log_begun(live.job)
        try:
            self._keep(live.job)
            job = self._after(live, live.work(_Control(self, live)))
        except TapehouseError as exc:
            job = self._failed(live, Problem(exc.code, exc.message), exc.details.get("report"))
        except Exception as exc:
            logger.exception("the job %s failed", live.job.id)
            fault = Problem(TapehouseError.code, f"a fault in tapehouse: {type(exc).__name__}; the server's log has it")
            job = self._failed(live, fault)
        self._end(live, job)

    def _after(self, live: _Live, ended: Ended) -> Job:
        """The job whose work came to an end."""
        shown = {name: getattr(ended, name) for name in ("report", "hidden", "files", "refused", "problems")}
        job = msgspec.structs.replace(live.job, batch=ended.batch or live.job.batch, **shown)
        if ended.error is not None:
            return _ended(job, State.FAILED, ended.error)
        if ended.whole:
            return _ended(job, State.DONE)
        if live.cancelled or not self._stopping:
            return _ended(job, State.CANCELLED, resume=resume_with(job))
        return _interrupted(job, "the server stopped")

    def _failed(self, live: _Live, problem: Problem, report: Any = None) -> Job:
        job = msgspec.structs.replace(live.job, report=report if isinstance(report, dict) else None)
        return _ended(job, State.FAILED, problem, resume=resume_with(job) if report else None)

    def _end(self, live: _Live, job: Job) -> None:
        """The last change; then what was to be done afterwards, and the listeners hear of it."""
        if live.after is not None:
            try:
                live.after()
            except OSError:
                logger.exception("what the job %s left could not be removed", job.id)
        job = msgspec.structs.replace(job, version=live.job.version + 1)
        try:
            self._keep(job)
        except TapehouseError:
            # The rows are as the job says, and it is over; what is kept of it will say that it was interrupted.
            logger.exception("the end of the job %s could not be kept", job.id)
        log_ended(job)
        with self._lock:
            live.job = self._kept[job.id] = job
            self._live.pop(job.id, None)
            listeners = list(live.listeners)
        for wake in listeners:
            wake()

    def _change(self, live: _Live, **what: Any) -> None:
        with self._lock:
            live.job = msgspec.structs.replace(live.job, version=live.job.version + 1, **what)
            listeners = list(live.listeners)
        for wake in listeners:
            wake()

    def _newest(self, job: Job) -> Job:
        live = self._live.get(job.id)
        return job if live is None else live.job

    def _keep(self, job: Job) -> None:
        self._ledger.put({job.id: job})
        with self._lock:
            self._kept[job.id] = job

    def _too_old(self) -> list[str]:
        over = sorted((job for job in self._kept.values() if job.state.is_over), key=lambda job: job.created)
        return [job.id for job in over[: max(0, len(over) - KEPT_JOBS + 1)]]


class _Live:
    """A job that is not over."""

    def __init__(self, job: Job, work: Work, after: Callable[[], None] | None, asked: bytes | None) -> None:
        self.job, self.work, self.after, self.asked = job, work, after, asked
        self.stop = threading.Event()
        self.begun = self.cancelled = False
        self.listeners: list[Callable[[], None]] = []


class _Control:
    """What the work of one job is given (`jobs.base.Control`)."""

    def __init__(self, runner: Runner, live: _Live) -> None:
        self._runner, self._live = runner, live
        self.stop = live.stop

    def progress(self, progress: Progress) -> None:
        """See `jobs.base.Control`."""
        self._runner._change(self._live, progress=progress)


_NOTHING = msgspec.Raw(b"null")


class _Kept(msgspec.Struct, frozen=True):
    """A job as it is kept; while it is queued, with what it was asked."""

    job: Job
    asked: msgspec.Raw = _NOTHING


class _Ledger:
    """Jobs as documents of the store; of a store that keeps none, they are forgotten with the process."""

    def __init__(self, store: Any) -> None:
        self._store: KeepsDocuments | None = store if Capability.DOCUMENTS in store.capabilities else None

    @property
    def lasts(self) -> bool:
        """Whether jobs outlive the process."""
        return self._store is not None

    def read(self) -> list[_Kept]:
        """All that were kept."""
        if self._store is None:
            return []
        return [_decoded(document) for document in self._store.documents(COLLECTION).values()]

    def put(self, jobs: Mapping[str, Job | None], asked: bytes | None = None) -> None:
        """Keep or, with None, forget; with what was asked of those that are queued."""
        if self._store is None:
            return
        raw = _NOTHING if asked is None else msgspec.Raw(asked)
        encoded = {id: None if job is None else msgspec.json.encode(_Kept(job, raw)) for id, job in jobs.items()}
        self._store.put_documents(COLLECTION, encoded)

    def has_begun(self, job: Job) -> bool:
        """Whether the load had begun to write down how far it is, so that it can be resumed."""
        if job.kind != "load" or job.batch == NEWEST or self._store is None:
            return True
        return bool(self._store.documents(LOADS, [job.batch]))


def _decoded(document: bytes) -> _Kept:
    """A job as it is kept, or as it was kept before queued ones outlived their process."""
    if "job" in msgspec.json.decode(document, type=dict[str, msgspec.Raw]):
        return msgspec.json.decode(document, type=_Kept)
    return _Kept(msgspec.json.decode(document, type=Job))


def _ended(job: Job, state: State, error: Problem | None = None, resume: str | None = None) -> Job:
    return msgspec.structs.replace(
        job,
        state=state,
        ended=time.time_ns(),
        version=job.version + 1,
        progress=_at_the_end(job.progress, whole=state is State.DONE),
        error=error,
        resume=resume,
    )


def _at_the_end(progress: Progress | None, *, whole: bool) -> Progress | None:
    """The last progress: nothing is left of work that is done, and of other work nobody knows what it would take."""
    if progress is None:
        return None
    done = progress.bytes_total if whole else progress.bytes_done
    return msgspec.structs.replace(progress, bytes_done=done, eta_s=0.0 if whole else None)


def _interrupted(job: Job, why: str, *, begun: bool = True) -> Job:
    said = why if job.started is None else f"{why}; what it had written stays"
    return _ended(job, State.INTERRUPTED, Problem(Unavailable.code, said), resume_with(job, begun=begun))
