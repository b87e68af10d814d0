"""Values that rows leave out since they did not change: the same whatever the blocks, the format and the threads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bulk.test_resume import Stopping

from tapehouse import bulk
from tapehouse.bulk.base import NEWEST, Workers
from tapehouse.bulk.formats.blocks import blocks_of
from tapehouse.bulk.recognise.known import read_descriptions
from tapehouse.bulk.validate import INVARIANTS, Judge
from tapehouse.model import Kind
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore

NAMES = ["<DATE>", "<TIME>", "<BID>", "<ASK>", "<LAST>", "<VOLUME>", "<FLAGS>"]
FILE = "EURUSD_202401020000_202401020001.csv"
Ticks = list[tuple[str, str]]
SAID = INVARIANTS["completed"].says

TICKS: Ticks = [("", "9"), ("1", ""), *((str(2 + n), "") if n % 7 else ("", str(10 + n)) for n in range(300)), ("", "")]


def cells(ticks: Ticks) -> list[list[str]]:
    return [
        ["2024.01.02", f"00:{n // 60:02}:{n % 60:02}.123", bid, ask, "", "", "6"] for n, (bid, ask) in enumerate(ticks)
    ]


def write(folder: Path, ticks: Ticks, name: str = FILE) -> Path:
    text = "".join("\t".join(row) + "\r\n" for row in [NAMES, *cells(ticks)])
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder / name


def expected(ticks: Ticks) -> tuple[list[tuple[float, float]], list[str], int]:
    """The quotes, the reasons of the other rows, and how many quotes were completed: row by row, in order."""
    bid = ask = None
    quotes, reasons, completed = [], [], 0
    for left, right in ticks:
        bid, ask = (float(left) if left else bid), (float(right) if right else ask)
        if not left and not right:
            reasons.append("neither bid nor ask is given")
        elif bid is None or ask is None:
            reasons.append(f"{'bid' if bid is None else 'ask'} is missing, and no row before it has one")
        else:
            quotes.append((bid, ask))
            completed += not (left and right)
    return quotes, sorted(reasons), completed


def stored(store: MemoryStore) -> list[tuple[float, float]]:
    table = store.read(Selection(kind=Kind.QUOTES, columns=("timestamp", "bid", "ask"))).table()
    table = table.sort_by("timestamp")
    return list(zip(table["bid"].to_pylist(), table["ask"].to_pylist(), strict=True))


def options(**more: Any) -> bulk.LoadOptions:
    return bulk.LoadOptions(**({"block_bytes": 300, "batch_rows": 50, "threads": 2} | more))


@pytest.mark.parametrize("name", [FILE, f"{FILE}.gz"])
@pytest.mark.parametrize("block_bytes", [1, 300, 1 << 20])
@pytest.mark.parametrize("workers", [Workers.THREADS, Workers.PROCESSES])
def test_a_row_is_completed_from_those_before_it(workers: Workers, block_bytes: int, name: str, tmp_path: Path) -> None:
    if workers is Workers.PROCESSES and block_bytes == 1:
        block_bytes = 3_000
    store, (quotes, reasons, completed) = MemoryStore(), expected(TICKS)
    path = write(tmp_path, TICKS, name)
    given_options = options(block_bytes=block_bytes, workers=workers)
    report = bulk.load([path], store, given_options, quarantine_dir=tmp_path / "q")
    assert stored(store) == quotes
    (file,) = report.files
    assert {each.reason: each.rows for each in file.rejections} == {each: reasons.count(each) for each in reasons}
    assert file.notes == [f"{SAID} ({completed})"]
    assert report.certificate is not None
    assert report.certificate.rows == len(quotes)


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("before", [True, False])
def test_a_load_that_goes_on_knows_what_came_before(at: int, before: bool, tmp_path: Path) -> None:
    path, store = write(tmp_path, TICKS), Stopping(at, dies=True, before=before)
    with pytest.raises(KeyboardInterrupt):
        bulk.load([path], store, options(batch="b"), quarantine_dir=tmp_path / "q")
    report = bulk.load([path], store, options(resume=NEWEST), quarantine_dir=tmp_path / "q")
    assert stored(store) == expected(TICKS)[0]
    assert report.complete


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_so_is_one_of_another_format(format_: str, tmp_path: Path) -> None:
    path, store = (tmp_path / FILE).with_suffix(f".{format_}"), MemoryStore()
    records = [dict(zip(NAMES, row, strict=True)) for row in cells(TICKS)]
    for record in records:
        record |= {name: float(record[name]) if record[name] else None for name in ("<BID>", "<ASK>")}
    if format_ == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    bulk.load([path], store, options(), quarantine_dir=tmp_path / "q")
    assert stored(store) == expected(TICKS)[0]


NUMBERS = st.sampled_from(["", "", "1", "2.5", "3"])


@given(ticks=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=30), block_bytes=st.integers(1, 400))
def test_where_blocks_end_makes_no_difference(ticks: Ticks, block_bytes: int, tmp_path_factory: Any) -> None:
    path = write(tmp_path_factory.mktemp("ticks"), ticks)
    (file,) = bulk.plan([path], bulk.LoadOptions(max_bad_share=1))
    blocks = list(blocks_of(file, Judge(file), bulk.LoadOptions(block_bytes=block_bytes)))
    parsed = [parse(block) for parse, block in reversed(blocks)][::-1]
    quotes = [
        (row["bid"], row["ask"]) for each in parsed if each.table.num_rows for row in each.table.to_pylist()
    ]  # fmt: skip
    reasons = sorted(reason for each in parsed for reason, _ in each.bad())
    completed = sum(each.remarks.get(SAID, 0) for each in parsed)
    assert (quotes, reasons, completed) == expected(ticks)


def test_what_is_no_number_of_a_whole_row_is_not_carried(tmp_path: Path) -> None:
    path = write(tmp_path, [("1", "2"), ("nan", "3"), ("x", "4"), ("", "5"), ("", '"6"')])
    path.write_text(path.read_text() + "2024.01.02\t00:01:00.123\t7\n2024.01.02\t00:01:01.123\t\t8\t\t\t6\n")
    for block_bytes in (1, 1 << 20):
        store = MemoryStore()
        bulk.load([path], store, options(block_bytes=block_bytes), quarantine_dir=tmp_path / "q")
        assert stored(store) == [(1, 2), (1, 5), (1, 6), (1, 8)]


def test_rows_that_are_trades_are_taken_as_such_when_said(tmp_path: Path) -> None:
    path, store = write(tmp_path, [("1", "2")] * 3), MemoryStore()
    trades = "".join(f"2024.01.02\t00:01:0{n}.123\t\t\t1.5\t{n + 1}\t24\n" for n in range(4))
    path.write_text(path.read_text() + trades)
    said = options(kind=Kind.TRADES, mapping={"price": "<LAST>"})
    report = bulk.load([path], store, said, quarantine_dir=tmp_path / "q")
    assert (report.totals.inserted, report.totals.quarantined) == (4, 3)


def test_a_column_of_symbols_and_values_left_out_do_not_go_together(tmp_path: Path) -> None:
    entry = {"name": "Mine", "kind": "quotes", "header": ["s", "t", "b", "a"], "carried": ["bid", "ask"]}
    entry |= {"columns": {"symbol": "s"}, "zeros": ["bid_size", "ask_size"]}
    (tmp_path / "q.csv").write_text("s,t,b,a\nA,2024-01-02T00:00:00Z,1,2\nB,2024-01-02T00:00:01Z,,2\n")
    own = read_descriptions([entry], "mine.toml")
    (file,) = bulk.plan([tmp_path / "q.csv"], bulk.LoadOptions(formats=own))
    assert file.problem is not None
    assert "a file of one symbol" in file.problem.message
