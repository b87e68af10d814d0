"""Files into the store, everything validated, beside the same files into a raw DuckDB table."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import measure, ours
from benchmarks.bench import Bench
from benchmarks.data import DAILY_BARS, DAILY_FILES_A_SYMBOL
from benchmarks.measure import Figure

ABOUT = (
    "Every load runs in a process of its own, in turn, into an empty folder, and is timed from the first byte read to "
    "the last row durable; imports are not timed. Tapehouse recognises the files, validates every row, inspects a "
    "sample of 5 million, looks for what it would overwrite, and notes how far it came, as `tapehouse load` does; with "
    "its certificate it also hashes every row and reads all of them back. DuckDB inserts into a table of the same "
    "columns (`INSERT ... SELECT` from Parquet, `COPY` from CSV). Memory is "
    "the most that the process and its workers had resident together, mapped files included and shared pages counted "
    "for each. The daily bars are ten years of 10,000 symbols, a file each."
)
DUCKDB = "raw DuckDB"
WITHOUT = "without certificate"
CERTIFIED = 0.8
"""The certificate may take a quarter more time."""
DAILY_TARGET_S = 60.0


class Case(NamedTuple):
    """Files, how DuckDB loads them, and what is to be reached, in rows/s and in times DuckDB's."""

    name: str
    source: Path
    rows: int | None
    raw: str
    target: float | None = None
    ratio: float | None = None
    repeats: int = 3
    certified_ratio: float | None = None


def run(bench: Bench) -> list[Figure]:
    return [figure for case in _cases(bench) for figure in _compare(bench, case)]


def _cases(bench: Bench) -> Iterator[Case]:
    files, rows = bench.files, bench.scale.rows
    repeats = max(3, bench.repeats)
    yield Case("Parquet", files.stocks(), rows, "benchmarks.peers:insert_parquet", 1_500_000, 0.35, repeats, CERTIFIED)
    yield Case("CSV", files.stocks_csv(), rows, "benchmarks.peers:copy_csv", None, 0.5, repeats)
    yield Case(
        "CSV, a file per symbol",
        files.stocks_csv_files(),
        rows,
        "benchmarks.peers:copy_csv_files",
        None,
        0.5,
        3,
        CERTIFIED,
    )
    daily = bench.symbols * DAILY_FILES_A_SYMBOL * DAILY_BARS
    raw = "benchmarks.peers:insert_daily_files"
    yield Case("daily bars, a file per symbol", files.daily_csv_files(), daily, raw, daily / DAILY_TARGET_S, repeats=2)
    if bench.large:
        yield Case("CSV of 5 GB", files.stocks_csv_large(), None, "benchmarks.peers:copy_csv", repeats=1)


def _compare(bench: Bench, case: Case) -> list[Figure]:
    ours_ = "benchmarks.suites.load:load"
    subjects = {ours.NAME: (ours_, True), WITHOUT: (ours_, False), DUCKDB: (case.raw, None)}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects}
    for _ in range(case.repeats):
        for name, (function, certificate) in subjects.items():
            more = {} if certificate is None else {"certificate": certificate}
            place = bench.empty("load")
            answers[name].append(measure.in_a_process(function, source=str(case.source), place=str(place), **more))
    bench.empty("load")
    rows = {answer["rows"] for found in answers.values() for answer in found}
    assert rows == {case.rows or max(rows)}, (case, rows)
    taken = {name: [answer["seconds"] for answer in found] for name, found in answers.items()}
    rates = {name: max(rows) / seconds for name, seconds in measure.medians(taken).items()}
    peaks = {name: max(answer["peak_rss"] for answer in found) / 2**20 for name, found in answers.items()}
    return [
        Figure(
            name=case.name,
            unit="rows/s",
            ours=rates[WITHOUT],
            better="higher",
            peers={DUCKDB: rates[DUCKDB]},
            target=case.target,
            ratio_to=DUCKDB,
            ratio_target=case.ratio,
            samples=taken,
        ),
        Figure(
            name=f"{case.name}, with its certificate",
            unit="rows/s",
            ours=rates[ours.NAME],
            better="higher",
            peers={DUCKDB: rates[DUCKDB], WITHOUT: rates[WITHOUT]},
            target=case.target,
            ratio_to=WITHOUT,
            ratio_target=case.certified_ratio,
        ),
        Figure(
            name=f"{case.name}, peak memory",
            unit="MiB",
            ours=peaks[ours.NAME],
            better="lower",
            peers={DUCKDB: peaks[DUCKDB]},
            target=2_048,
        ),
    ]


def load(source: str, place: str, *, certificate: bool) -> dict[str, float]:
    """One load as `tapehouse load` does it, without the recognised columns being shown."""
    from tapehouse import bulk
    from tapehouse.bulk.checked import load_checked
    from tapehouse.store.duckdb.store import DuckDBStore

    started = time.perf_counter()
    store = DuckDBStore(place)
    options = bulk.LoadOptions(source=ours.SOURCE, certificate=certificate, workers=bulk.Workers.THREADS)
    report = load_checked([source], store, options, quarantine_dir=Path(place) / "quarantine")
    taken = time.perf_counter() - started
    store.close()
    assert report.complete, report
    assert report.totals.quarantined == 0, report
    assert not certificate or (report.certificate is not None and report.certificate.rows == report.totals.read), report
    shutil.rmtree(place)
    return {"seconds": taken, "rows": report.totals.inserted}
