"""The load: files are read and parsed by threads, and written by one, in order and in bounded memory.

    a thread reads and splits ──► threads parse and validate ──► this one merges, numbers, quarantines and writes

At most `depth` blocks are anywhere between being read and being merged, so that memory does not grow with the file.
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
from typing import Any

import msgspec
import pyarrow as pa

from tapehouse import errors
from tapehouse.bulk.base import (
    Counts,
    FileReport,
    Format,
    LoadOptions,
    LoadReport,
    OnProgress,
    Problem,
    Progress,
    RecognisedFile,
    Writer,
)
from tapehouse.bulk.formats import parquet
from tapehouse.bulk.formats.files import PIECE_BYTES, text_pieces
from tapehouse.bulk.formats.split import split
from tapehouse.bulk.formats.text import Parsed, TextParser
from tapehouse.bulk.ordinals import Ordinals
from tapehouse.bulk.plan import plan
from tapehouse.bulk.progress import Pace
from tapehouse.bulk.quarantine import QuarantineFile
from tapehouse.bulk.validate import Judge
from tapehouse.errors import InvalidData, TapehouseError
from tapehouse.model import Commit, Instrument, Kind

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
) -> LoadReport:
    """Write all good rows of the files, quarantine the bad ones, and say what became of each.

    `files` is the result of `plan`, when the caller made one already. A file that cannot be read, or not to its end,
    has a `problem` in the report, and the others are loaded; when none of them can be, its error is raised
    (`UnreadableFile`, `UnrecognisedFile`). An error of the writer or of the quarantine stops the load: it is raised
    with how far the load came, and the report in `details["report"]`. What was committed until then stays, and a
    second load of the same files finds it unchanged. Ctrl-C lets the current write finish and returns the report.
    """
    options = options or LoadOptions()
    files = plan(paths, options) if files is None else files
    if files and all(file.problem is not None for file in files):
        raise _error(files)
    load = _Load(files, writer, options, instruments, Path(quarantine_dir), progress)
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


class _File:
    """One file while it is loaded: rows that wait to be written, and what became of those before."""

    def __init__(self, file: RecognisedFile, quarantine: QuarantineFile) -> None:
        self.file = file
        self.report = FileReport(file=file, counts=Counts(), problem=file.problem)
        self.quarantine = quarantine
        self.abandoned = False
        self.bytes_done = 0
        self._ordinals = Ordinals(file.kind or Kind.BARS)
        self._waiting: list[pa.Table] = []
        self._remarks: dict[str, int] = {}
        self._started = time.perf_counter()
        self._ended = file.problem is not None

    def take(self, parsed: Parsed) -> None:
        """Take in a block, in the order of the file."""
        counts = self.report.counts
        counts.read += parsed.rows
        counts.quarantined += parsed.bad_rows
        counts.unwritten += parsed.table.num_rows
        self.quarantine.add(parsed.bad())
        for what, rows in parsed.remarks.items():
            self._remarks[what] = self._remarks.get(what, 0) + rows
        if parsed.table.num_rows:
            self._waiting.append(self._ordinals.add(parsed.table))
        self.bytes_done = max(self.bytes_done, parsed.source_bytes)

    def batch(self, rows: int) -> pa.Table | None:
        """The rows that wait, once there are that many."""
        waiting = sum(table.num_rows for table in self._waiting)
        if waiting < max(rows, 1):
            return None
        tables, self._waiting = self._waiting, []
        return pa.concat_tables(tables).unify_dictionaries()

    def written(self, rows: int, commit: Commit) -> None:
        counts = self.report.counts
        counts.unwritten -= rows
        counts.inserted += commit.inserted
        counts.replaced += commit.replaced
        counts.unchanged += commit.unchanged
        counts.rejected += commit.rejected
        counts.commits += bool(commit.inserted or commit.replaced or commit.rejected)

    def too_many_bad(self, options: LoadOptions) -> bool:
        counts = self.report.counts
        return counts.quarantined >= options.max_bad_rows and counts.quarantined > counts.read * options.max_bad_share

    def end(self, problem: Problem | None) -> None:
        """Close the file's report; idempotent."""
        if self._ended:
            return
        self._ended = True
        self.quarantine.close()
        report = self.report
        report.problem = report.problem or problem
        report.rejections = sorted(self.quarantine.rejections.values(), key=lambda each: -each.rows)
        report.quarantine = None if self.quarantine.path is None else str(self.quarantine.path)
        if self._ordinals.uncertain:
            what = "come after later ones, too far to tell whether equal rows are repeats; they were taken as repeats"
            self._remarks[what] = self._ordinals.uncertain
        report.notes = [f"{rows:,} rows {what}" for what, rows in self._remarks.items()]
        report.seconds = time.perf_counter() - self._started
        self.bytes_done = self.file.size


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
    ) -> None:
        self._batch = options.batch or _new_batch()
        self._folder = quarantine_dir / self._batch
        self._files = [_File(file, QuarantineFile(self._folder, file.name)) for file in files]
        self._writer, self._options, self._instruments, self._progress = writer, options, instruments, progress
        self._threads = options.threads or os.cpu_count() or 1
        self._slots = threading.Semaphore(2 * self._threads + 1)
        self._blocks: SimpleQueue[tuple[_File, Future[Parsed] | _End] | None] = SimpleQueue()
        self._stop = threading.Event()
        self._interrupted = False
        self._failure: BaseException | None = None
        self._head = self._rows = 0
        self._started = time.perf_counter()
        self._pace = Pace(self._started, sum(file.size for file in files))

    def interrupt(self) -> None:
        """Stop after the write that runs; may be called from a signal handler."""
        self._interrupted = True
        self._stop.set()

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

    def _read_file(self, file: _File, pool: ThreadPoolExecutor) -> _End:
        judge = Judge(file.file, self._instruments)
        try:
            for parse, block in _blocks(file.file, judge, self._options):
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
                self._abandon(file, Problem(InvalidData.code, f"{file.file.name} cannot be read on: {exc}"))
                continue
            finally:
                self._slots.release()
            if not file.abandoned:
                self._take(file, parsed)

    def _next(self) -> tuple[_File, Future[Parsed] | _End] | None:
        while not self._interrupted:
            try:
                return self._blocks.get(timeout=_POLL_S)
            except Empty:
                continue
        return None

    def _take(self, file: _File, parsed: Parsed) -> None:
        file.take(parsed)
        self._rows += parsed.rows
        if file.too_many_bad(self._options):
            self._abandon(file, _too_many_bad(file))
            return
        self._write(file, self._options.batch_rows)
        self._tell(file)

    @staticmethod
    def _abandon(file: _File, problem: Problem) -> None:
        file.abandoned = True
        file.report.problem = file.report.problem or problem

    def _write(self, file: _File, rows: int) -> None:
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

    def _tell(self, file: _File) -> None:
        if self._progress is None:
            return
        done = sum(each.bytes_done for each in self._files)
        self._pace.mark(time.perf_counter(), done, self._rows)
        self._progress(
            Progress(
                file=file.file.name,
                file_number=self._files.index(file) + 1,
                files=len(self._files),
                bytes_done=done,
                bytes_total=sum(each.file.size for each in self._files),
                rows=self._rows,
                quarantined=sum(each.report.counts.quarantined for each in self._files),
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


def _blocks(file: RecognisedFile, judge: Judge, options: LoadOptions) -> Iterator[tuple[Callable[[Any], Parsed], Any]]:
    """The blocks of a file, each with what parses it."""
    if file.format is Format.PARQUET:
        parse_part = parquet.ParquetParser(file, judge)
        yield from ((parse_part, part) for part in parquet.parts(file))
    elif file.dialect is not None:
        parse = TextParser(file, judge)
        piece_bytes = min(PIECE_BYTES, options.block_bytes)
        pieces = text_pieces(Path(file.path), file.member, file.compression, file.dialect, piece_bytes)
        pieces = _without_lines(pieces, file.dialect.skip)
        yield from ((parse, block) for block in split(pieces, options.block_bytes, file.dialect.skip + 1))


def _without_lines(pieces: Iterator[tuple[bytes, int]], lines: int) -> Iterator[tuple[bytes, int]]:
    """The text after its first lines."""
    for piece, done in pieces:
        rest = piece
        while lines and rest:
            newline = rest.find(b"\n")
            lines -= newline >= 0
            rest = rest[newline + 1 :] if newline >= 0 else b""
        if rest:
            yield rest, done


def _too_many_bad(file: _File) -> Problem:
    counts = file.report.counts
    worst = max(file.quarantine.rejections.values(), key=lambda each: each.rows)
    example = (
        f", for example line {worst.examples[0].line:,}: {worst.examples[0].row[:120]!r}" if worst.examples else ""
    )
    return Problem(
        InvalidData.code,
        f"{file.file.name}: {counts.quarantined:,} of the first {counts.read:,} rows are bad, mostly since "
        f"{worst.reason}{example}. The rest of the file was not read; mend the file or the options, "
        "or allow more bad rows (max_bad_share)",
    )
