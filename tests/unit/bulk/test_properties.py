"""What holds for any file: however it is cut into blocks, every row is either in the store or in quarantine, once."""

from __future__ import annotations

import csv
import io
import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse import bulk
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore

HEADER = ["timestamp", "symbol", "open", "high", "low", "close", "volume", "note"]
FIRST = 1_704_205_800_000_000_000
MINUTE_NS = 60_000_000_000
prices = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: value + 0.0)


@st.composite
def bars(draw: st.DrawFn) -> list[Any]:
    numbers = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
    first, last = draw(st.sampled_from([(1, 2), (2, 1)]))
    note = draw(st.sampled_from(["", "plain", 'a "quoted" word', "one, two", "two\nlines", "\u00e9\u20ac"]))
    volume = draw(st.floats(0, 1e12))
    return [draw(st.sampled_from("ABC")), numbers[first], numbers[3], numbers[0], numbers[last], volume, note]


bad_lines = st.sampled_from(
    [
        "",
        "x",
        ",,,,,,,",
        "2024-01-02T14:30:00Z,A,1,1,1,1,1",
        "yesterday,A,1,1,1,1,1,",
        "2024-01-02T14:30:00Z,A,3,1,1,1,1,n",
    ]
)


def written(rows: list[list[Any]]) -> list[str]:
    """Each row as CSV, at its own minute."""
    lines = []
    for number, row in enumerate(rows):
        line = io.StringIO()
        time = str(pa.scalar(FIRST + number * MINUTE_NS, pa.timestamp("ns")))
        csv.writer(line).writerow([f"{time.replace(' ', 'T')[:19]}Z", *map(_text, row)])
        lines.append(line.getvalue().removesuffix("\r\n"))
    return lines


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def load(
    content: bytes, name: str = "bars.csv", **options: Any
) -> tuple[bulk.LoadReport, MemoryStore, list[dict[str, str]]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        store = MemoryStore()
        options = {"interval": Interval.M1, "max_bad_share": 1.0, **options}
        report = bulk.load([path], store, bulk.LoadOptions(**options), quarantine_dir=Path(folder) / "q")
        bad: list[dict[str, str]] = []
        if report.files[0].quarantine is not None:
            with Path(report.files[0].quarantine).open(newline="", encoding="utf-8") as file:
                bad = list(csv.DictReader(file))
        return report, store, bad


def stored(store: MemoryStore) -> list[dict[str, Any]]:
    columns = ("symbol", "timestamp", "open", "high", "low", "close", "volume")
    table = store.read(Selection(kind=Kind.BARS, interval=Interval.M1, columns=columns)).table()
    times = table["timestamp"].cast(pa.int64()).to_pylist()
    return [dict(row, timestamp=time) for row, time in zip(table.to_pylist(), times, strict=True)]


@given(
    rows=st.lists(bars(), min_size=1, max_size=40),
    block_bytes=st.integers(1, 3_000),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_any_file_of_bars_is_what_the_store_has_bit_by_bit(
    rows: list[list[Any]], block_bytes: int, newline: str
) -> None:
    content = newline.join([",".join(HEADER), *written(rows)])
    report, store, bad = load(content.encode(), block_bytes=block_bytes, threads=2)
    assert report.totals.inserted == len(rows), bad
    expected = [
        {**dict(zip(HEADER[1:7], row, strict=False)), "timestamp": FIRST + n * MINUTE_NS} for n, row in enumerate(rows)
    ]
    assert stored(store) == sorted(expected, key=lambda row: (row["symbol"], row["timestamp"]))


@given(
    rows=st.lists(bars(), min_size=3, max_size=20),
    junk=st.lists(st.tuples(st.integers(0, 20), bad_lines), max_size=10),
    block_bytes=st.integers(1, 2_000),
    last_newline=st.booleans(),
)
def test_accepted_and_quarantined_rows_are_all_rows(
    rows: list[list[Any]], junk: list[tuple[int, str]], block_bytes: int, last_newline: bool
) -> None:
    lines = written(rows)
    for place, line in junk:
        lines.insert(min(place, len(lines)), line)
    content = "\n".join([",".join(HEADER), *lines]) + "\n" * last_newline
    report, store, bad = load(content.encode(), block_bytes=block_bytes)
    expected = [line for _, line in junk if line]
    assert sorted(row["row"] for row in bad) == sorted(expected)
    assert report.totals.quarantined == len(expected)
    assert report.totals.read == len(rows) + len(expected)
    assert len(stored(store)) == len(rows)
    physical = content.split("\n")
    assert all(physical[int(row["line"]) - 1] == row["row"] for row in bad)


@given(data=st.binary(max_size=3_000), block_bytes=st.integers(1, 500))
def test_any_bytes_after_a_good_beginning_lose_nothing(data: bytes, block_bytes: int) -> None:
    rows = written([["A", 1.0, 2.0, 0.5, 1.5, 10.0, ""]] * 5)
    start = "\n".join([",".join(HEADER), *rows]).encode() + b"\n"
    report, store, bad = load(start + data.replace(b"\0", b"."), block_bytes=block_bytes, encoding="utf-8")
    totals = report.totals
    assert report.complete
    assert totals.read == totals.inserted + totals.quarantined + totals.unchanged + totals.rejected
    assert len(bad) == totals.quarantined
    assert {row["timestamp"] for row in stored(store)} >= {FIRST + n * MINUTE_NS for n in range(5)}


@given(rows=st.lists(bars(), min_size=1, max_size=30), group=st.integers(1, 40))
@settings(max_examples=25)
def test_any_parquet_of_bars_is_what_the_store_has(rows: list[list[Any]], group: int) -> None:
    columns = dict(zip(HEADER[1:], zip(*rows, strict=True), strict=True))
    times = pa.array([FIRST + n * MINUTE_NS for n in range(len(rows))], pa.timestamp("ns", "UTC"))
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"timestamp": times, **{k: list(v) for k, v in columns.items()}}), sink, row_group_size=group
    )
    report, store, _ = load(sink.getvalue(), "bars.parquet")
    assert report.totals.inserted == len(rows)
    assert [row["open"] for row in sorted(stored(store), key=lambda row: row["timestamp"])] == [row[1] for row in rows]
    assert all(math.isfinite(row["close"]) for row in stored(store))


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("AB"), st.integers(0, 3), st.sampled_from([1.0, 2.0]), st.just(5.0)), max_size=60
    ),
    block_bytes=st.integers(1, 400),
)
def test_equal_trades_are_all_kept_and_found_again(rows: list[tuple[str, int, float, float]], block_bytes: int) -> None:
    lines = [f"{symbol},2024-01-02T14:30:0{second}Z,{price},{size}" for symbol, second, price, size in rows]
    content = "\n".join(["symbol,timestamp,price,size", "A,2024-01-02T14:30:00Z,1.0,5.0", *lines]).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trades.csv"
        path.write_bytes(content)
        store = MemoryStore()
        first = bulk.load([path], store, bulk.LoadOptions(block_bytes=block_bytes), quarantine_dir=folder)
        again = bulk.load([path], store, bulk.LoadOptions(block_bytes=1 << 20), quarantine_dir=folder)
    assert first.totals.inserted == len(rows) + 1
    assert (again.totals.unchanged, again.totals.inserted) == (len(rows) + 1, 0)
