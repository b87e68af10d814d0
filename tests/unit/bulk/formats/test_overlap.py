"""The hour that clocks show twice in autumn: told apart by the order of the rows, wherever blocks end."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.bulk.test_resume import Stopping

from tapehouse import bulk
from tapehouse.bulk.base import NEWEST, Workers
from tapehouse.bulk.formats import blocks as blocks_module
from tapehouse.bulk.validate import INVARIANTS
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore

ZONE = "America/New_York"
START = datetime(2024, 11, 3, 4, tzinfo=UTC)  # midnight, two hours before the clocks go back
TOLD, GUESSED, UNCLEAR = (INVARIANTS[name].says for name in ("told", "repeated", "unclear"))
Row = tuple[str, datetime, int]
"""Symbol, instant, price."""


def rows_of(symbols: Sequence[str], minutes: int = 5, hours: int = 5) -> list[Row]:
    """Bars in the order of time, of all symbols at each."""
    times = [START + timedelta(minutes=n) for n in range(0, hours * 60, minutes)]
    return [(symbol, time, n * 10 + k) for n, time in enumerate(times, 1) for k, symbol in enumerate(symbols)]


def ordered(rows: list[Row], order: str) -> list[Row]:
    if "symbol" in order:
        rows = sorted(rows, key=lambda row: row[0])
    return rows[::-1] if "newest" in order else rows


def cells(row: Row) -> dict[str, Any]:
    symbol, time, price = row
    clock = f"{time.astimezone(ZoneInfo(ZONE)):%Y-%m-%d %H:%M:%S}"
    return {"symbol": symbol, "timestamp": clock} | dict.fromkeys(("open", "high", "low", "close", "volume"), price)


def write(folder: Path, rows: list[Row], ending: str = "csv") -> Path:
    path, records = folder / f"bars.{ending}", [cells(row) for row in rows]
    if ending == "csv":
        lines = [",".join(map(str, record.values())) for record in records]
        path.write_text("\n".join([",".join(records[0]), *lines]) + "\n")
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        for record in records:
            record["timestamp"] = datetime.fromisoformat(record["timestamp"])
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=20)
    return path


def options(**more: Any) -> bulk.LoadOptions:
    return bulk.LoadOptions(**({"block_bytes": 200, "threads": 2, "timezone": ZONE, "batch_rows": 20} | more))


def stored(store: MemoryStore, interval: str = "5m") -> set[Row]:
    table = store.read(
        Selection(kind=Kind.BARS, interval=Interval(interval), columns=("symbol", "timestamp", "close"))
    ).table()
    times = table["timestamp"].cast(pa.int64()).to_pylist()
    instants = [datetime.fromtimestamp(time // 10**9, UTC) for time in times]
    symbols = table["symbol"].to_pylist()
    return {(s, t, int(c)) for s, t, c in zip(symbols, instants, table["close"].to_pylist(), strict=True)}


@pytest.mark.parametrize("order", ["time", "symbol", "time, newest first", "symbol, newest first"])
@pytest.mark.parametrize("block_bytes", [1, 300, 1_000, 1 << 20])
@pytest.mark.parametrize("symbols", [["A"], ["A", "B", "C"]])
def test_the_second_hour_is_the_second(order: str, block_bytes: int, symbols: list[str], tmp_path: Path) -> None:
    rows, store = rows_of(symbols), MemoryStore()
    path = write(tmp_path, ordered(rows, order))
    report = bulk.load([path], store, options(block_bytes=block_bytes), quarantine_dir=tmp_path / "q")
    assert stored(store) == set(rows)
    assert report.files[0].notes == [f"{TOLD} ({len(symbols) * 24})"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("order", ["time", "symbol, newest first"])
def test_so_it_is_in_other_formats(order: str, ending: str, tmp_path: Path) -> None:
    rows, store = rows_of(["A", "B"]), MemoryStore()
    bulk.load([write(tmp_path, ordered(rows, order), ending)], store, options(), quarantine_dir=tmp_path / "q")
    assert stored(store) == set(rows)


def test_parts_of_typed_files_know_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, store = rows_of(["A", "B"]), MemoryStore()
    path = write(tmp_path, ordered(rows, "newest"), "parquet")
    parts = blocks_module.parts
    monkeypatch.setattr(blocks_module, "parts", lambda file: parts(file, 7))
    bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")
    assert stored(store) == set(rows)


def test_processes_are_told(tmp_path: Path) -> None:
    rows, store = rows_of(["A"]), MemoryStore()
    given_options = options(workers=Workers.PROCESSES, block_bytes=800)
    bulk.load([write(tmp_path, rows)], store, given_options, quarantine_dir=tmp_path / "q")
    assert stored(store) == set(rows)


@pytest.mark.parametrize("at", [1, 2])
def test_a_load_that_goes_on_knows_what_came_before(at: int, tmp_path: Path) -> None:
    rows, store = rows_of(["A"]), Stopping(at, dies=True, before=False)
    path = write(tmp_path, rows)
    with pytest.raises(KeyboardInterrupt):
        bulk.load([path], store, options(batch="b"), quarantine_dir=tmp_path / "q")
    bulk.load([path], store, options(resume=NEWEST), quarantine_dir=tmp_path / "q")
    assert stored(store) == set(rows)


@pytest.mark.parametrize("order", ["time", "time, newest first"])
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_bars_of_an_hour_show_it_as_two_rows_of_one_time(order: str, block_bytes: int, tmp_path: Path) -> None:
    rows, store = rows_of(["A", "B"], minutes=60), MemoryStore()
    path = write(tmp_path, ordered(rows, order))
    bulk.load([path], store, options(block_bytes=block_bytes), quarantine_dir=tmp_path / "q")
    assert stored(store, "1h") == set(rows)


def test_what_the_order_does_not_tell_is_the_first(tmp_path: Path) -> None:
    rows = [row for row in rows_of(["A"]) if not START + timedelta(hours=2) <= row[1] < START + timedelta(hours=3)]
    store = MemoryStore()
    report = bulk.load([write(tmp_path, rows)], store, options(), quarantine_dir=tmp_path / "q")
    assert len(stored(store)) == len(rows)
    assert report.files[0].notes == [f"{GUESSED} (12)"]


@pytest.mark.parametrize("block_bytes", [1, 200, 1 << 20])
def test_rows_that_would_get_one_time_by_a_guess_are_not_loaded(block_bytes: int, tmp_path: Path) -> None:
    rows, store = sorted(rows_of(["A"]), key=lambda row: cells(row)["timestamp"]), MemoryStore()
    report = bulk.load([write(tmp_path, rows)], store, options(block_bytes=block_bytes), quarantine_dir=tmp_path / "q")
    assert {each.reason: each.rows for each in report.files[0].rejections} == {UNCLEAR: 24}
    assert len(stored(store)) == len(rows) - 24


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block_bytes", [2_000, 1 << 20])
def test_in_a_file_in_no_order_no_row_is_taken_for_one_of_the_two(seed: int, block_bytes: int, tmp_path: Path) -> None:
    rows, store = rows_of(["A"]), MemoryStore()
    random.Random(seed).shuffle(rows)
    given_options = options(block_bytes=block_bytes, interval=Interval("5m"))
    report = bulk.load([write(tmp_path, rows)], store, given_options, quarantine_dir=tmp_path / "q")
    assert {each.reason: each.rows for each in report.files[0].rejections} == {UNCLEAR: 24}
    assert report.files[0].notes == []
    assert len(stored(store)) == len(rows) - 24
    assert stored(store) < set(rows)


def test_two_rows_in_the_wrong_order_beside_the_hour_leave_it_open(tmp_path: Path) -> None:
    rows, store = rows_of(["A"]), MemoryStore()
    rows[40], rows[41] = rows[41], rows[40]
    report = bulk.load([write(tmp_path, rows)], store, options(block_bytes=1 << 20), quarantine_dir=tmp_path / "q")
    assert {each.reason: each.rows for each in report.files[0].rejections} == {UNCLEAR: 24}


def test_one_step_back_in_a_few_rows_of_nothing_else_is_no_order(tmp_path: Path) -> None:
    lines = [f"A,2024-11-03 {clock},1,1,1,1,1" for clock in ("01:10", "01:30", "01:20")]
    (tmp_path / "A_5m.csv").write_text("\n".join(["symbol,timestamp,open,high,low,close,volume", *lines]))
    given_options = options(interval=Interval("5m"))
    (file,) = bulk.plan([tmp_path / "A_5m.csv"], given_options)
    assert file.problem is not None
    assert f"none of the first 3 rows can be loaded: {UNCLEAR}" in file.problem.message


@pytest.mark.parametrize(("first", "last"), [(18, 60), (0, 42), (13, 35)])
def test_a_file_that_begins_or_ends_in_the_hour_is_told_where_the_clock_goes_back(
    first: int, last: int, tmp_path: Path
) -> None:
    rows, store = rows_of(["A"])[first:last], MemoryStore()
    bulk.load([write(tmp_path, rows)], store, options(block_bytes=1 << 20), quarantine_dir=tmp_path / "q")
    assert stored(store) == set(rows)


@pytest.mark.parametrize(("first", "last", "guessed"), [(30, 60, 6), (0, 20, 8)])
def test_one_that_does_not_go_back_is_taken_as_the_first_and_counted_by_file(
    first: int, last: int, guessed: int, tmp_path: Path
) -> None:
    rows = rows_of(["A"])[first:last]
    report = bulk.load([write(tmp_path, rows)], MemoryStore(), options(), quarantine_dir=tmp_path / "q")
    assert report.files[0].notes == [f"{GUESSED} ({guessed})"]


def test_trades_that_go_back_more_than_once_are_not_guessed(tmp_path: Path) -> None:
    clocks = ["00:59:00", "01:58:00", "01:00:00", "01:57:00", "01:01:00", "02:00:00"]
    lines = [f"A,2024-11-03 {clock},{n},1" for n, clock in enumerate(clocks, 1)]
    (tmp_path / "A.csv").write_text("\n".join(["symbol,timestamp,price,size", *lines]))
    report = bulk.load([tmp_path / "A.csv"], MemoryStore(), options(), quarantine_dir=tmp_path / "q")
    assert {each.reason: each.rows for each in report.files[0].rejections} == {UNCLEAR: 4}


def test_a_bad_row_in_between_makes_no_difference(tmp_path: Path) -> None:
    rows, store = rows_of(["A"]), MemoryStore()
    path = write(tmp_path, rows)
    lines = path.read_text().splitlines()
    lines[30:30], lines[42:42] = ["A,x,1,1,1,1,1"], ["A,2024-11-03 01:30:00,y"]
    path.write_text("\n".join(lines))
    bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")
    assert stored(store) == set(rows)


def test_an_hour_that_is_too_much_to_be_looked_at_loses_nothing_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "HELD_BYTES", 500)
    rows, store = rows_of(["A"]), MemoryStore()
    report = bulk.load([write(tmp_path, rows)], store, options(), quarantine_dir=tmp_path / "q")
    assert report.totals.replaced == 0
    assert stored(store) < set(rows)
    assert {each.reason for each in report.files[0].rejections} == {UNCLEAR}
    assert len(stored(store)) + report.totals.quarantined == len(rows)


def test_trades_that_are_a_little_out_of_order_do_not_turn_the_clock(tmp_path: Path) -> None:
    clocks = ["01:10:00", "01:09:59", "01:50:00", "01:49:30", "01:05:00", "01:04:59", "02:00:00"]
    lines = [f"A,2024-11-03 {clock},{n},1" for n, clock in enumerate(["00:00:00", "00:30:00", *clocks], 1)]
    (tmp_path / "A.csv").write_text("\n".join(["symbol,timestamp,price,size", *lines]))
    store = MemoryStore()
    bulk.load([tmp_path / "A.csv"], store, options(), quarantine_dir=tmp_path / "q")
    table = store.read(Selection(kind=Kind.TRADES, columns=("timestamp", "price"))).table().sort_by("price")
    hours = [(time // 3_600_000_000_000) % 24 for time in table["timestamp"].cast(pa.int64()).to_pylist()]
    assert hours == [4, 4, 5, 5, 5, 5, 6, 6, 7]


@settings(max_examples=40)
@given(
    missing=st.sets(st.integers(0, 59)),
    symbols=st.sampled_from([["A"], ["A", "B"]]),
    order=st.sampled_from(["time", "symbol", "time, newest", "symbol, newest"]),
    block_bytes=st.integers(1, 600),
)
def test_where_blocks_end_makes_no_difference(
    missing: set[int], symbols: list[str], order: str, block_bytes: int, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("overlap")
    kept = [row for row in rows_of(symbols) if row[2] // 10 - 1 not in missing]
    path = write(folder, ordered(kept, order))
    found = []
    for size in (block_bytes, 1 << 20):
        store = MemoryStore()
        report = bulk.load([path], store, options(block_bytes=size), quarantine_dir=folder / "q")
        found.append((stored(store), report.files[0].notes, report.totals.quarantined, report.totals.replaced))
    assert found[0] == found[1]
    assert found[0][2:] == (0, 0)
