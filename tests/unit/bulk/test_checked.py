"""A load that is inspected: the sample covers all of it, also where nobody says how many rows there are."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tapehouse.bulk.base import LoadOptions
from tapehouse.bulk.checked import load_checked
from tapehouse.bulk.checks import kept
from tapehouse.bulk.checks.base import Checks
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


def test_a_short_file_is_inspected_whole(tmp_path: Path) -> None:
    rows = "".join(f"A,2024-01-{day:02d},100,102,99,{100 + day % 3},1000\n" for day in range(1, 29))
    (tmp_path / "days.csv").write_text("symbol,date,open,high,low,close,volume\n" + rows)
    store = MemoryStore()
    options = LoadOptions(interval=Interval.D1)
    load_checked([tmp_path / "days.csv"], store, options, quarantine_dir=tmp_path / "quarantine")
    (quality,) = kept(store)
    assert (quality.tally.rows, quality.tally.inspected) == (28, 28)
