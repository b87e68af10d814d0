"""The load of files: in order, in bounded memory, and such that it can be interrupted anywhere and go on."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import msgspec

from tapehouse import errors
from tapehouse.bulk.base import Counts, FileReport, LoadOptions, LoadReport, OnProgress, RecognisedFile, Writer
from tapehouse.bulk.journal import check_not_undone, earlier, identity
from tapehouse.bulk.plan import plan
from tapehouse.bulk.run.claims import claimed
from tapehouse.bulk.run.loading import Inspect, Loading
from tapehouse.errors import InvalidData, TapehouseError
from tapehouse.model import Instrument

_FROM_THE_START = "the load to resume ended before it wrote anything: this one begins from the start"


def load(
    paths: Sequence[str | Path],
    writer: Writer,
    options: LoadOptions | None = None,
    *,
    instruments: Sequence[Instrument] = (),
    quarantine_dir: str | Path,
    progress: OnProgress | None = None,
    files: Sequence[RecognisedFile] | None = None,
    stop: threading.Event | None = None,
    inspect: Inspect | None = None,
) -> LoadReport:
    """Write all good rows of the files, quarantine the bad ones, and say what became of each.

    `files` is the result of `plan`, when the caller made one already. `instruments` are those that the store knows, in
    whose zones bars of days and longer begin. A file that cannot be read, or not to its end,
    has a `problem` in the report, and the others are loaded; when none of them can be, its error is raised
    (`UnreadableFile`, `UnrecognisedFile`). Rows that the writer does not take for a while are written again, then set
    aside in a file of the report. Other errors of the writer or of the quarantine (`StoreFull`, `Conflict`) stop the
    load: they are raised with how far it came, and the report in `details["report"]`. `Conflict` is raised too while
    another load has one of the files, and `StoreDamaged` when the store does not give back what was read.

    Ctrl-C (in the main thread) or `stop`, once it is set, lets the current write finish; the report says that the load
    was interrupted. What was committed stays. `options.resume` goes on where a load stopped or was killed; without it,
    a second load of the same files finds what is there unchanged. `inspect` is shown every table of good rows
    once it is stored.
    """
    options = options or LoadOptions()
    files = plan(paths, options) if files is None else files
    check_any(files)
    asked_to_stop = stop or threading.Event()
    known = {identity(file): file.name for file in files if file.problem is None}
    before = None if options.resume is None else earlier(writer, options.resume, list(known))
    if before is not None and before.state == "finished":
        check_not_undone(writer, before.batch)
        return _nothing_left(before.batch, files)
    batch = before.batch if before is not None else options.batch or _new_batch()
    with claimed(writer, batch, known.items()):
        loading = Loading(files, writer, options, batch, Path(quarantine_dir) / batch, asked_to_stop)
        loading.progress, loading.inspect = progress, inspect
        if before is None:
            loading.journal.begin()
            if options.resume is not None:
                loading.files[0].report.notes.append(_FROM_THE_START)
        else:
            loading.resume(before)
        with _on_interrupt(asked_to_stop.set):
            return loading.run(instruments)


def _nothing_left(batch: str, files: Sequence[RecognisedFile]) -> LoadReport:
    """What became of the files now that the load to resume had finished with them."""
    reports = [FileReport(file=file, counts=Counts(), problem=file.problem) for file in files]
    reports[0].notes.append(f"load {batch} came to its end: nothing is left to do")
    return LoadReport(batch=batch, files=reports, totals=Counts())


def check_any(files: Sequence[RecognisedFile]) -> None:
    """Raise the problem of the first file as the error that it is, when none of the files can be loaded."""
    if files and all(file.problem is not None for file in files):
        raise _error(files)


def _error(files: Sequence[RecognisedFile]) -> TapehouseError:
    problems = [file.problem for file in files if file.problem is not None]
    kinds = {kind.code: kind for kind in (errors.UnreadableFile, errors.UnrecognisedFile)}
    more = f" (and {len(problems) - 1} other files that cannot be loaded)" if len(problems) > 1 else ""
    kind = kinds.get(problems[0].code, InvalidData)
    return kind(problems[0].message + more, problems=msgspec.to_builtins(problems))


@contextmanager
def _on_interrupt(interrupt: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C asks the load to stop; a second one raises as usual. Only the main thread can listen for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def asked(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        interrupt()

    signal.signal(signal.SIGINT, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _new_batch() -> str:
    return f"load-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
