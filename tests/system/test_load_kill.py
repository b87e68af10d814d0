"""A load that is killed anywhere goes on: nothing is lost, nothing is there twice, and all of it is certified."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from tapehouse.bulk import LoadReport, journal
from tapehouse.bulk.base import NEWEST
from tapehouse.bulk.certificate import certify
from tapehouse.failpoints import ENVIRONMENT
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore

ROOT = Path(__file__).parents[2]
HEADERS = {"bars": "timestamp,open,high,low,close,volume", "trades": "timestamp,price,size"}
FILES, ROWS, BAD = 6, 1_500, 20


def rows_of(kind: str, symbol: int) -> list[tuple[int, float]]:
    """Seconds of 2024-01-02, and the value by which a row is known."""
    if kind == "bars":
        return [(60 * n, float(n * 7 + symbol)) for n in range(1_400)]
    return [(n // 5, float(n // 3 % 4 + 1)) for n in range(ROWS)]


def line(kind: str, second: int, value: float) -> str:
    time_ = f"2024-01-02T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
    return f"{time_},10,12,9,11,{value}" if kind == "bars" else f"{time_},10.5,{value}"


@pytest.fixture(scope="module", params=["bars", "trades"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    for symbol in range(FILES):
        lines = [line(request.param, *row) for row in rows_of(request.param, symbol)]
        for n in range(BAD):
            lines.insert(n * 40, line(request.param, 60 * n, -1.0 - n))
        (folder / f"S{symbol}.csv").write_text("\n".join([HEADERS[request.param], *lines]) + "\n")
    return request.param, folder


def start(folder: Path, files: Path, batch: str, armed: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.system.loads", str(folder), str(files), batch],
        env={**os.environ, ENVIRONMENT: armed},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, errors = process.communicate(timeout=100)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode, output


def expected(kind: str) -> list[tuple[str, int, float]]:
    found = [(f"S{symbol}", *row) for symbol in range(FILES) for row in rows_of(kind, symbol)]
    return sorted(found)


def stored(store: DuckDBStore, kind: str) -> list[tuple[str, int, float]]:
    value = "volume" if kind == "bars" else "size"
    interval = Interval.M1 if kind == "bars" else None
    selection = Selection(kind=Kind(kind), interval=interval, columns=("symbol", "timestamp", value))
    table = store.read(selection).table()
    seconds = [n // 10**9 % 86_400 for n in table["timestamp"].cast(pa.int64()).to_pylist()]
    return sorted(zip(table["symbol"].to_pylist(), seconds, table[value].to_pylist(), strict=True))


def reported(store: DuckDBStore) -> int:
    """The rows of which the load had said, durably, that they were loaded."""
    kept = store.documents(journal.FILES)
    files = [msgspec.json.decode(text, type=journal.FileProgress) for key, text in kept.items() if key[-1] != "/"]
    return sum(file.counts.inserted + file.counts.unchanged for file in files)


def quarantined(folder: Path) -> Counter[tuple[str, str]]:
    """The rows in quarantine by file and line."""
    found = Counter[tuple[str, str]]()
    for path in folder.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            found.update((row["file"], row["line"]) for row in csv.DictReader(file))
    return found


def check_killed(folder: Path, kind: str) -> None:
    """What is there is of the files, each row once, and no less than was reported."""
    store = DuckDBStore(folder)
    held = stored(store, kind)
    assert len(held) >= reported(store)
    whole: list[Any] = expected(kind)
    for row in held:
        whole.remove(row)
    store.close()


def check_whole(folder: Path, kind: str, report: LoadReport) -> None:
    store = DuckDBStore(folder)
    assert stored(store, kind) == expected(kind)
    assert report.complete
    assert len(expected(kind)) == report.totals.inserted + report.totals.unchanged
    assert report.totals.read == len(expected(kind)) + FILES * BAD
    assert report.certificate is not None
    assert report.certificate.rows == len(expected(kind))
    assert quarantined(folder / "quarantine" / report.batch) == Counter(
        (f"S{symbol}.csv", str(n * 40 + 2)) for symbol in range(FILES) for n in range(BAD)
    )
    assert report.totals.quarantined == FILES * BAD
    assert certify(store, report.batch).disagreeing == []
    assert store.documents(journal.FILES) == {}
    store.close()


def check_counts(folder: Path, report: LoadReport) -> None:
    """They are what the store says of the batch, also where the run that was killed could not write it down."""
    store = DuckDBStore(folder)
    [batch] = store.batches([report.batch])
    assert (report.totals.inserted, report.totals.commits) == (batch.inserted, batch.commits)
    assert report.totals.unchanged == 0
    store.close()


def resume(folder: Path, files: Path, batch: str) -> LoadReport:
    code, output = ended(start(folder, files, batch))
    assert code == 0
    return msgspec.json.decode(output.splitlines()[-1], type=LoadReport)


PLACES = [
    "documents.removed=kill@1",
    "write.rows.inserted=kill@4",
    "documents.removed=kill@4",
    "store.transaction.committed=kill@6",
    "store.transaction.committed=kill@7",
]
"""Before there is a load; in a commit; in what is said of one; after either."""


def next_batch(folder: Path) -> str | None:
    """How to go on; None when the load had come to its end before it was killed."""
    store = DuckDBStore(folder)
    loads = journal.loads(store)
    store.close()
    if not loads:
        return "b"
    return None if loads[-1].state == "finished" else NEWEST


@pytest.mark.parametrize("armed", PLACES)
def test_a_load_that_is_killed_at_a_place_goes_on(armed: str, files: tuple[str, Path], tmp_path: Path) -> None:
    kind, folder = files
    code, _ = ended(start(tmp_path / "data", folder, "b", armed))
    assert code == -signal.SIGKILL
    check_killed(tmp_path / "data", kind)
    batch = next_batch(tmp_path / "data")
    assert batch is not None
    report = resume(tmp_path / "data", folder, batch)
    check_whole(tmp_path / "data", kind, report)
    check_counts(tmp_path / "data", report)


def test_a_load_that_is_killed_at_any_time_again_and_again_goes_on(files: tuple[str, Path], tmp_path: Path) -> None:
    kind, folder = files
    chance = random.Random(kind)
    batch: str | None = "b"
    for _ in range(4):
        process = start(tmp_path / "data", folder, batch or "again")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        ended(process)
        check_killed(tmp_path / "data", kind)
        batch = next_batch(tmp_path / "data")
    check_whole(tmp_path / "data", kind, resume(tmp_path / "data", folder, batch or "again"))
