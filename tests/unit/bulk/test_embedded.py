"""Loads into the embedded store, which forgets nothing when it is closed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from tapehouse import bulk
from tapehouse.model import Instrument, Interval, Kind
from tapehouse.store.base import Selection
from tapehouse.store.duckdb import DuckDBStore

EXAMPLE = Path(__file__).parents[3] / "examples" / "data" / "us-daily.csv.gz"


def test_the_real_example(tmp_path: Path) -> None:
    """All 12,154 rows are sound: no high, low, volume or date of them breaks a rule."""
    instruments = [Instrument(pattern="*", calendar="XNYS", timezone="America/New_York")]
    store = DuckDBStore(tmp_path / "data")
    store.put_instruments(instruments)
    report = bulk.load([EXAMPLE], store, instruments=instruments, quarantine_dir=tmp_path / "data" / "quarantine")
    assert report.totals.inserted == report.totals.read == 12_154
    assert report.files[0].rejections == []
    store.close()
    store = DuckDBStore(tmp_path / "data")
    found = {series.symbol: series.rows for series in store.coverage()}
    assert found == {"AAPL": 3_270, "FB": 196, "GOOG": 2_148, "IBM": 3_270, "MSFT": 3_270}
    columns = ("symbol", "timestamp", "open", "high", "low", "close", "volume", "adj_close")
    with store.read(Selection(interval=Interval.D1, columns=columns)) as reading:
        stored = pl.DataFrame(pl.from_arrow(reading.table().cast(_plain(reading.schema))))
    again = bulk.load([EXAMPLE], store, instruments=instruments, quarantine_dir=tmp_path)
    assert again.totals.unchanged == 12_154
    store.close()
    raw = pl.read_csv(EXAMPLE, schema_overrides={"Volume": pl.Float64})
    raw.columns = ["symbol", "timestamp", "open", "high", "low", "close", "volume", "adj_close"]
    midnight = pl.col("timestamp").str.to_datetime("%Y-%m-%d", time_unit="ns").dt.replace_time_zone("America/New_York")
    expected = raw.with_columns(midnight.dt.convert_time_zone("UTC")).sort("symbol", "timestamp")
    assert stored.equals(expected)


def _plain(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_many_blocks_and_batches_are_one_series(tmp_path: Path, suffix: str) -> None:
    rows = 50_000
    rng = np.random.default_rng(5)
    low = np.round(rng.normal(100, 20, rows), 2)
    frame = pl.DataFrame(
        {
            "symbol": np.where(np.arange(rows) % 2, "ODD", "EVEN"),
            "timestamp": (np.arange(rows) // 2 * 60_000_000_000).astype("M8[ns]"),
            "open": low + 1,
            "high": low + 2,
            "low": low,
            "close": low + 1.5,
            "volume": np.arange(rows, dtype=float),
        }
    )
    path = tmp_path / f"bars.{suffix}"
    if suffix == "csv":
        frame.write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    else:
        frame.write_parquet(path)
    store = DuckDBStore(tmp_path / "data")
    options = bulk.LoadOptions(block_bytes=1 << 16, batch_rows=20_000, batch="one")
    report = bulk.load([path], store, options, quarantine_dir=tmp_path)
    assert report.totals.inserted == rows
    assert report.totals.commits == (3 if suffix == "csv" else 1)
    assert {commit.batch for commit in store.commits()} == {"one"}
    assert [series.rows for series in store.coverage(Kind.BARS)] == [rows // 2, rows // 2]
    with store.read(Selection(symbols=("ODD",), interval=Interval.M1, columns=("open", "volume"))) as reading:
        table = reading.table()
    expected = frame.filter(pl.col("symbol") == "ODD")
    assert table["open"].to_pylist() == expected["open"].to_list()
    assert table["volume"].to_pylist() == expected["volume"].to_list()
    store.close()
