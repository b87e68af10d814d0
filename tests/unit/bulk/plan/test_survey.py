"""What a load is expected to do."""

from __future__ import annotations

import gzip
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tapehouse import bulk
from tapehouse.bulk.plan.survey import SAMPLED_FILES

MINUTE_NS = 60_000_000_000
START = 1_704_205_800_000_000_000


def minutes(count: int) -> str:
    rows = "".join(f"{1704205800 + 60 * n},{100 + n % 7}.25,110,90,{101 + n % 5}.5,{n % 991}\n" for n in range(count))
    return f"time,open,high,low,close,volume\n{rows}"


def surveyed(path: Path) -> bulk.Survey:
    return bulk.survey(bulk.plan([path], bulk.LoadOptions()), bulk.LoadOptions())


def test_small_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "KO_1m.csv").write_text(minutes(50))
    (tmp_path / "PEP_1m.csv.gz").write_bytes(gzip.compress(minutes(30).encode()))
    found = surveyed(tmp_path)
    assert (found.rows, found.exact, found.symbols) == (80, True, 2)
    assert (found.start, found.end) == (START, START + 49 * MINUTE_NS)
    assert [(each.rows, each.exact, each.symbols) for each in found.files] == [(50, True, ["KO"]), (30, True, ["PEP"])]
    assert found.seconds is not None
    assert found.seconds > 0


def test_a_large_file_is_estimated_and_the_estimate_is_near(tmp_path: Path) -> None:
    (tmp_path / "KO_1m.csv").write_text(minutes(150_000))
    found = surveyed(tmp_path)
    assert not found.exact
    assert 0 < found.files[0].sampled_rows < 150_000
    assert found.rows == pytest.approx(150_000, rel=0.05)
    assert (found.start, found.end) == (START, START + 149_999 * MINUTE_NS)
    assert found.disk_bytes is not None
    assert 0 < found.disk_bytes / found.rows < 20


def test_of_many_files_some_are_read_and_the_others_are_like_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("tapehouse.bulk.plan.survey"), "SMALL_FILES", SAMPLED_FILES)
    for number in range(2 * SAMPLED_FILES):
        (tmp_path / f"S{number:03}_1m.csv").write_text(minutes(20))
    found = surveyed(tmp_path)
    assert sum(each.sampled_rows > 0 for each in found.files) == SAMPLED_FILES
    assert (found.rows, found.exact, found.symbols) == (40 * SAMPLED_FILES, False, 2 * SAMPLED_FILES)


def test_many_small_files_are_all_read(tmp_path: Path) -> None:
    for number in range(2 * SAMPLED_FILES):
        (tmp_path / f"S{number:03}_1m.csv").write_text(minutes(20))
    (tmp_path / "S099_1m.csv").write_text(minutes(20) + "1704299400,1,0.5,2,1,1\n")
    found = surveyed(tmp_path)
    assert (found.rows, found.exact) == (40 * SAMPLED_FILES + 1, True)
    assert [line for line in bulk.describe_survey(found) if "bad" in line] == [
        "S099_1m.csv: 1 row is bad: high is below open (line 22)"
    ]


def test_a_file_that_would_be_given_up(tmp_path: Path) -> None:
    (tmp_path / "KO_1m.csv").write_text(minutes(2) + "1704299400,1,0.5,2,1,1\n" * 3)
    (tmp_path / "PEP_1m.csv").write_text(minutes(2))
    found = surveyed(tmp_path)
    lines = bulk.describe_survey(found)
    assert "KO_1m.csv: would not be loaded: 3 of its 5 rows are bad, more than a share of 0.5 (max_bad_share)" in lines
    assert "KO_1m.csv: 3 rows are bad: high is below open (line 4)" in lines
    assert any(line.startswith("1 file to load, 1 that cannot be; 2 rows of 1 symbol, ") for line in lines)


def test_problems_are_found_in_the_sample(tmp_path: Path) -> None:
    (tmp_path / "KO_1m.csv").write_text(minutes(20) + "1704299400,1,0.5,2,1,1\nx,1,1,1,1,1\n")
    (tmp_path / "PEP.csv").write_text("what is this?")
    ko, pep = surveyed(tmp_path).files
    assert {each.reason: each.rows for each in ko.rejections} == {
        "high is below open": 1,
        "time is not a date or time written as an epoch in s": 1,
    }
    assert pep.problem is not None
    assert pep.rows is None


def test_columns_with_types_say_how_many_rows_they_have(tmp_path: Path) -> None:
    rows = 200_000
    times = (START + np.arange(rows) * MINUTE_NS).astype("M8[ns]")
    columns = {name: np.full(rows, 2.0) for name in ("open", "high", "low", "close", "volume")}
    pq.write_table(pa.table({"timestamp": times, **columns}), tmp_path / "KO_1m.parquet")
    found = surveyed(tmp_path)
    assert (found.rows, found.exact) == (rows, True)
    assert found.files[0].sampled_rows < rows


def test_nothing_to_estimate_from(tmp_path: Path) -> None:
    (tmp_path / "KO.csv").write_text("")
    found = surveyed(tmp_path)
    assert (found.rows, found.seconds, found.disk_bytes, found.rows_per_s) == (0, None, None, None)
