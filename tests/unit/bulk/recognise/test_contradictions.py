"""Dates of which some have day and month the other way round than the others: nothing tells which are right."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from tapehouse import bulk
from tapehouse.bulk.base import Workers
from tapehouse.store.memory import MemoryStore

DAYS = [date(2020, 1, 1) + timedelta(days=n) for n in range(4_000)]


def write(folder: Path, days: list[str]) -> Path:
    rows = [f"{day},1,2,.5,1.5,{n}" for n, day in enumerate(days)]
    (folder / "KO.csv").write_text("\n".join(["Date,Open,High,Low,Close,Volume", *rows]) + "\n")
    return folder / "KO.csv"


@pytest.mark.parametrize("forms", [("%d/%m/%Y", "%m/%d/%Y"), ("%m/%d/%Y", "%d/%m/%Y"), ("%d.%m.%Y", "%m.%d.%Y")])
def test_a_file_that_contradicts_itself_in_its_sample_is_refused(forms: tuple[str, str], tmp_path: Path) -> None:
    days = [f"{day:{forms[number >= 60]}}" for number, day in enumerate(DAYS[:120])]
    (file,) = bulk.plan([write(tmp_path, days)], bulk.LoadOptions())
    assert file.problem is not None
    assert "day and month contradict each other" in file.problem.message
    assert forms[0] in file.problem.message
    assert forms[1] in file.problem.message


@pytest.mark.parametrize("workers", [Workers.THREADS, Workers.PROCESSES])
def test_one_that_does_so_further_down_is_given_up(workers: Workers, tmp_path: Path) -> None:
    # The sample is 64 KB of the beginning and 16 KB of the end.
    days = [f"{day:{'%m/%d/%Y' if 3_000 <= number < 3_200 else '%d/%m/%Y'}}" for number, day in enumerate(DAYS)]
    path, store = write(tmp_path, days), MemoryStore()
    options = bulk.LoadOptions(block_bytes=8_000, batch_rows=500, workers=workers)
    report = bulk.load([path], store, options, quarantine_dir=tmp_path / "q")
    problem = report.files[0].problem
    assert problem is not None
    assert "day and month are the other way round in '03/19/2028'" in problem.message
    assert report.totals.inserted <= 3_000


def test_said_to_be_right_only_the_other_rows_are_bad(tmp_path: Path) -> None:
    path, store = write(tmp_path, ["14/01/2023", "15/01/2023", "01/16/2023", "17/01/2023"]), MemoryStore()
    options = bulk.LoadOptions(time_format="%d/%m/%Y", interval="1d")
    report = bulk.load([path], store, options, quarantine_dir=tmp_path / "q")
    assert report.totals.inserted == 3
    (rejection,) = report.files[0].rejections
    assert rejection.reason == "timestamp is not a date or time written as %d/%m/%Y"
