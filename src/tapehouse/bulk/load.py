"""The load: files are read and parsed by threads, and written by one, in order and in bounded memory.

    a thread reads and splits ──► threads parse and validate ──► this one merges, numbers, quarantines and writes

Only a few blocks are anywhere between being read and being merged, so that memory does not grow with the file.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

import msgspec
import pyarrow as pa

from tapehouse import errors
from tapehouse.bulk.account import FileLoad
from tapehouse.bulk.base import (
    Counts,
    LoadOptions,
    LoadReport,
    OnProgress,
    Problem,
    Progress,
    RecognisedFile,
    Writer,
)
from tapehouse.bulk.formats.blocks import blocks_of
from tapehouse.bulk.formats.text import Parsed
from tapehouse.bulk.plan import plan
from tapehouse.bulk.progress import Pace
from tapehouse.bulk.quarantine import QuarantineFile
from tapehouse.bulk.validate import Judge
from tapehouse.errors import InvalidData, TapehouseError
from tapehouse.model import Instrument

_POLL_S = 0.1


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
) -> LoadReport:
    """Write all good rows of the files, quarantine the bad ones, and say what became of each.

    `files` is the result of `plan`, when the caller made one already. A file that cannot be read, or not to its end,
    has a `problem` in the report, and the others are loaded; when none of them can be, its error is raised
    (`UnreadableFile`, `UnrecognisedFile`). An error of the writer or of the quarantine stops the load: it is raised
    with how far the load came, and the report in `details["report"]`. What was committed until then stays, and a
    second load of the same files finds it unchanged. Ctrl-C (in the main thread) or `stop`, once it is set, lets the
    current write finish; the report says that the load was interrupted.
    """
    options = options or LoadOptions()
    files = plan(paths, options) if files is None else files
    if files and all(file.problem is not None for file in files):
        raise _error(files)
    load = _Load(files, writer, options, instruments, Path(quarantine_dir), progress, stop or threading.Event())
    with _on_interrupt(load.interrupt):
        return load.run()


def _error(files: Sequence[RecognisedFile]) -> TapehouseError:
    """The problem of the first file as the error that it is."""
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


class _End(msgspec.Struct, frozen=True):
    """A file was read to its end, or to where it cannot be read."""

    problem: Problem | None = None


class _Load:
    """One load."""

    def __init__(
        self,
        files: Sequence[RecognisedFile],
        writer: Writer,
        options: LoadOptions,
        instruments: Sequence[Instrument],
        quarantine_dir: Path,
        progress: OnProgress | None,
        asked_to_stop: threading.Event,
    ) -> None:
        self._batch = options.batch or _new_batch()
        self._folder = quarantine_dir / self._batch
        self._files = [
            FileLoad(number, file, QuarantineFile(self._folder, file.name)) for number, file in enumerate(files, 1)
        ]
        self._bytes_total = sum(file.size for file in files)
        self._bytes_done = self._quarantined = 0
        self._writer, self._options, self._instruments, self._progress = writer, options, instruments, progress
        self._threads = options.threads or os.cpu_count() or 1
        self._slots = threading.Semaphore(2 * self._threads + 1)
        self._blocks: SimpleQueue[tuple[FileLoad, Future[Parsed] | _End] | None] = SimpleQueue()
        self._stop = threading.Event()
        self._asked_to_stop = asked_to_stop
        self._interrupted = False
        self._failure: BaseException | None = None
        self._head = self._rows = 0
        self._started = time.perf_counter()
        self._pace = Pace(self._started, self._bytes_total)

    def interrupt(self) -> None:
        """Stop after the write that runs; may be called from a signal handler."""
        self._asked_to_stop.set()

    def run(self) -> LoadReport:
        with ThreadPoolExecutor(self._threads, "tapehouse-parse") as pool:
            reader = threading.Thread(target=self._read, args=(pool,), name="tapehouse-read", daemon=True)
            reader.start()
            try:
                self._merge()
            except TapehouseError as exc:
                raise self._stopped(exc) from exc
            finally:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                reader.join()
                for file in self._files:
                    file.end(None)
        if self._failure is not None:
            raise self._failure
        return self._report()

    def _read(self, pool: ThreadPoolExecutor) -> None:
        """The reading thread: blocks of all files in order, each to the pool as soon as there is room for it."""
        try:
            for file in self._files:
                if file.file.problem is None and not self._stop.is_set():
                    self._blocks.put((file, self._read_file(file, pool)))
        except BaseException as exc:  # noqa: BLE001 - it is raised again by the merging thread
            self._failure = exc
        finally:
            self._blocks.put(None)

    def _read_file(self, file: FileLoad, pool: ThreadPoolExecutor) -> _End:
        judge = Judge(file.file, self._instruments)
        try:
            for parse, block in blocks_of(file.file, judge, self._options):
                while not self._slots.acquire(timeout=_POLL_S):
                    if self._stop.is_set():
                        return _End()
                if self._stop.is_set() or file.abandoned:
                    return _End()
                self._blocks.put((file, pool.submit(parse, block)))
        except InvalidData as exc:
            return _End(Problem(exc.code, exc.message))
        return _End()

    def _merge(self) -> None:
        """This thread: blocks in order, merged into batches and written."""
        while (found := self._next()) is not None:
            file, block = found
            if isinstance(block, _End):
                self._write(file, 1)
                file.end(block.problem)
                self._tell(file)
                continue
            try:
                parsed = block.result()
            except pa.ArrowException as exc:
                file.abandon(Problem(InvalidData.code, f"{file.file.name} cannot be read on: {exc}"))
                continue
            finally:
                self._slots.release()
            if not file.abandoned:
                self._take(file, parsed)

    def _next(self) -> tuple[FileLoad, Future[Parsed] | _End] | None:
        while not self._asked_to_stop.is_set():
            try:
                return self._blocks.get(timeout=_POLL_S)
            except Empty:
                continue
        self._interrupted = True
        return None

    def _take(self, file: FileLoad, parsed: Parsed) -> None:
        file.take(parsed)
        self._rows += parsed.rows
        self._quarantined += parsed.bad_rows
        if problem := file.too_many_bad(self._options):
            file.abandon(problem)
            return
        self._write(file, self._options.batch_rows)
        self._tell(file)

    def _write(self, file: FileLoad, rows: int) -> None:
        if file.file.kind is None or file.abandoned or (table := file.batch(rows)) is None:
            return
        commit = self._writer.write(
            file.file.kind,
            table,
            interval=file.file.interval,
            on_conflict=self._options.on_conflict,
            prefer=self._options.prefer,
            source=file.file.source,
            batch=self._batch,
        )
        file.written(table.num_rows, commit)
        self._head = commit.number if file.report.counts.commits else self._head

    def _tell(self, file: FileLoad) -> None:
        if self._progress is None:
            return
        self._bytes_done += file.advance()
        self._pace.mark(time.perf_counter(), self._bytes_done, self._rows)
        self._progress(
            Progress(
                file=file.file.name,
                file_number=file.number,
                files=len(self._files),
                bytes_done=self._bytes_done,
                bytes_total=self._bytes_total,
                rows=self._rows,
                quarantined=self._quarantined,
                rows_per_s=self._pace.rows_per_s,
                eta_s=self._pace.eta_s,
            )
        )

    def _report(self) -> LoadReport:
        totals = Counts()
        for file in self._files:
            for name in Counts.__struct_fields__:
                setattr(totals, name, getattr(totals, name) + getattr(file.report.counts, name))
        return LoadReport(
            batch=self._batch,
            files=[file.report for file in self._files],
            totals=totals,
            head=self._head,
            seconds=time.perf_counter() - self._started,
            interrupted=self._interrupted,
            quarantine=str(self._folder) if totals.quarantined else None,
        )

    def _stopped(self, exc: TapehouseError) -> TapehouseError:
        """The error that stopped the load, with how far it came."""
        report = self._report()
        totals = report.totals
        kept = totals.inserted + totals.replaced + totals.rejected
        said = f"{exc.message}. The load {self._batch} stopped: {kept:,} rows in {totals.commits:,} commits are stored"
        said += f" (up to commit {self._head}), " if self._head else ", "
        said += f"{totals.unwritten:,} rows that were read are not; load again to go on"
        return type(exc)(said, **exc.details, report=msgspec.to_builtins(report))


def _new_batch() -> str:
    return f"load-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
