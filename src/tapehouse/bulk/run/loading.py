"""One load while it runs: what comes in is gathered, written, and then written down as settled.

a thread reads and splits ──► workers parse, judge and hash ──► this one merges, numbers, quarantines and writes
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from tapehouse.bulk.account import FileLoad, Piece
from tapehouse.bulk.base import (
    Certified,
    Counts,
    LoadOptions,
    LoadReport,
    OnProgress,
    Problem,
    Progress,
    RecognisedFile,
    Workers,
    Writer,
)
from tapehouse.bulk.certificate import Auditor, Series, can_certify, check
from tapehouse.bulk.journal import FileProgress, Journal, LoadProgress, restore
from tapehouse.bulk.progress import Pace
from tapehouse.bulk.quarantine import Quarantine
from tapehouse.bulk.run.batches import BatchSize, Gathering, series_of
from tapehouse.bulk.run.conflicts import explained
from tapehouse.bulk.run.feed import Fed, Feed
from tapehouse.bulk.run.workers import Workers as Pool
from tapehouse.bulk.run.writing import Writing
from tapehouse.codec.content import Sums, add_to
from tapehouse.errors import Conflict, InvalidData, InvalidRequest, TapehouseError
from tapehouse.model import Instrument, Interval, Kind
from tapehouse.store.base import Capability, Met, Outcome

Inspect = Callable[[Kind, Interval | None, pa.Table], None]

PROCESSES_PAY_BYTES = 256 << 20
"""Text that is worth the start of a process for each core."""
_OTHERWISE = " with another on_conflict: replace (the later row counts), keep (the first one), or prefer (sources)"


class Loading:
    """One load."""

    def __init__(
        self,
        files: Sequence[RecognisedFile],
        writer: Writer,
        options: LoadOptions,
        batch: str,
        folder: Path,
        stop: threading.Event,
    ) -> None:
        self.batch, self.options, self._writer, self._folder, self._asked_to_stop = batch, options, writer, folder, stop
        self._quarantine = Quarantine(folder)
        self.files = [FileLoad(number, file, self._quarantine.file(file.name)) for number, file in enumerate(files, 1)]
        self._together = Capability.TOGETHER in getattr(writer, "capabilities", ())
        self._certifies = options.certificate and can_certify(writer)
        self.journal = Journal(writer, batch, self.files, options.block_bytes)
        self.journal.load.quarantine = self._quarantine.names()
        self._writing = Writing(writer, options, batch, folder, together=self._together, stop=stop)
        self._size, self._gathering = BatchSize(options.batch_rows), Gathering()
        self._bytes_total = sum(file.size for file in files)
        self._bytes_done = self._rows = self._quarantined = self._head = 0
        self._interrupted = False
        self._started = self._written_at = time.perf_counter()
        self._pace = Pace(self._started, self._bytes_total)
        self._certified: Certified | None = None
        self.inspect: Inspect | None = None
        self.progress: OnProgress | None = None

    def resume(self, earlier: LoadProgress) -> None:
        """Go on with an earlier load of that batch."""
        self._quarantine.resume(earlier.quarantine)
        for progress in self.journal.resume(earlier, self.files):
            self.files.append(self._left(progress))
        self._writing.set_aside = self.journal.tally.set_aside
        self._head = max(self.journal.tally.mine, default=0)
        self.options = msgspec.structs.replace(self.options, block_bytes=earlier.block_bytes)

    def _left(self, progress: FileProgress) -> FileLoad:
        """What an earlier run settled of a file that is not there now, or not as it was: it stays part of the load."""
        known = RecognisedFile(
            path=progress.path,
            name=progress.name,
            source=progress.source,
            size=0,
            kind=progress.kind,
            interval=progress.interval,
        )
        file = FileLoad(len(self.files) + 1, known, self._quarantine.file(progress.name))
        restore(file, progress)
        changed = any(each.file.path == progress.path or each.file.name == progress.name for each in self.files)
        if changed:
            file.forget_bad()
        file.finished()
        stored = f"{file.settled.read:,} rows were loaded of it before, which stay in the store"
        if changed:
            file.report.notes.append(f"changed since, or read with other options: {stored}; it is loaded anew")
        elif progress.done:
            file.report.notes.append(f"not among the files any more: {stored}")
        else:
            said = f"{progress.name} is not among the files any more, and was not loaded to its end: {stored}"
            file.report.problem = Problem(InvalidRequest.code, f"{said}; resume with it to go on")
        return file

    def run(self, instruments: Sequence[Instrument]) -> LoadReport:
        """Read, write, certify; raises what stops a load, with its report in `details`."""
        try:
            return self._run(instruments)
        finally:
            self.journal.stop()

    def _run(self, instruments: Sequence[Instrument]) -> LoadReport:
        self._auditor = Auditor(self._writer, self.batch, self.journal.load.first, self.journal.tally)
        workers = Pool(self.options.threads or os.cpu_count() or 1, processes=self._processes())
        feed = Feed(self.files, workers, self.options, instruments, sums=self._certifies)
        try:
            self._merge(feed)
            self._finish()
        except TapehouseError as exc:
            self._end_files()
            raise self._stopped(exc) from exc
        finally:
            feed.close()
            workers.close()
            self._end_files()
        return self.report()

    def _processes(self) -> bool:
        if self.options.workers is not Workers.AUTO:
            return self.options.workers is Workers.PROCESSES
        text = sum(file.file.size for file in self.files if file.file.dialect is not None and not file.ended)
        return text >= PROCESSES_PAY_BYTES

    def _merge(self, feed: Feed) -> None:
        for fed in feed.taken(self._asked_to_stop.is_set):
            if fed.block is None:
                self._end(fed)
            else:
                self._take(fed)
            self._tell(fed.file)
        self._interrupted = self._asked_to_stop.is_set()
        if not self._interrupted:
            self._flush()

    def _take(self, fed: Fed) -> None:
        assert fed.block is not None
        file = fed.file
        try:
            done = fed.block.result()
        except (pa.ArrowException, InvalidData) as exc:
            self._abandon(file, Problem(InvalidData.code, f"{file.file.name} cannot be read on: {exc}"))
            return
        if file.abandoned:
            return
        if fed.replay:
            file.replay(done.parsed)
            return
        piece = file.take(done.parsed, done.sums, fed.blocks, fed.place)
        self._rows += done.parsed.rows
        self._quarantined += done.parsed.bad_rows
        if problem := file.too_many_bad(self.options):
            self._abandon(file, problem)
            return
        self._gather(piece)

    def _abandon(self, file: FileLoad, problem: Problem) -> None:
        file.abandon(problem)
        self._gathering.drop(file)

    def _end(self, fed: Fed) -> None:
        fed.file.read_to_end()
        if problem := fed.file.too_many_bad(self.options, ended=True):
            self._abandon(fed.file, problem)
        self._gather(Piece(file=fed.file, end=True, problem=fed.problem))
        if not self._together:
            self._flush()

    def _gather(self, piece: Piece) -> None:
        if piece.rows and not self._gathering.takes(piece.file, together=self._together):
            self._flush()
        self._gathering.add(piece)
        if self._gathering.rows >= self._size.rows:
            self._flush()

    def _flush(self) -> None:
        """Write what waits; then it is settled, and written down as such."""
        gathered, self._gathering = self._gathering, Gathering()
        rows = list(gathered.by_file())
        stored, commit = self._write(rows) if rows else (True, None)
        files = {piece.file.number: piece.file for piece in gathered.pieces}
        for piece in gathered.pieces:
            piece.file.settle(piece, stored=stored and self._certifies)
            if stored and self.inspect is not None and piece.table is not None:
                self.inspect(piece.file.kind, piece.file.file.interval, piece.table)
        if rows or any(file.ended for file in files.values()):
            self.journal.settled(files.values(), commit)
        now = time.perf_counter()
        self._size.note(gathered.rows, gathered.bytes, now - self._written_at)
        self._written_at = now

    def _write(self, rows: list[tuple[FileLoad, pa.Table]]) -> tuple[bool, int | None]:
        """Whether the rows are stored (else they were set aside), and the number of the commit that they made."""
        try:
            written = self._writing.write(rows)
        except Conflict as exc:
            raise explained(exc, self._writer, rows, self.journal.tally.mine) from exc
        if written is None:
            for file, table in rows:
                file.put_aside(table.num_rows)
            self.journal.tally.set_aside = self._writing.set_aside
            return False, None
        commit, outcomes = written
        tally = self.journal.tally
        mine = set(tally.mine) if any(outcome.met != Met() for outcome in outcomes) else set()
        for (file, table), outcome in zip(rows, outcomes, strict=True):
            recounted, before = tally.recounted(outcome)
            file.written(table.num_rows, recounted, mine, before or commit.number)
        if self._certifies and any(outcome.unchanged for outcome in outcomes):
            self._find_unchanged(rows, outcomes)
        tally.retire()
        if not (commit.inserted or commit.replaced or commit.rejected):
            return True, None
        self._head = commit.number
        return True, commit.number

    def _find_unchanged(self, rows: list[tuple[FileLoad, pa.Table]], outcomes: list[Outcome]) -> None:
        # A row that is unchanged by one of another file is told from it only with both at hand.
        between = any(outcome.met.duplicates_between for outcome in outcomes)
        found = [
            (file.file.source, table)
            for (file, table), outcome in zip(rows, outcomes, strict=True)
            if outcome.unchanged or between
        ]
        self._auditor.unchanged(series_of(rows[0][0]), found, sum(each.unchanged for each in outcomes))

    def _finish(self) -> None:
        """What is certified is finished: a load that dies in between goes on with being certified."""
        if not self._interrupted and self._certifies:
            self._certify()
        self.journal.end("stopped" if self._interrupted or not self._complete() else "finished")

    def _complete(self) -> bool:
        return all(file.report.problem is None for file in self.files)

    def _certify(self) -> None:
        started = time.perf_counter()
        source: dict[Series, Sums] = {}
        for file in self.files:
            if file.file.kind is not None and file.sums:
                add_to(source.setdefault(series_of(file), {}), file.sums)
        totals = self._totals()
        certificate = check(self._auditor.certificate(source, totals, self._head))
        repeated = sum(each.repeated for each in self.journal.tally.unchanged)
        self._certified = Certified(
            series=len(certificate.series),
            rows=sum(each.stored_rows for each in certificate.series),
            unchanged=sum(each.unchanged for each in certificate.series),
            repeated=repeated,
            superseded=sum(each.superseded for each in certificate.series),
            seconds=time.perf_counter() - started,
            lost=_lost(totals, repeated),
        )

    def _end_files(self) -> None:
        for file in self.files:
            file.end(None)

    def _tell(self, file: FileLoad) -> None:
        if self.progress is None:
            return
        self._bytes_done += file.advance()
        self._pace.mark(time.perf_counter(), self._bytes_done, self._rows)
        self.progress(
            Progress(
                file=file.file.name,
                file_number=file.number,
                files=len(self.files),
                bytes_done=self._bytes_done,
                bytes_total=self._bytes_total,
                rows=self._rows,
                quarantined=self._quarantined,
                rows_per_s=self._pace.rows_per_s,
                eta_s=self._pace.eta_s,
            )
        )

    def _totals(self) -> Counts:
        totals = Counts()
        for file in self.files:
            for name in Counts.__struct_fields__:
                setattr(totals, name, getattr(totals, name) + getattr(file.report.counts, name))
        totals.commits = len(self.journal.tally.mine)  # several files may share one
        return totals

    def report(self) -> LoadReport:
        """What became of the load so far."""
        totals = self._totals()
        report = LoadReport(
            batch=self.batch,
            files=[file.report for file in self.files],
            totals=totals,
            head=self._head,
            seconds=time.perf_counter() - self._started,
            interrupted=self._interrupted,
            quarantine=str(self._folder) if totals.quarantined or totals.set_aside else None,
            set_aside=self._writing.set_aside,
            certificate=self._certified,
        )
        if self.journal.resumable:
            report.resume = self.batch
        return report

    def _stopped(self, exc: TapehouseError) -> TapehouseError:
        """The error that stopped the load, with how far it came, and how to go on."""
        report = self.report()
        totals = report.totals
        kept = totals.inserted + totals.replaced + totals.rejected
        said = f"{exc.message}. The load {self.batch} stopped: {kept:,} rows in {totals.commits:,} commits are stored"
        said += f" (up to commit {self._head}), " if self._head else ", "
        said += f"{totals.unwritten:,} rows that were read are not; "
        said += f"resume {self.batch} to go on" if report.resume else "load again to go on"
        said += _OTHERWISE if isinstance(exc, Conflict) else ""
        details: dict[str, Any] = {**exc.details, "report": msgspec.to_builtins(report)}
        return type(exc)(said, **details)


def _lost(totals: Counts, repeated: int) -> int:
    """How many stored rows are not current: those that were rejected, and those that later rows of the load replaced.

    A row that met one of its own load is a repeat, rejected (or its commit has the other one as rejected), or replaced
    the other one.
    """
    met = totals.duplicates_in_file + totals.duplicates_between_files
    met += totals.conflicts_in_file + totals.conflicts_between_files
    return totals.rejected + min(max(0, met - repeated - totals.rejected), totals.replaced)
