"""A load into an open store as people ask for it: inspected as it goes, and the quality of its series kept; and what is
stored, looked at anew."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tapehouse.bulk.base import LoadOptions, LoadReport, OnProgress, RecognisedFile
from tapehouse.bulk.certificate import certificate_of
from tapehouse.bulk.checks import assess, inspector, record
from tapehouse.bulk.checks.base import Assessment, Checks, Inspector, Quality, Severity, Validate
from tapehouse.bulk.checks.inspection import shares
from tapehouse.bulk.load import load
from tapehouse.bulk.plan import plan, survey
from tapehouse.errors import NotSupported
from tapehouse.model import Instrument, Interval, Kind
from tapehouse.store.base import Capability

MAX_FINDINGS = 50
SAMPLED_FILES = 4
"""So many files are read at the beginning, large and small ones, to guess how many rows all of them have."""


def load_checked(
    paths: Sequence[str | Path],
    store: Any,
    options: LoadOptions | None = None,
    checks: Checks | None = None,
    *,
    quarantine_dir: str | Path,
    progress: OnProgress | None = None,
    files: Sequence[RecognisedFile] | None = None,
    stop: threading.Event | None = None,
) -> LoadReport:
    """`bulk.load` with the instruments of the store; of what `checks` find, the report has the grades and the worst.

    What was found of each series is kept where the store keeps documents; elsewhere nothing is inspected.
    """
    options = options or LoadOptions()
    instruments = store.instruments() if Capability.INSTRUMENTS in store.capabilities else []
    files = plan(paths, options) if files is None else files
    looking = None
    if Capability.DOCUMENTS in store.capabilities:
        chosen = checks or Checks(validate=Validate.SAMPLE)
        rows = _expected_rows(files, options, chosen.sample_rows) if chosen.validate is Validate.SAMPLE else None
        looking = inspector(chosen, instruments, rows)
    report = load(
        paths,
        store,
        options,
        instruments=instruments,
        quarantine_dir=quarantine_dir,
        progress=progress,
        files=files,
        stop=stop,
        inspect=None if looking is None else looking.inspect,
    )
    # What an interrupted load stored is graded when it has gone on to its end.
    if looking is not None and not report.interrupted:
        resumed = any(each.earlier is not None for each in report.files)
        _keep(store, looking, report, partial(_anew, store, instruments, chosen, report) if resumed else None)
    return report


def _expected_rows(files: Sequence[RecognisedFile], options: LoadOptions, sample_rows: int) -> int:
    """About how many rows there are; where only reading tells, by the bytes that a row has at the beginning of a few
    files, or, where there are fewer bytes than the sample has rows, no more than that."""
    able = [file for file in files if file.problem is None]
    told = sum(file.rows or 0 for file in able)
    others = [file for file in able if file.rows is None]
    size = sum(file.size for file in others)
    if size <= sample_rows / 2:
        return told + size
    few = sorted(others, key=lambda file: file.size)[:: -max(1, len(others) // SAMPLED_FILES)][:SAMPLED_FILES]
    rows = survey(few, options).rows
    return told + round(rows * size / max(1, sum(file.size for file in few)))


def _anew(store: Any, instruments: Sequence[Instrument], checks: Checks, report: LoadReport) -> Iterator[Quality]:
    """All series of a load that was resumed, looked at as they are stored: what runs that were killed had seen is gone.

    Which they are, its certificate says; without one, only what the last run saw is known.
    """
    for (kind, interval), rows in _certified(store, report).items():
        yield from assess(store, instruments, checks, kind=kind, symbols=list(rows), interval=interval)


def _certified(store: Any, report: LoadReport) -> dict[tuple[Kind, Interval | None], dict[str, int]]:
    """The symbols of all runs of a load, and the good rows of each, by kind and interval."""
    series: dict[tuple[Kind, Interval | None], dict[str, int]] = {}
    for each in certificate_of(store, report.batch).series if report.certificate is not None else ():
        series.setdefault((each.kind, each.interval), {})[each.symbol] = each.rows
    return series


def _keep(
    store: Any, looking: Inspector, report: LoadReport, anew: Callable[[], Iterable[Quality]] | None = None
) -> None:
    # The inspector shares out bad rows of files of many symbols among those that it saw: not all, after a resume.
    certified = {} if anew is None else _certified(store, report)
    for each in report.files:
        kind, interval, bad = each.file.kind, each.file.interval, each.counts.quarantined
        if not bad or kind is None:
            continue
        rows = certified.get((kind, interval)) if each.file.symbol is None else None
        if rows is None:
            looking.quarantined(kind, interval, bad, each.file.symbol)
        else:
            for symbol, share in zip(rows, shares(bad, np.array(list(rows.values()))).tolist(), strict=True):
                looking.quarantined(kind, interval, share, symbol)
    looks = looking.finish(batch=report.batch, commit=report.head)
    kept = record(store, looks)
    if anew is not None:
        kept = list(anew()) or kept
    report.grades = grades(kept)
    found = [finding for look in (looks if anew is None else kept) for finding in look.findings]
    worst = list(Severity)
    found.sort(key=lambda finding: (-worst.index(finding.severity), -finding.rows))
    report.findings = found[:MAX_FINDINGS]


def check_stored(
    store: Any, asked: Assessment, *, sample_rows: int | None = None, stop: threading.Event | None = None
) -> dict[str, int]:
    """Look at stored rows anew and keep the grades, series by series; how many series have each.

    Set `stop` to end it: series that it was done with keep their new grade, the others the one they had. Raises
    `NotSupported` where the store keeps no documents.
    """
    if Capability.DOCUMENTS not in store.capabilities:
        raise NotSupported("this store keeps no grades", capability=str(Capability.DOCUMENTS))
    instruments = store.instruments() if Capability.INSTRUMENTS in store.capabilities else []
    checks = Checks(validate=asked.validate)
    if sample_rows is not None:
        checks = msgspec.structs.replace(checks, sample_rows=sample_rows)
    found = assess(
        store, instruments, checks, kind=asked.kind, symbols=asked.symbols, interval=asked.interval, stop=stop
    )
    return grades(found)


def grades(qualities: Iterable[Quality]) -> dict[str, int]:
    """How many series have each grade; those of which nothing was inspected have none."""
    counts = Counter(str(quality.grade) for quality in qualities if quality.grade is not None)
    return dict(sorted(counts.items()))
