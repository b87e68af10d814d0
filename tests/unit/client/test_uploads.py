"""Frames as people have them, as the table that a store takes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tapehouse.client.uploads import encode, has_dates, to_table, with_midnights
from tapehouse.errors import InvalidTable
from tapehouse.model import Instrument, Kind

MIDNIGHT = 1_704_153_600_000_000_000  # 2024-01-02T00:00:00Z
NEW_YORK = MIDNIGHT + 5 * 3_600_000_000_000
VALUES = {"Open": [1.0], "High": [2.0], "Low": [0.5], "Close": [1.5], "Volume": [100]}
LOWER = {name.lower(): values for name, values in VALUES.items()}


def stamps(table: pa.Table) -> list[int]:
    return list(table["timestamp"].cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_pylist())


def pandas_frame(index: Any, **more: Any) -> pd.DataFrame:
    return pd.DataFrame(VALUES | more, index=index)


UTC_INDEX = pd.DatetimeIndex(["2024-01-02"], tz="UTC")
AWARE = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)

FRAMES = {
    "polars": pl.DataFrame({"symbol": ["A"], "timestamp": [AWARE]} | LOWER),
    "polars, other names": pl.DataFrame({"Ticker": ["A"], "Time": [AWARE]} | VALUES),
    "polars, dates": pl.DataFrame({"symbol": ["A"], "date": [dt.date(2024, 1, 2)]} | LOWER),
    "pandas, columns": pd.DataFrame({"symbol": ["A"], "timestamp": UTC_INDEX} | LOWER),
    "pandas, two levels": pandas_frame(pd.MultiIndex.from_arrays([["A"], UTC_INDEX], names=["symbol", "timestamp"])),
    "pandas, levels without names": pandas_frame(pd.MultiIndex.from_arrays([["A"], UTC_INDEX])),
    "pandas, symbol beside an index": pandas_frame(UTC_INDEX.rename("Date"), Symbol=["A"]),
    "pandas, objects that are dates": pd.DataFrame({"symbol": ["A"], "date": [dt.date(2024, 1, 2)]} | LOWER),
    "arrow": pa.table({"symbol": ["A"], "timestamp": pa.array([MIDNIGHT], pa.timestamp("ns", "UTC"))} | LOWER),
    "arrow batch": pa.record_batch(
        {"symbol": ["A"], "timestamp": pa.array([MIDNIGHT], pa.timestamp("ns", "UTC"))} | LOWER
    ),
    "arrow, seconds": pa.table(
        {"symbol": ["A"], "timestamp": pa.array([MIDNIGHT // 10**9], pa.timestamp("s", "UTC"))} | LOWER
    ),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_what_is_taken(frame: Any) -> None:
    table = to_table(frame)
    if has_dates(table):
        table = with_midnights(table, [])
    assert set(table.column_names) == {"symbol", "timestamp", *LOWER}
    assert table["symbol"].to_pylist() == ["A"]
    assert stamps(table) == [MIDNIGHT]
    assert table["volume"].to_pylist() == [100]


def test_a_reader_is_taken() -> None:
    table = FRAMES["arrow"]
    assert to_table(pa.RecordBatchReader.from_batches(table.schema, table.to_batches())).num_rows == 1


def test_one_symbol_is_named_beside_the_frame() -> None:
    table = to_table(pandas_frame(UTC_INDEX), symbol="BRK.B")
    assert table["symbol"].to_pylist() == ["BRK.B"]
    assert stamps(table) == [MIDNIGHT]


@pytest.mark.parametrize(("tz", "expected"), [("UTC", MIDNIGHT), ("America/New_York", NEW_YORK)])
@pytest.mark.parametrize(
    "frame",
    [
        pandas_frame(pd.DatetimeIndex(["2024-01-02"], name="Date")),
        pl.DataFrame({"timestamp": [dt.datetime(2024, 1, 2)]} | LOWER),
    ],
    ids=["pandas", "polars"],
)
def test_times_without_a_zone_are_in_the_one_that_is_named(frame: Any, tz: str, expected: int) -> None:
    assert stamps(to_table(frame, symbol="A", tz=tz)) == [expected]


def test_dates_are_midnight_in_the_zone_of_each_instrument() -> None:
    instruments = [
        Instrument(pattern="*", timezone="Asia/Tokyo"),
        Instrument(pattern="A*", timezone="America/New_York"),
        Instrument(pattern="AB", timezone="UTC"),
        Instrument(pattern="BRT", timezone="America/Sao_Paulo"),
    ]
    days = [dt.date(2024, 1, 2)] * 3 + [dt.date(2018, 11, 4)]  # in São Paulo, that day began at one o'clock
    frame = pl.DataFrame({"symbol": ["7203", "AAPL", "AB", "BRT"], "date": days})
    table = with_midnights(to_table(frame), instruments)
    began = 1_541_300_400_000_000_000  # 2018-11-04T03:00:00Z
    assert stamps(table) == [MIDNIGHT - 9 * 3_600_000_000_000, NEW_YORK, MIDNIGHT, began]


def test_a_zone_in_the_frame_counts_more_than_the_one_that_is_named() -> None:
    frame = pandas_frame(pd.DatetimeIndex(["2024-01-02"], tz="America/New_York"))
    assert stamps(to_table(frame, symbol="A", tz="Asia/Tokyo")) == [NEW_YORK]


def test_the_nanosecond_is_kept() -> None:
    frame = pandas_frame(pd.DatetimeIndex(np.array([MIDNIGHT + 1], "M8[ns]")).tz_localize("UTC"))
    assert stamps(to_table(frame, symbol="A")) == [MIDNIGHT + 1]


def test_a_range_index_is_no_column() -> None:
    assert "index" not in to_table(FRAMES["pandas, columns"]).column_names


def test_trades_and_quotes() -> None:
    trades = pl.DataFrame({"symbol": ["A"], "time": [AWARE], "Price": [1.0], "Size": [2.0], "Side": ["buy"]})
    assert to_table(trades, kind=Kind.TRADES).column_names == ["symbol", "timestamp", "price", "size", "side"]
    with pytest.raises(InvalidTable, match="quotes have no column 'Price', 'Size', 'Side'"):
        to_table(trades, kind=Kind.QUOTES)


REFUSED = {
    "naive": (pandas_frame(pd.DatetimeIndex(["2024-01-02"])), "tz_localize"),
    "naive polars": (pl.DataFrame({"timestamp": [dt.datetime(2024, 1, 2)]} | LOWER), "replace_time_zone"),
    "text": (pl.DataFrame({"date": ["2024-01-02"]} | LOWER), "str.to_datetime"),
    "no time": (pl.DataFrame(LOWER), "no column says when"),
    "no frame": ([1, 2, 3], "a frame of Polars, pandas or Arrow is needed, not list"),
    "lazy": (pl.DataFrame(LOWER).lazy(), "collect"),
    "unknown column": (pandas_frame(UTC_INDEX, Dividends=[0.0]), "bars have no column 'Dividends'; drop"),
    "twice": (pandas_frame(UTC_INDEX, Date=[AWARE]), "'timestamp' and 'Date' both mean timestamp"),
    "index and column": (pandas_frame(UTC_INDEX.rename("Open")), "'Open' is a column and in the index too"),
    "levels": (pd.DataFrame({("Open", "A"): [1.0]}, index=UTC_INDEX), "several levels"),
    "mixed": (pandas_frame(UTC_INDEX).assign(Open=[object()]), "values of different types"),
}


@pytest.mark.parametrize(("frame", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(frame: Any, message: str) -> None:
    with pytest.raises(InvalidTable, match=message):
        to_table(frame, symbol="A")


def test_which_symbol() -> None:
    with pytest.raises(InvalidTable, match="pass symbol="):
        to_table(pandas_frame(UTC_INDEX))
    with pytest.raises(InvalidTable, match="has a column of symbols"):
        to_table(FRAMES["polars"], symbol="B")


@pytest.mark.parametrize("tz", ["Mars/Olympus", "UTC+"])
def test_an_unknown_zone(tz: str) -> None:
    with pytest.raises(InvalidTable, match="cannot be read in the zone"):
        to_table(pandas_frame(pd.DatetimeIndex(["2024-01-02"])), symbol="A", tz=tz)


def test_a_time_that_the_clocks_skipped() -> None:
    frame = pandas_frame(pd.DatetimeIndex(["2024-03-10 02:30"]))
    with pytest.raises(InvalidTable, match="cannot be read in the zone"):
        to_table(frame, symbol="A", tz="America/New_York")


def test_encoded_it_is_an_arrow_stream() -> None:
    table = to_table(FRAMES["polars"])
    assert pa.ipc.open_stream(encode(table)).read_all() == table
