"""A load that is inspected: the sample covers all of it, also where nobody says how many rows there are."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from tapehouse.bulk.base import NEWEST, LoadOptions
from tapehouse.bulk.checked import load_checked
from tapehouse.bulk.checks import kept
from tapehouse.bulk.checks.base import Checks
from tapehouse.errors import StoreFull
from tapehouse.model import Interval, Kind
from tapehouse.store.memory import MemoryStore

ROWS, HOUR_ROWS, SAMPLE_ROWS = 50_000, 180, 5_000
START_S, STEP_S = 1_704_067_200, 20


def spiked_late() -> bytes:
    """Trades, one every 20 s; in each hour of the last quarter one is far off."""
    noise = np.random.default_rng(7).normal(0, 1e-4, ROWS)
    prices = 100 * np.exp(np.cumsum(noise))
    prices[ROWS * 3 // 4 + HOUR_ROWS // 2 :: HOUR_ROWS] *= 1.5
    lines = [f"A,{START_S + STEP_S * row},{price:.2f},10" for row, price in enumerate(prices.tolist())]
    return ("symbol,timestamp,price,size\n" + "\n".join(lines) + "\n").encode()


@pytest.mark.parametrize("name", ["trades.csv", "trades.csv.gz"])
def test_a_sample_of_a_long_text_file_covers_its_end(tmp_path: Path, name: str) -> None:
    data = spiked_late()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    store = MemoryStore()
    options = LoadOptions(kind=Kind.TRADES)
    checks = Checks(sample_rows=SAMPLE_ROWS)
    load_checked([tmp_path / name], store, options, checks, quarantine_dir=tmp_path / "quarantine")
    (quality,) = kept(store)
    assert quality.tally.rows == ROWS
    assert SAMPLE_ROWS / 4 <= quality.tally.inspected <= SAMPLE_ROWS
    (spike,) = [each for each in quality.findings if each.rule == "spike"]
    assert spike.count > 1


def test_what_was_read_and_not_stored_has_no_grade(tmp_path: Path) -> None:
    (tmp_path / "trades.csv").write_bytes(spiked_late())
    store, stop = MemoryStore(), threading.Event()
    report = load_checked(
        [tmp_path / "trades.csv"],
        store,
        LoadOptions(kind=Kind.TRADES, block_bytes=1 << 16),
        quarantine_dir=tmp_path / "quarantine",
        progress=lambda _: stop.set(),
        stop=stop,
    )
    assert report.interrupted
    assert (report.totals.unwritten > 0, report.totals.commits) == (True, 0)
    assert list(kept(store)) == []


def test_a_load_that_was_resumed_has_grades_of_all_that_it_stored(tmp_path: Path) -> None:
    """The first run dies without a word of what it had seen, among it the spikes of its symbols."""
    for name in "AB":
        (tmp_path / f"{name}.csv").write_bytes(spiked_late().replace(b"A,", name.encode() + b",") + b"bad row\n")
    store, options = FailsLater(2), LoadOptions(kind=Kind.TRADES, block_bytes=1 << 16, batch_rows=20_000, retries=0)
    files = [tmp_path / "A.csv", tmp_path / "B.csv"]
    with pytest.raises(StoreFull):
        load_checked(files, store, options, quarantine_dir=tmp_path / "quarantine")
    assert list(kept(store)) == []
    report = load_checked(files, store, structs.replace(options, resume=NEWEST), quarantine_dir=tmp_path / "quarantine")
    assert report.totals.read == 2 * ROWS + 2
    assert [(each.symbol, each.tally.rows) for each in kept(store)] == [("A", ROWS), ("B", ROWS)]
    assert sum(each.tally.quarantined for each in kept(store)) == 2
    assert all("spike" in {found.rule for found in each.findings} for each in kept(store))
    assert sum(report.grades.values()) == 2


def test_bad_rows_of_a_load_that_was_resumed_are_shared_out_among_the_symbols_of_all_its_runs(tmp_path: Path) -> None:
    head, *lines = spiked_late().decode().splitlines(keepends=True)
    second = [line.replace("A,", "B,") for line in lines[ROWS // 2 :]]
    (tmp_path / "trades.csv").write_text("".join([head, *lines[: ROWS // 2], *second, *["bad row\n"] * 10]))
    store, options = FailsLater(2), LoadOptions(kind=Kind.TRADES, block_bytes=1 << 16, batch_rows=20_000, retries=0)
    with pytest.raises(StoreFull):
        load_checked([tmp_path / "trades.csv"], store, options, quarantine_dir=tmp_path / "quarantine")
    again = structs.replace(options, resume=NEWEST)
    report = load_checked([tmp_path / "trades.csv"], store, again, quarantine_dir=tmp_path / "quarantine")
    assert report.totals.quarantined == 10
    assert [(each.symbol, each.tally.rows, each.tally.quarantined) for each in kept(store)] == [
        ("A", ROWS // 2, 5),
        ("B", ROWS // 2, 5),
    ]


class FailsLater(MemoryStore):
    """Has room for so many writes; then once for none, and after that for all."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._writes = writes

    def write_together(self, *arguments: Any, **options: Any) -> Any:
        self._writes -= 1
        if self._writes == -1:
            raise StoreFull("no space left")
        return super().write_together(*arguments, **options)


def test_a_short_file_is_inspected_whole(tmp_path: Path) -> None:
    rows = "".join(f"A,2024-01-{day:02d},100,102,99,{100 + day % 3},1000\n" for day in range(1, 29))
    (tmp_path / "days.csv").write_text("symbol,date,open,high,low,close,volume\n" + rows)
    store = MemoryStore()
    options = LoadOptions(interval=Interval.D1)
    load_checked([tmp_path / "days.csv"], store, options, quarantine_dir=tmp_path / "quarantine")
    (quality,) = kept(store)
    assert (quality.tally.rows, quality.tally.inspected) == (28, 28)
