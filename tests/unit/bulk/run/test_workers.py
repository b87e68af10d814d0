"""Parsing in threads and in processes is the same, and a process that dies takes nothing with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tapehouse import bulk
from tapehouse.bulk import base
from tapehouse.bulk.base import Counts
from tapehouse.bulk.formats.text import Parsed
from tapehouse.bulk.run import shared
from tapehouse.bulk.run.workers import Done, Task, Workers
from tapehouse.errors import InvalidData, UnreadableFile
from tapehouse.model import Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.memory import MemoryStore

HEADER = "symbol,timestamp,open,high,low,close,volume"


def rows(count: int, symbol: str = "AAPL") -> list[str]:
    return [
        f"{symbol},2024-01-{1 + n // 1_440:02}T{n // 60 % 24:02}:{n % 60:02}:00Z,10,12,9,11,{n}" for n in range(count)
    ]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def count_lines(block: bytes) -> Parsed:
    """A parser of its own, which a process can find."""
    return Parsed(table=pa.table({"n": [len(block.split())]}), rows=1, remarks={"pid": os.getpid()})


def die_over_bad(block: bytes) -> Parsed:
    if block == b"bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return count_lines(block)


def die_once(marker: str) -> Parsed:
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return count_lines(b"one")


def refuse(block: bytes) -> Parsed:
    raise UnreadableFile("the file is none", path="x")


def task(parse: Any, block: Any) -> Task:
    return Task(parse=parse, block=block, kind=Kind.BARS)


@pytest.fixture
def workers() -> Any:
    before = descriptors()
    pool = Workers(1, processes=True)
    yield pool
    pool.close()
    assert descriptors() == before


def test_a_process_parses(workers: Workers) -> None:
    done: Done = workers.submit(task(count_lines, b"a b c")).result()
    assert done.parsed.table.to_pydict() == {"n": [3]}
    assert done.parsed.remarks["pid"] != os.getpid()
    again = workers.submit(task(count_lines, b"a")).result()
    assert again.parsed.remarks == done.parsed.remarks


def test_an_error_comes_back_as_it_is(workers: Workers) -> None:
    with pytest.raises(UnreadableFile, match="the file is none") as caught:
        workers.submit(task(refuse, b"")).result()
    assert caught.value.details == {"path": "x"}


def test_a_process_that_dies_is_started_again(workers: Workers, tmp_path: Path) -> None:
    assert workers.submit(task(die_once, str(tmp_path / "died"))).result().parsed.rows == 1


def test_a_block_over_which_processes_die_is_at_fault_and_the_next_is_parsed(workers: Workers) -> None:
    bad = workers.submit(task(die_over_bad, b"bad"))
    good = workers.submit(task(die_over_bad, b"a b"))
    with pytest.raises(InvalidData, match="died 2 times"):
        bad.result()
    assert good.result().parsed.table.to_pydict() == {"n": [2]}


def test_what_is_shared_comes_back_without_a_copy_and_leaves_no_descriptor() -> None:
    before = descriptors()
    table = pa.table({"a": pa.array(range(100_000)), "b": pa.array(["x", "y"] * 50_000).dictionary_encode()})
    used = pa.total_allocated_bytes()
    value, again = shared.take(shared.put({"said": 1}, table))
    assert (value, again) == ({"said": 1}, table)
    assert pa.total_allocated_bytes() - used < 100_000
    assert shared.take(shared.put("alone")) == ("alone", None)
    del again
    assert descriptors() == before


def test_a_load_in_processes_is_the_load_in_threads(tmp_path: Path) -> None:
    lines = rows(5_000)
    lines[1_234] = lines[1_234].replace(",12,", ",1,")
    lines[4_000] = "nothing"
    (tmp_path / "a.csv").write_text("\n".join([HEADER, *lines]))
    (tmp_path / "b.csv").write_text("\n".join([HEADER, *rows(3_000, "MSFT")]))
    found = []
    for kind in (base.Workers.THREADS, base.Workers.PROCESSES):
        store = MemoryStore()
        options = bulk.LoadOptions(workers=kind, block_bytes=20_000, batch_rows=1_500, batch="b", threads=2)
        report = bulk.load([tmp_path], store, options, quarantine_dir=tmp_path / kind)
        assert report.certificate is not None
        table = store.read(Selection(kind=Kind.BARS, interval=Interval.M1)).table()
        bad = (tmp_path / kind / "b" / "a.csv.csv").read_text()
        found.append((report.totals, report.certificate.rows, table.to_pydict(), bad))
    assert found[0] == found[1]
    assert found[0][0].quarantined == 2
    assert found[0][0] == Counts(read=8_000, quarantined=2, inserted=7_998, commits=found[0][0].commits)
