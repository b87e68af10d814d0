"""The contract of jobs: long work that somebody asked for, which goes on while nobody watches, and can be watched.

    submit ──► queued ──► running ──► done
                  │           ├─────► failed        an error ended it
                  └───────────┴─────► cancelled     somebody wanted it to end
                              └─────► interrupted   its process ended

What a job wrote before its end stays, whatever the end; `Job.resume` says how to go on. What is queued when its process
ends stays queued, and runs in the next one. No I/O here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tapehouse.bulk.base import Certificate, Description, LoadOptions, LoadReport, OnProgress, Problem, Progress
from tapehouse.bulk.checks.base import Assessment, Validate

COLLECTION = "jobs"
"""The collection of documents (`store.base.KeepsDocuments`) that holds a `Job` for each."""
LOADS = "loads"
"""The collection that has a document of each load that began, by its batch (`bulk.journal`)."""


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (State.QUEUED, State.RUNNING)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job, as it was at an instant. Times are UTC nanoseconds.

    `version` grows whenever anything else changes, and never goes back, whatever becomes of the process. `what` are the
    paths or the names of the uploaded files. `progress` is the newest, `report` that of the work
    (`bulk.base.LoadReport` of a load) once it has one, without the files that went well where there are very many
    (`hidden` of them). A load that is over had so many `files`, of which `refused` ones were not loaded, or not to
    their end; `problems` has the names and reasons of the first of them. `error` says why it is not done, `resume` how
    to go on.
    """

    id: str
    kind: str = "load"
    state: State = State.QUEUED
    version: int = 0
    batch: str
    what: tuple[str, ...] = ()
    created: int
    started: int | None = None
    ended: int | None = None
    progress: Progress | None = None
    report: dict[str, Any] | None = None
    hidden: int = 0
    files: int = 0
    refused: int = 0
    problems: tuple[Problem, ...] = ()
    error: Problem | None = None
    resume: str | None = None


class Control(Protocol):
    """What work is given: how it hears that it should end, and how it says how far it is."""

    @property
    def stop(self) -> threading.Event:
        """Set once the work should end after its current step."""

    def progress(self, progress: Progress) -> None:
        """The work is so far; cheap, may be called from any thread."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What became of work that raised nothing. `whole`: it came to its end; else it heeded `stop`. More: see `Job`."""

    whole: bool = True
    batch: str | None = None
    report: dict[str, Any] | None = None
    hidden: int = 0
    files: int = 0
    refused: int = 0
    problems: tuple[Problem, ...] = ()
    error: Problem | None = None


Work = Callable[[Control], Ended]
"""Does a job; what it raises is the job's error."""

Again = Callable[[bytes], tuple[Work, Callable[[], None] | None]]
"""Makes of what was `asked` the work and what comes `after`, as `Jobs.submit` was given them; raises nothing."""


class Jobs(Protocol):
    """The jobs of one store. All methods may be called from any thread and are quick, but for `close`."""

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
        """Have the work done when its turn comes, and then `after`, however it ended; `Overloaded` beyond the limit.

        When this raises, `after` is not called. `asked` (JSON) is kept until the work begins: when the process ends
        before that, `restart` makes the work of it. Without it, such a job is interrupted.
        """

    def restart(self, again: Again) -> None:
        """Queue what the last process had queued, in the order of then; once, before anything is submitted."""

    @property
    def stopping(self) -> bool:
        """Whether nothing begins any more: what is queued waits for the next process."""

    def jobs(self) -> list[Job]:
        """Those that are kept, newest first."""

    def job(self, id: str) -> Job:
        """How that one is now; `NotFound` when there is none."""

    def cancel(self, id: str) -> Job:
        """Ask it to end after its current step; what waits ends at once. Of one that is over, nothing changes."""

    def listen(self, id: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` after every change, from any thread, until the returned function is called.

        A listener that is slow asks for the job when it can, and so misses states in between, but never the last.
        """

    def stop(self) -> None:
        """Ask what runs to end soon, as interrupted, and take and begin nothing more."""

    def close(self) -> None:
        """Wait until nothing runs; idempotent."""


class LoadFiles(Protocol):
    """How files are loaded into the store whose jobs these are; `bulk.load` does it."""

    def __call__(
        self,
        paths: Sequence[str],
        options: LoadOptions,
        *,
        validate: Validate,
        progress: OnProgress,
        stop: threading.Event,
    ) -> LoadReport:
        """Load the files until they end or `stop` is set."""


class Certify(Protocol):
    """How a batch is certified; `bulk.certificate` does it."""

    def __call__(self, batch: str) -> Certificate:
        """The certificate as of now; `StoreDamaged` when the store has something else than the files had."""


class Assess(Protocol):
    """How what is stored is looked at anew; `bulk.checked.check_stored` does it."""

    def __call__(self, asked: Assessment, *, stop: threading.Event) -> dict[str, int]:
        """Keep the grades as they are made, until all are or `stop` is set; how many series have each."""


ReadFormats = Callable[[Any], tuple[Description, ...]]
"""Takes layouts as JSON has them, once each makes sense; `InvalidRequest` names the first that does not."""


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/jobs/load`: files that the server can reach, and what is said of them."""

    paths: tuple[str, ...]
    options: LoadOptions = LoadOptions()
    validate: Validate = Validate.SAMPLE


class Upload(Protocol):
    """Files that are being sent, as they come in. One thread at a time; its methods may block."""

    @property
    def folder(self) -> Path:
        """Where they are."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """The names of those that began, and how many bytes each has so far."""

    def begin(self, name: str) -> None:
        """The next bytes are of a file of that name, perhaps below folders; `InvalidRequest` for a name that cannot be
        one, or that came before."""

    def write(self, data: bytes | bytearray) -> None:
        """The next bytes of the file that began last; `LimitExceeded` or `StoreFull` when there are too many."""

    def end(self) -> None:
        """The file that began last is whole."""

    def discard(self) -> None:
        """Remove all of it; idempotent."""


class Loads(Protocol):
    """What loads can be asked for, as jobs. All methods may block."""

    @property
    def jobs(self) -> Jobs:
        """The jobs that they become."""

    def formats(self, said: Any) -> tuple[Description, ...]:
        """Layouts that somebody describes, as JSON has them; `InvalidRequest` says which makes no sense, and why."""

    def load(self, request: LoadRequest, *, anywhere: bool) -> Job:
        """Load files of this machine. Unless they may be `anywhere`, they lie in the allowed folders: `Forbidden`."""

    def upload(self) -> Upload:
        """A place for files that are sent."""

    def load_upload(self, upload: Upload, options: LoadOptions, validate: Validate = Validate.SAMPLE) -> Job:
        """Load what was sent, and remove it then, also when this raises; `InvalidRequest` when there is nothing."""

    def certify(self, batch: str) -> Job:
        """Compare again what a load read with what the store has; `NotFound` when it has no certificate."""

    def assess(self, asked: Assessment) -> Job:
        """Look at what is stored anew, and keep the grades; `NotSupported` where none are kept."""


def resume_with(job: Job, *, begun: bool = True) -> str:
    """How to go on with a job that was cut short; of a load, whether it had `begun` to write down how far it is."""
    if job.kind == "load" and not begun:
        return "load the same files again"
    if job.kind == "load":
        over_http = f'over HTTP: with the option "resume": "{job.batch}"'
        return f"load the same files again with --resume {job.batch} ({over_http})"
    return "ask for it again"
