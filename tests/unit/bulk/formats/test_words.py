"""Tickers that are words for a missing value, and times that are none or beyond measure, in text and JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tapehouse import bulk
from tapehouse.model import Kind
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore

TICKERS = ["NA", "NULL", "nan", "NaN", "null", "None", "A"]
NAMES = ["symbol", "timestamp", "price", "size", "id"]


def write(folder: Path, rows: list[list[Any]], ending: str) -> Path:
    path = folder / f"trades.{ending}"
    if ending == "csv":
        path.write_text("\n".join(",".join(map(str, row)) for row in [NAMES, *rows]) + "\n")
    else:
        path.write_text("".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in rows))
    return path


def rows_of(tickers: list[str]) -> list[list[Any]]:
    return [[name, f"2024-01-02T14:30:{n:02}Z", 1.5, 2, f"{name}" if name else 7] for n, name in enumerate(tickers)]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("bad", [[], ["A", "x", "y", "z", "1"], ['A"', "2024-01-02T14:30:00Z", 1, 1, 1]])
def test_a_ticker_may_be_a_word_for_nothing(bad: list[Any], ending: str, tmp_path: Path) -> None:
    rows, store = rows_of(TICKERS), MemoryStore()
    path = write(tmp_path, [*rows, *([bad] if bad else [])], ending)
    report = bulk.load([path], store, bulk.LoadOptions(), quarantine_dir=tmp_path / "q")
    table = store.read(Selection(kind=Kind.TRADES, columns=("symbol", "id"))).table()
    assert sorted(table["symbol"].to_pylist()) == sorted(table["id"].to_pylist()) == sorted(TICKERS)
    assert report.totals.quarantined == bool(bad)


def test_an_empty_one_is_missing(tmp_path: Path) -> None:
    path, store = write(tmp_path, rows_of(["A", "", "NA"]), "csv"), MemoryStore()
    report = bulk.load([path], store, bulk.LoadOptions(), quarantine_dir=tmp_path / "q")
    assert {each.reason: each.rows for each in report.files[0].rejections} == {"symbol is missing": 1}


RANGE = "timestamp is not a time that int64 nanoseconds hold"
UNREAD = "timestamp is not a date or time written as {}"


@pytest.mark.parametrize(
    ("good", "bad", "reason", "form"),
    [
        ("2024-01-02T14:30:00Z", "x", UNREAD.format("ISO 8601"), None),
        ("2024-01-02T14:30:00Z", "2024-02-30T14:30:00Z", UNREAD.format("ISO 8601"), None),
        ("2024-01-02T14:30:00Z", "2300-01-01T14:30:00Z", RANGE, None),
        ("01/14/2024 14:30", "14 January", UNREAD.format("%m/%d/%Y %H:%M"), "%m/%d/%Y %H:%M"),
        ("01/14/2024 14:30", "01/14/2300 14:30", RANGE, "%m/%d/%Y %H:%M"),
        ("1704205800", "x", UNREAD.format("an epoch in s"), None),
        ("1704205800", "99999999999999999999", RANGE, None),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_why_a_time_is_none(good: str, bad: str, reason: str, form: str | None, ending: str, tmp_path: Path) -> None:
    rows = [["A", time, 1, 1, n] for n, time in enumerate([good, bad, good])]
    path, store = write(tmp_path, rows, ending), MemoryStore()
    report = bulk.load([path], store, bulk.LoadOptions(time_format=form), quarantine_dir=tmp_path / "q")
    assert {each.reason: each.rows for each in report.files[0].rejections} == {reason: 1}
