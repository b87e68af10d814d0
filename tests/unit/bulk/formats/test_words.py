"""Tickers that are words for a missing value, and times that are none or beyond measure, in text and JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
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


@pytest.mark.parametrize(
    ("delimiter", "prices"),
    [
        (",", ['"1,234.50"', "999.5", '"12,345"', '"1,234,567.25"']),
        (";", ["1,234.50", "999.5", "12,345", "1,234,567.25"]),
        (";", ["1.234,50", "999,5", "12.345", "1.234.567,25"]),
    ],
)
def test_groups_of_three_digits(delimiter: str, prices: list[str], tmp_path: Path) -> None:
    lines = [delimiter.join(["A", f"2024-01-02T14:30:0{n}Z", price, "1"]) for n, price in enumerate(prices)]
    path, store = tmp_path / "trades.csv", MemoryStore()
    path.write_text("\n".join([delimiter.join(NAMES[:4]), *lines]) + "\n")
    bulk.load([path], store, bulk.LoadOptions(), quarantine_dir=tmp_path / "q")
    table = store.read(Selection(kind=Kind.TRADES, columns=("timestamp", "price"))).table().sort_by("timestamp")
    assert table["price"].to_pylist() == [1234.5, 999.5, 12345, 1234567.25]


@pytest.mark.parametrize(
    ("delimiter", "price", "said", "expected"),
    [
        (",", "99.5", None, 8879),
        (",", "99.125", None, 8879),
        (";", "99.5", None, 8879),
        (";", "0.125", None, 8879),
        (",", "99", ".", 8879),
        (";", "99", ".", 8879),
        (";", "99", ",", 8.879),
        (";", "99", None, 8.879),
    ],
)
def test_a_decimal_mark_in_any_number_shows_what_groups_are(
    delimiter: str, price: str, said: str | None, expected: float, tmp_path: Path
) -> None:
    names = delimiter.join(["symbol", "timestamp", "price", "size"])
    lines = [delimiter.join(["A", f"2024-01-02T14:30:0{n}Z", price, '"8,879"']) for n in range(5)]
    path, store = tmp_path / "trades.csv", MemoryStore()
    path.write_text("\n".join([names, *lines]) + "\n")
    bulk.load([path], store, bulk.LoadOptions(decimal=said), quarantine_dir=tmp_path / "q")
    assert store.read(Selection(kind=Kind.TRADES)).table()["size"].to_pylist() == [expected] * 5


def test_three_digits_after_either_sign_show_nothing(tmp_path: Path) -> None:
    lines = [f"A;2024-01-02T14:30:0{n}Z;99.125;8,879" for n in range(5)]
    (tmp_path / "trades.csv").write_text("\n".join(["symbol;timestamp;price;size", *lines]) + "\n")
    (file,) = bulk.plan([tmp_path / "trades.csv"], bulk.LoadOptions())
    assert file.problem is not None
    assert "size may have groups of thousands or three decimals" in file.problem.message


LOST = [2**53 + 1, 18014398509481985, 12345678901234567890, -(2**53) - 1]
KEPT = [2**53, 2**60, 10**22, 12345678, 0]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "quoted", "semicolons", "grouped", "parquet"])
def test_whole_numbers_that_would_be_rounded_are_bad_in_every_format(ending: str, tmp_path: Path) -> None:
    path, store = tmp_path / "trades.csv", MemoryStore()
    prices = [*LOST, *KEPT]
    texts = {
        "csv": [f"{price}" for price in prices],
        "quoted": [f'"{price}"' for price in prices],
        "grouped": [f'"{price:,}.00"' for price in prices],
        "semicolons": [f"{price},0" for price in prices],
    }
    times = [f"2024-01-02T14:30:{n:02}Z" for n in range(len(prices))]
    if ending == "jsonl":
        lines = [f'{{"symbol":"A","timestamp":"{t}","price":{p},"size":1}}' for t, p in zip(times, prices, strict=True)]
        path.write_text("\n".join(lines))
    elif ending == "parquet":
        columns = {"symbol": ["A"] * len(prices), "timestamp": times, "price": list(map(str, prices))}
        pq.write_table(pa.table(columns | {"size": [1] * len(prices)}), path)
    else:
        mark = ";" if ending == "semicolons" else ","
        lines = [mark.join(["A", time, text, "1"]) for time, text in zip(times, texts[ending], strict=True)]
        path.write_text("\n".join([mark.join(["symbol", "timestamp", "price", "size"]), *lines]))
    report = bulk.load([path], store, bulk.LoadOptions(), quarantine_dir=tmp_path / "q")
    reason = "price is not a number that float64 holds"
    assert {each.reason: each.rows for each in report.files[0].rejections} == {reason: len(LOST)}
    table = store.read(Selection(kind=Kind.TRADES, columns=("timestamp", "price"))).table().sort_by("timestamp")
    assert table["price"].to_pylist() == KEPT


def test_decimals_and_exponents_become_the_nearest_float(tmp_path: Path) -> None:
    prices = ["0.12345678901234567890123", "1e23", "9007199254740993.5", "1.7976931348623157e308"]
    lines = [f"A,2024-01-02T14:30:0{n}Z,{price},1" for n, price in enumerate(prices)]
    (tmp_path / "trades.csv").write_text("\n".join(["symbol,timestamp,price,size", *lines]) + "\n")
    store = MemoryStore()
    bulk.load([tmp_path / "trades.csv"], store, bulk.LoadOptions(), quarantine_dir=tmp_path / "q")
    table = store.read(Selection(kind=Kind.TRADES, columns=("timestamp", "price"))).table().sort_by("timestamp")
    assert table["price"].to_pylist() == list(map(float, prices))


def test_one_group_may_be_decimals_and_is_not_guessed(tmp_path: Path) -> None:
    lines = [f'A,2024-01-02T14:30:0{n}Z,"1,23{n}",1' for n in range(5)]
    (tmp_path / "trades.csv").write_text("\n".join([",".join(NAMES[:4]), *lines]) + "\n")
    (file,) = bulk.plan([tmp_path / "trades.csv"], bulk.LoadOptions())
    assert file.problem is not None
    assert "price may have groups of thousands or three decimals" in file.problem.message
