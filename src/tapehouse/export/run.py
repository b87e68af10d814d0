"""The export: questions are asked and files written by threads, each file whole before it has its name.

    threads: ask for the rows of a job ──► cut them into files ──► write, sync, note, name
    then:    remove what the export replaces ──► the manifest

A thread holds a few batches of rows and one file, so that memory does not grow with what is exported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import msgspec

from tapehouse.codec.content import FORMULA, Sums, add_to
from tapehouse.errors import Conflict
from tapehouse.export import plan
from tapehouse.export.base import UNFINISHED, Existing, ExportOptions, Manifest, OnProgress, Source, series_name
from tapehouse.export.journal import (
    Entry,
    Header,
    Journal,
    Line,
    check_new,
    check_resumable,
    claim,
    header_of,
    read_manifest,
    resume,
    start,
)
from tapehouse.export.names import distinct, table_of
from tapehouse.export.writing import Writing
from tapehouse.model import Instrument, Instruments
from tapehouse.store.base import Series
from tapehouse.times import format_time

DATA_FOLDER_MARK = "owner.lock"
"""A folder with this file is a store's; what is in it is not loaded, and not exported to."""


def export(
    source: Source,
    folder: str | Path,
    options: ExportOptions | None = None,
    *,
    existing: Existing = Existing.REFUSE,
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> Manifest:
    """Write the rows asked for to files in a folder, as of one commit, and say what was written.

    Raises `Conflict` when the folder has an export, finished or not, or a file of a name that is needed, unless
    `existing` says what to do about it; `NotFound` when there is nothing of what was asked for; `StoreFull` when the
    disk is full. Whatever is raised, and however the process ends, the files that have their names are whole, and
    `existing="resume"` goes on.
    """
    options, folder = options or ExportOptions(), Path(folder).absolute()
    if existing is Existing.RESUME and (finished := _finished(folder, options)) is not None:
        return finished
    journal, series = _begin(source, folder, options, existing)
    try:
        instruments = source.instruments()
        left = [each for each in series if not journal.is_done(series_name(each.kind, each.interval), each.symbol)]
        writing = Writing(source, journal, Instruments(instruments), _total(journal.header.options, series), progress)
        jobs = plan.jobs(source, journal.header.options, left, journal.header.commit)
        writing.all(jobs, threads or os.cpu_count() or 1)
        manifest = _manifest(journal, instruments)
        journal.finish(manifest)
        return manifest
    finally:
        journal.close()


def _finished(folder: Path, options: ExportOptions) -> Manifest | None:
    """The manifest of a folder whose export is over, so that there is nothing to resume."""
    manifest = read_manifest(folder)
    if manifest is None or (folder / UNFINISHED).exists():
        return None
    if options not in (ExportOptions(), manifest.options):
        raise Conflict(f"{folder} has another export, which is finished; --overwrite replaces it", folder=str(folder))
    return manifest


def _begin(source: Source, folder: Path, options: ExportOptions, existing: Existing) -> tuple[Journal, list[Series]]:
    """The folder made ours, and what is to be exported to it."""
    was_there = folder.exists()
    if mark := next((each for each in (folder, *folder.parents) if (each / DATA_FOLDER_MARK).exists()), None):
        raise Conflict(f"{mark} is the data folder of a store; export to another one", folder=str(folder))
    if (old := read_manifest(folder)) is not None and existing is Existing.REFUSE:
        raise Conflict(f"{folder} has an export already; --overwrite replaces it", folder=str(folder))
    fd, lines = claim(folder)
    try:
        check_new(folder, lines, existing)
        if existing is Existing.RESUME:
            return _resumed(source, folder, fd, lines, options)
        commit = plan.commit_of(source, options.as_of)
        series = plan.chosen(source, options, commit)
        plan.check(options, series, commit)
        header = _header(source, options, commit, series)
        if existing is Existing.OVERWRITE:
            header = msgspec.structs.replace(header, overwrites=True, replaces=_replaced(old, lines))
        else:
            _check_free(folder, series, options)
        return start(folder, fd, header), series
    except BaseException:
        if not lines:
            (folder / UNFINISHED).unlink(missing_ok=True)
        if not was_there and not any(folder.iterdir()):
            folder.rmdir()
        os.close(fd)
        raise


def _resumed(
    source: Source, folder: Path, fd: int, lines: Sequence[Line], options: ExportOptions
) -> tuple[Journal, list[Series]]:
    header = header_of(lines)
    check_resumable(header, options, folder)
    if _recorded(source, header.commit) != header.recorded:
        raise Conflict(
            f"the unfinished export in {folder} is of another store: its commit {header.commit} was recorded at "
            f"{header.recorded}",
            folder=str(folder),
        )
    return resume(folder, fd, lines), plan.chosen(source, header.options, header.commit)


def _header(source: Source, options: ExportOptions, commit: int, series: Sequence[Series]) -> Header:
    # The hash is of rows as they are stored, with all their columns.
    whole = options.columns is None and not options.resample
    return Header(
        id=str(uuid4()),
        tapehouse=version("tapehouse"),
        created=format_time(time.time_ns()),
        commit=commit,
        recorded=_recorded(source, commit),
        options=options,
        formula=FORMULA if whole else None,
        names=distinct({each.symbol for each in series}),
    )


def _recorded(source: Source, commit: int) -> str | None:
    """When a commit was recorded; None for the time before the first."""
    found = source.commits(after=commit - 1, limit=1) if commit else []
    return format_time(found[0].recorded) if found else None


def _replaced(old: Manifest | None, lines: Iterable[Line]) -> tuple[str, ...]:
    """The files of exports that are in the folder, finished or not."""
    paths = set() if old is None else {file.path for file in old.files}
    for line in lines:
        paths.update([line.file.path] if isinstance(line, Entry) else [])
        paths.update(line.replaces if isinstance(line, Header) else [])
    return tuple(sorted(paths))


def _check_free(folder: Path, series: Iterable[Series], options: ExportOptions) -> None:
    """Refuse early what would be refused at the first file."""
    for table in sorted({table_of(each.kind, each.interval) for each in series}):
        for path in (folder / table, folder / f"{table}.{options.format}"):
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                raise Conflict(f"{path} is there already; --overwrite replaces it, or export elsewhere", file=str(path))


def _total(options: ExportOptions, series: Iterable[Series]) -> int | None:
    """How many rows there will be, where that is known."""
    if options.resample or options.source or options.as_of or (options.start, options.end) != (None, None):
        return None
    return sum(each.rows for each in series)


def _manifest(journal: Journal, instruments: Sequence[Instrument]) -> Manifest:
    header, entries = journal.header, journal.entries
    content: dict[str, Sums] = {}
    for entry in entries:
        add_to(content.setdefault(series_name(entry.file.kind, entry.file.interval), {}), entry.content)
    hashes = {name: {symbol: f"{each.hash:016x}" for symbol, each in sums.items()} for name, sums in content.items()}
    return Manifest(
        id=header.id,
        tapehouse=header.tapehouse,
        created=header.created,
        commit=header.commit,
        recorded=header.recorded,
        format=header.options.format,
        options=header.options,
        rows=sum(entry.file.rows for entry in entries),
        bytes=sum(entry.file.bytes for entry in entries),
        files=tuple(entry.file for entry in entries),
        formula=header.formula,
        content=hashes if header.formula else {},
        instruments=tuple(instruments),
    )
