"""The threads of an export: each asks for the rows of a job, cuts them into files, and writes these in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import date
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tapehouse.codec.content import Sums, add_to, sums_of
from tapehouse.errors import TapehouseError
from tapehouse.export.base import FileEntry, OnProgress, Progress, Source, series_name
from tapehouse.export.faults import faults
from tapehouse.export.files import Written, write_part
from tapehouse.export.journal import Entry, Journal
from tapehouse.export.names import path_of, safe, table_of
from tapehouse.export.periods import cut, runs, times_of
from tapehouse.export.plan import Job
from tapehouse.model import NAME, Instruments, Kind
from tapehouse.times import format_time

_POLL_S = 0.1


class _Target(NamedTuple):
    """The file that rows belong to."""

    symbol: str | None
    first: date | None


class _Account:
    """What is known of the rows of a file once they have passed."""

    def __init__(self, kind: Kind, *, hashed: bool) -> None:
        self._kind, self._hashed = kind, hashed
        self._rows = 0
        self._times: list[int] = []
        self._symbols: dict[str, None] = {}
        self._content: Sums = {}

    def add(self, batch: pa.RecordBatch) -> None:
        times = times_of(batch)
        self._rows += len(times)
        self._times = [min([*self._times, int(times.min())]), max([*self._times, int(times.max())])]
        self._symbols |= dict.fromkeys(symbol for symbol, _ in runs(batch))
        if self._hashed:
            add_to(self._content, sums_of(self._kind, batch))

    def entry(self, path: str, job: Job, written: Written) -> Entry:
        """The file's line in the journal."""
        file = FileEntry(
            path=path,
            kind=job.kind,
            interval=job.interval,
            rows=self._rows,
            bytes=written.bytes,
            sha256=written.sha256,
            symbols=tuple(self._symbols),
            first=format_time(self._times[0]),
            last=format_time(self._times[1]),
        )
        return Entry(file=file, content=self._content)


class Writing:
    """What the threads of one export share."""

    def __init__(
        self,
        source: Source,
        journal: Journal,
        instruments: Instruments,
        total: int | None,
        progress: OnProgress | None,
    ) -> None:
        self._source, self._journal, self._instruments = source, journal, instruments
        self._options, self._names = journal.header.options, journal.header.names
        self._total, self._progress = total, progress
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._started = time.perf_counter()
        self._rows = sum(entry.file.rows for entry in journal.entries)
        self._bytes = sum(entry.file.bytes for entry in journal.entries)
        self._files = len(journal.entries)
        self._file = ""

    def all(self, jobs: Iterable[Job], threads: int) -> None:
        """Do all jobs; the first error, or an interrupt, stops the others at their next batch."""
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(threads, thread_name_prefix="tapehouse-export") as pool:
            try:
                for job in jobs:
                    running.add(pool.submit(self._do, job))
                    while len(running) > threads:
                        running = self._settled(running)
                while running:
                    running = self._settled(running)
            except BaseException:
                self._stopped.set()
                for future in running:
                    future.cancel()
                raise

    def _settled(self, running: set[Future[None]]) -> set[Future[None]]:
        """Those that are not over after a moment; raises what the others raised."""
        done, left = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        if self._progress is not None:
            self._progress(self._told())
        return left

    def _told(self) -> Progress:
        with self._lock:
            return Progress(
                file=self._file,
                files=self._files,
                rows=self._rows,
                rows_total=self._total,
                bytes=self._bytes,
                seconds=time.perf_counter() - self._started,
            )

    def _do(self, job: Job) -> None:
        for target, pieces in groupby(self._pieces(job), key=lambda piece: piece[0]):
            self._write(job, target, (rows for _, rows in pieces))
        if self._options.by_symbol:
            self._journal.finish_symbols(series_name(job.kind, job.interval), job.symbols)

    def _pieces(self, job: Job) -> Iterator[tuple[_Target, pa.RecordBatch]]:
        if self._options.by_symbol:
            for piece in cut(self._batches(job), self._options.period, self._instruments):
                yield _Target(piece.symbol, piece.first), piece.rows
        else:
            for batch in self._batches(job):
                yield _Target(None, job.first), batch

    def _batches(self, job: Job) -> Iterator[pa.RecordBatch]:
        for request in job.requests:
            with self._source.rows(request) as rows:
                for batch in rows.batches:
                    if self._stopped.is_set():
                        raise TapehouseError("the export was stopped")
                    batch = self._within(batch)
                    if batch.num_rows:
                        yield _with_origin(batch) if self._options.resample else batch

    def _within(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows between instants: where a file has a period for all symbols, the questions were for whole ones."""
        if self._options.by_symbol or self._options.period is None:
            return batch
        times, start, end = times_of(batch), self._options.start, self._options.end
        keep = np.ones(len(times), bool)
        if isinstance(start, int):
            keep &= times >= start
        if isinstance(end, int):
            keep &= times < end
        return batch if keep.all() else batch.filter(pa.array(keep))

    def _write(self, job: Job, target: _Target, batches: Iterator[pa.RecordBatch]) -> None:
        """One file, unless it is whole already."""
        path = self._path(job, target)
        if self._journal.has(path):
            for _ in batches:  # the rows of the next file come after these
                pass
            return
        self._journal.check_free(path)
        self._file = path
        full = self._journal.folder / path
        with faults(str(full)):
            full.parent.mkdir(parents=True, exist_ok=True)
        account = _Account(job.kind, hashed=self._journal.header.formula is not None)
        first = next(batches)
        rows = self._counted(account, chain([first], batches))
        schema = first.schema.remove_metadata()
        written = write_part(full, self._options.format, table_of(job.kind, job.interval), schema, rows)
        self._journal.add(account.entry(path, job, written))
        with self._lock:
            self._bytes += written.bytes
            self._files += 1

    def _counted(self, account: _Account, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            account.add(batch)
            with self._lock:
                self._rows += batch.num_rows
            yield batch.replace_schema_metadata(None)

    def _path(self, job: Job, target: _Target) -> str:
        name = None if target.symbol is None else self._names.get(target.symbol) or safe(target.symbol)
        return path_of(job.kind, job.interval, name, target.first, self._options.period, self._options.format)


def _with_origin(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with the columns that bars have which were made; where none of an answer were, it has them not."""
    if "made_from" in batch.schema.names:
        return batch
    origin = pa.DictionaryArray.from_arrays(pa.array(np.zeros(batch.num_rows, np.int32)), pa.array(["stored"]))
    columns = [*batch.columns, origin.cast(NAME), pa.array(np.ones(batch.num_rows, bool))]
    return pa.RecordBatch.from_arrays(columns, names=[*batch.schema.names, "made_from", "complete"])
